package llama

import "github.com/herdtrain/herd/tensor"

// Sharding is how ZeRO (Rajbhandari et al. 2020) spreads the state of a model over ranks that compute the same layers.
// The zero Sharding keeps all on each.
type Sharding struct {
	// Stage 1 shards the optimizer's state, 2 also the gradients, 3 also the weights.
	Stage        int
	Ranks, Index int    // ranks of one copy of the state, 0 is as 1; this one among them
	Shards       Shards // moves what is not here; nil: there is nothing to move
}

func (s Sharding) ranks() int { return max(s.Ranks, 1) }

// Shards moves the weights and gradients of units between the ranks of a Sharding, and adds up gradients. All ranks call
// it for the same units in the same order, however they split the batch.
type Shards interface {
	// Weights is all weights of a unit, x. They stay until two other units have been asked for, or fetched.
	Weights(unit int) tensor.Buffer
	// Fetch begins to bring the weights of a unit, for a Weights to come.
	Fetch(unit int)
	// Grads is memory for the gradient of a unit, acc, with what was added since the last Reduce of the unit.
	Grads(unit int) tensor.Buffer
	// Reduce begins to add up the ranks' gradients of a unit. If gradients are sharded that is what Grads has; otherwise
	// it is their sum over all micro-batches.
	Reduce(unit int)
}

// Unit is a part of the flat arrays that moves at a time: the embedding, a layer, or the final norm and the head.
type Unit struct {
	Items       // elements of the flat arrays
	Own   Items // those that this rank updates

	Weights tensor.Buffer // x, of Own
	Grads   tensor.Buffer // acc, of Own
}

// Len is how many elements it has.
func (u Unit) Len() int { return u.len() }

// weight is the weights at p, x [rows·cols].
func (s *Stage) weight(p span) tensor.Buffer {
	if s.sharding.Stage < 3 {
		return p.of(s.Params.Weights)
	}
	return s.within(p, s.sharding.Shards.Weights(p.unit))
}

// matrix is the weights at p, x [rows, cols].
func (s *Stage) matrix(p span) tensor.Mat { return tensor.Matrix(s.weight(p), p.rows, p.cols) }

// grad is where the gradient of the weights at p adds up, acc [rows·cols].
func (s *Stage) grad(p span) tensor.Buffer {
	if s.sharding.Stage < 2 {
		return p.of(s.Params.Grads)
	}
	return s.within(p, s.sharding.Shards.Grads(p.unit))
}

// within is p's part of an array of its unit.
func (s *Stage) within(p span, unit tensor.Buffer) tensor.Buffer {
	lo := p.offset - s.Params.Units[p.unit].Lo
	return unit.Slice(lo, lo+p.rows*p.cols)
}

// fetch begins to bring the weights of the unit of p, if they are not here.
func (s *Stage) fetch(p span) {
	if s.sharding.Stage == 3 {
		s.sharding.Shards.Fetch(p.unit)
	}
}

// reduce begins to add up the gradient of the unit of p, after the last that this micro-batch adds to it, or this part of
// a split backward pass.
func (s *Stage) reduce(p span, last bool) {
	if s.sharding.Shards != nil && s.leaves == nil && (s.sharding.Stage >= 2 || last && s.final) {
		s.sharding.Shards.Reduce(p.unit)
	}
}

package llama

import "github.com/herdtrain/herd/tensor"

// Spread is how the tokens of every sequence are spread over context-parallel ranks. The zero Spread has all of them here.
type Spread struct {
	Pieces  [][]Items  // of each rank, ascending: what it has of a sequence
	Rank    int        // this one
	Context Context    // between the ranks; nil: there is one
	Sums    HiddenSums // between them in canonical numerics, there also for one rank
}

// Context is attention of the tokens of a rank, [Batch·Length], to the keys of all. kv are the keys beside the values of
// the rank's tokens, [n, 2·KVHeads·HeadDim]. The statistics of a sequence are, piece after piece, acc [Heads, tokens of the
// piece]. First has positions in the whole sequence.
type Context interface {
	Attention(o tensor.Mat, lse tensor.Buffer, q, kv tensor.Mat, s tensor.AttentionShape)
	AttentionBackward(dq, dkv, do, o tensor.Mat, lse tensor.Buffer, q, kv tensor.Mat, s tensor.AttentionShape)
	// Keys is kv of all ranks in the order of tokens, x [Batch·tokens of a sequence, 2·KVHeads·HeadDim], up to the next call.
	Keys(kv tensor.Mat, s tensor.AttentionShape) tensor.Mat
}

// local is how many of the tokens of a sequence are here.
func (s Spread) local(length int) int {
	if s.Context == nil {
		return length
	}
	n := 0
	for _, p := range s.Pieces[s.Rank] {
		n += p.len()
	}
	return n
}

// owner is the rank that has a token.
func (s Spread) owner(token int) int {
	for r, pieces := range s.Pieces {
		for _, p := range pieces {
			if p.Lo <= token && token < p.Hi {
				return r
			}
		}
	}
	return 0
}

// pick is what is here of a value for each token of sequences of a length.
func (s *Stage) pick(values []int32, length int) []int32 {
	if s.spread.Context == nil {
		return values
	}
	var here []int32
	for i := 0; i < len(values); i += length {
		for _, p := range s.pieces {
			here = append(here, values[i+p.Lo:i+p.Hi]...)
		}
	}
	return here
}

// row is where token t of a sequence is among those that are here; false if it is elsewhere.
func (s *Stage) row(t int) (row int, ok bool) {
	for _, p := range s.pieces {
		if p.Lo <= t && t < p.Hi {
			return row + t - p.Lo, true
		}
		row += p.len()
	}
	return 0, false
}

// attend is Device.Attention of the micro-batch, with the keys beside the values if they are all of this Stage.
func (s *Stage) attend(a activations, q, k, v, kv tensor.Mat) {
	if s.spread.Context == nil {
		s.dev.Attention(s.q, a.o, a.lse, q, k, v, s.shape)
		return
	}
	s.spread.Context.Attention(a.o, a.lse, q, kv, s.shape)
}

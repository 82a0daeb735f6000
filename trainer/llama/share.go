package llama

import "github.com/herdtrain/herd/tensor"

// Share is the part of each layer, of the embedding and of the head that one of several tensor-parallel ranks computes
// (Shoeybi et al. 2019, Megatron-LM). The zero Share is the whole.
type Share struct {
	Query, KV  Items // heads; the rank's query heads are an equal number for each of its KV heads
	FFN, Vocab Items
	// First says that of the ranks this one counts for weights that all hold, the norms; FirstKV for those of its KV
	// heads, which other ranks may hold too.
	First, FirstKV bool
	Rank, Ranks    int      // this one's number, and of how many
	Exchange       Exchange // nil: there are no others
}

// Items are the items Lo … Hi−1.
type Items struct{ Lo, Hi int }

func (i Items) len() int { return i.Hi - i.Lo }

// Exchange is between tensor-parallel ranks. It makes the queue wait for its end.
type Exchange interface {
	// Sum adds up b of all ranks, in place.
	Sum(q tensor.Queue, b tensor.Buffer)
	// LogSumExp makes lse, acc [n], of the ranks' shares of the logits that of all logits, in place.
	LogSumExp(q tensor.Queue, lse tensor.Buffer)
	// Gather sets all to own of every rank, one after another; own may be its part of all.
	Gather(q tensor.Queue, all, own tensor.Buffer)
	// Scatter sets own, which may be its part of all, to the sum of this part of all ranks' all, which is undefined then.
	Scatter(q tensor.Queue, own, all tensor.Buffer)
}

// whole is s, or all of a model if it is the zero Share.
func (s Share) whole(c Config) Share {
	if s.Query.Hi == 0 {
		return Share{
			Query: Items{0, c.Heads}, KV: Items{0, c.KVHeads}, FFN: Items{0, c.FFN}, Vocab: Items{0, c.Vocab},
			First: true, FirstKV: true,
		}
	}
	return s
}

// Of is the model that a rank computes.
func (s Share) Of(c Config) Config {
	s = s.whole(c)
	c.Heads, c.KVHeads, c.FFN, c.Vocab = s.Query.len(), s.KV.len(), s.FFN.len(), s.Vocab.len()
	return c
}

// sum adds up the parts of m that tensor-parallel ranks computed.
func (s *Stage) sum(m tensor.Mat) {
	if s.share.Exchange != nil {
		s.share.Exchange.Sum(s.q, m.Buffer.Slice(0, m.Rows*m.Cols))
	}
}

// local is tokens, or targets, counted from the first of the share's vocabulary. Where there is no target it says so.
func (s *Stage) local(ids []int32) []int32 {
	if s.lse.Len() == 0 {
		return ids
	}
	shifted := make([]int32, len(ids))
	for i, id := range ids {
		if shifted[i] = tensor.NoTarget; id >= 0 {
			shifted[i] = id - int32(s.share.Vocab.Lo)
		}
	}
	return shifted
}

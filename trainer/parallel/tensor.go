package parallel

import (
	"math"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// Share is what tensor rank r of tp computes of each layer of a model; it has no Exchange yet. In canonical numerics it is
// whole leaves.
func Share(c llama.Config, tp, r int, canonical bool) llama.Share {
	h := Heads(c, tp, r)
	items := func(r Range) llama.Items { return llama.Items{Lo: r.Lo, Hi: r.Hi} }
	// Whole vectors of columns, if there is one for each rank.
	split := func(n int) llama.Items {
		if canonical {
			_, r := SplitLeaves(n, HiddenLeaves, tp, r)
			return items(r)
		}
		align := 16
		if n < align*tp {
			align = 1
		}
		return items(SplitAligned(n, align, tp, r))
	}
	return llama.Share{
		Query: items(h.Query), KV: items(h.KV), FFN: split(c.FFN), Vocab: split(c.Vocab),
		First: r == 0, FirstKV: r == h.Replicas.Lo, Rank: r, Ranks: tp,
	}
}

// TensorExchange is llama.Exchange over a Group of the CPU device's ranks, in numerics: fast. Its operations on the host
// come after those on a queue that runs inline.
type TensorExchange struct {
	Group collective.Group
	all   tensor.Buffer   // acc [ranks·tokens]
	work  collective.Work // the last
}

// NewTensorExchange asks for its memory, for so many ranks and tokens at a time. The caller sets Group.
func NewTensorExchange(a *tensor.Arena, acc tensor.DType, ranks, tokens int) *TensorExchange {
	return &TensorExchange{all: a.Alloc("communication", "log sums of exponentials", acc, ranks*tokens)}
}

// Work is the last exchange: when it has ended without a failure, so have all.
func (x *TensorExchange) Work() collective.Work { return x.work }

// Sum implements llama.Exchange.
func (x *TensorExchange) Sum(q tensor.Queue, b tensor.Buffer) {
	x.start(q, collective.AllReduce(b, b, collective.Sum))
}

// Gather implements llama.Exchange.
func (x *TensorExchange) Gather(q tensor.Queue, all, own tensor.Buffer) {
	x.start(q, collective.AllGather(all, own))
}

// Scatter implements llama.Exchange.
func (x *TensorExchange) Scatter(q tensor.Queue, own, all tensor.Buffer) {
	x.start(q, collective.ReduceScatter(own, all, collective.Sum))
}

// LogSumExp implements llama.Exchange.
func (x *TensorExchange) LogSumExp(q tensor.Queue, lse tensor.Buffer) {
	n, ranks := lse.Len(), x.Group.Size()
	all := x.all.Slice(0, n*ranks)
	x.start(q, collective.AllGather(all, lse))
	mergeLogSumExp(tensor.Host[float32](lse), tensor.Host[float32](all))
}

// mergeLogSumExp sets to, [n], to the logarithms of the sums of the exponentials of parts, [k·n], in the order of parts.
func mergeLogSumExp(to, parts []float32) {
	n := len(to)
	for i := range to {
		top := math.Inf(-1)
		for k := i; k < len(parts); k += n {
			top = max(top, float64(parts[k]))
		}
		sum := 0.0
		for k := i; k < len(parts); k += n {
			sum += math.Exp(float64(parts[k]) - top)
		}
		to[i] = float32(top + math.Log(sum))
	}
}

func (x *TensorExchange) start(q tensor.Queue, op collective.Op) {
	x.work = x.Group.Start(q, op)
	q.Wait(x.work.Event())
}

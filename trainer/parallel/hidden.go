package parallel

import (
	"fmt"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// HiddenSums is llama.HiddenSums of numerics: canonical. Its memory is host memory of the CPU device, whose compute queue
// runs inline.
type HiddenSums struct {
	Group collective.Group // of the tensor ranks, set by the caller; nil if there is one

	queue   tensor.Queue
	shares  []llama.Share // of the tensor ranks
	counter *Counter
	next    int // leaf
	root    []float32
	work    collective.Work // the last
}

// NewHiddenSums asks for the memory of sums of a model over so many elements at a time, on tp tensor ranks. dev is nil
// while a is only a plan.
func NewHiddenSums(a *tensor.Arena, dev tensor.Device, c llama.Config, elements, tp int) *HiddenSums {
	h := new(HiddenSums)
	if dev != nil {
		h.queue = dev.Queue(tensor.Compute)
	}
	for i := range tp {
		h.shares = append(h.shares, Share(c, tp, i, true))
	}
	vector := func(name string) []float32 {
		b := a.Alloc("canonical", name, tensor.F32, elements)
		if a.Planning() {
			return nil
		}
		return tensor.Host[float32](b)
	}
	sums := make([][]float32, CounterVectors(max(HiddenLeaves, c.Heads+c.KVHeads)))
	for i := range sums {
		sums[i] = vector(fmt.Sprintf("tree of hidden leaves %d", i))
	}
	h.root = vector("hidden sum")
	h.counter = NewCounter(sums)
	return h
}

// Tell implements llama.HiddenSums.
func (h *HiddenSums) Tell(x tensor.Buffer, has func(llama.Share) bool) {
	for r, s := range h.shares {
		if has(s) {
			if len(h.shares) > 1 {
				h.work = h.Group.Start(h.queue, collective.Broadcast(x, r))
				h.queue.Wait(h.work.Event())
			}
			return
		}
	}
	panic("parallel: a leaf that no tensor rank has")
}

// Add implements llama.HiddenSums.
func (h *HiddenSums) Add(x tensor.Buffer, has func(llama.Share) bool) {
	h.Tell(x, has)
	h.counter.Add(Node{Level: 0, Index: h.next}, tensor.Host[float32](x))
	h.next++
}

// Sum implements llama.HiddenSums.
func (h *HiddenSums) Sum(out tensor.Mat) {
	n := out.Rows * out.Cols
	h.counter.Sum(h.root[:n])
	h.next = 0
	h.Round(out, tensor.Matrix(tensor.HostBuffer(h.root[:n]), out.Rows, out.Cols))
}

// LogSumExp implements llama.HiddenSums.
func (h *HiddenSums) LogSumExp(lse, parts tensor.Buffer) {
	mergeLogSumExp(tensor.Host[float32](lse), tensor.Host[float32](parts))
}

// Round implements llama.HiddenSums.
func (h *HiddenSums) Round(dst, src tensor.Mat) {
	from := tensor.Host[float32](src.Buffer)
	for i := range dst.Rows {
		row := from[i*src.Stride : i*src.Stride+src.Cols]
		if to := dst.RowRange(i, i+1).Buffer; dst.DType() == tensor.F32 {
			copy(tensor.Host[float32](to), row)
		} else {
			narrow := tensor.Host[tensor.BFloat16](to)
			for j, x := range row {
				narrow[j] = tensor.ToBFloat16(x)
			}
		}
	}
}

// Work is the last exchange: when it has ended without a failure, so have all.
func (h *HiddenSums) Work() collective.Work { return h.work }

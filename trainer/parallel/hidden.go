package parallel

import (
	"fmt"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
)

// HiddenSums is llama.HiddenSums of numerics: canonical. Its memory is host memory of the CPU device, whose compute queue
// runs inline.
type HiddenSums struct {
	Group collective.Group // of the ranks, set by the caller; nil if there is one

	dev     tensor.Device
	queue   tensor.Queue
	counter *Counter
	next    int // leaf
	root    []float32
	work    collective.Work // the last
}

// NewHiddenSums asks for the memory of sums of at most so many leaves, of so many elements. dev is nil while a is only a
// plan.
func NewHiddenSums(a *tensor.Arena, dev tensor.Device, name string, leaves, elements int) *HiddenSums {
	h := &HiddenSums{dev: dev}
	if dev != nil {
		h.queue = dev.Queue(tensor.Compute)
	}
	vector := func(part string) []float32 {
		b := a.Alloc("canonical", name+"/"+part, tensor.F32, elements)
		if a.Planning() {
			return nil
		}
		return tensor.Host[float32](b)
	}
	sums := make([][]float32, CounterVectors(leaves))
	for i := range sums {
		sums[i] = vector(fmt.Sprintf("tree %d", i))
	}
	h.root = vector("root")
	h.counter = NewCounter(sums)
	return h
}

// Tell implements llama.HiddenSums.
func (h *HiddenSums) Tell(x tensor.Buffer, rank int) {
	if h.Group != nil {
		h.work = h.Group.Start(h.queue, collective.Broadcast(x, rank))
		h.queue.Wait(h.work.Event())
	}
}

// Add implements llama.HiddenSums.
func (h *HiddenSums) Add(x tensor.Buffer, rank int) {
	h.Tell(x, rank)
	h.counter.Add(Node{Level: 0, Index: h.next}, tensor.Host[float32](x))
	h.next++
}

// Sum implements llama.HiddenSums.
func (h *HiddenSums) Sum(out tensor.Mat) {
	root := h.root[:out.Rows*out.Cols]
	h.counter.Sum(root)
	h.next = 0
	h.dev.Copy(h.queue, out, tensor.Matrix(tensor.HostBuffer(root), out.Rows, out.Cols))
}

// LogSumExp implements llama.HiddenSums.
func (h *HiddenSums) LogSumExp(lse, parts tensor.Buffer) {
	mergeLogSumExp(tensor.Host[float32](lse), tensor.Host[float32](parts))
}

// Work is the last exchange: when it has ended without a failure, so have all.
func (h *HiddenSums) Work() collective.Work { return h.work }

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"github.com/herdtrain/herd/tensor"
)

// AttentionShape is what Attention measures: causal, for each of the head dims.
type AttentionShape struct {
	Batch, Length  int
	Heads, KVHeads int // query heads; key and value heads, of which Heads is a multiple
	HeadDims       []int
	GemmSize       int // of the product, a cube, that attention is compared with
}

// maxElements bounds a matrix, so that its size is an int.
const maxElements = 1 << 40

// Validate reports the first thing that cannot be measured.
func (s AttentionShape) Validate() error {
	sides := []int{s.Batch, s.Length, s.Heads, s.KVHeads, s.GemmSize}
	for _, n := range append(sides, s.HeadDims...) {
		if n < 1 || n > maxSide {
			return fmt.Errorf("a size of %d, want from 1 to %d", n, maxSide)
		}
	}
	for _, dim := range s.HeadDims {
		n := float64(s.Batch) * float64(s.Length) * float64(s.Heads+2*s.KVHeads) * float64(dim)
		if n > maxElements {
			return fmt.Errorf("queries, keys and values of %.0f numbers, want at most %d", n, int64(maxElements))
		}
	}
	if s.Heads%s.KVHeads != 0 {
		return fmt.Errorf("%d heads, want a multiple of the %d key and value heads", s.Heads, s.KVHeads)
	}
	return nil
}

// AttentionReport is the speed of attention.
type AttentionReport struct {
	Device    string         `json:"device"`
	Precision string         `json:"precision"`
	Batch     int            `json:"batch"`
	Length    int            `json:"length"`
	Heads     int            `json:"heads"`
	KVHeads   int            `json:"kv_heads"`
	GemmSize  int            `json:"gemm_size"`
	Rows      []AttentionRow `json:"rows"`
}

// AttentionRow is one pass at one head dim.
type AttentionRow struct {
	HeadDim int    `json:"head_dim"`
	Pass    string `json:"pass"` // forward, backward
	Rate
	Gemm      float64 `json:"gemm_gflops"` // of a forward product in the same dtype just before and after, the mean
	GemmShare float64 `json:"gemm_share"`  // of the median
}

// The products of Length × HeadDim × Length in a head: scores and output; in the backward pass the scores again, and
// the gradients of probabilities, values, queries and keys. The causal half of each is counted.
const forwardProducts, backwardProducts = 2, 5

// Attention measures the forward and the backward pass with matrices of dtype F32 or BF16. Queries, keys and values lie
// side by side in one matrix, as in the model.
func Attention(ctx context.Context, o Options, dt tensor.DType, s AttentionShape) (*AttentionReport, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("attention: %w", err)
	}
	report := &AttentionReport{
		Precision: precision(dt), Batch: s.Batch, Length: s.Length, Heads: s.Heads, KVHeads: s.KVHeads,
		GemmSize: s.GemmSize, Rows: []AttentionRow{},
	}
	for _, dim := range s.HeadDims {
		if err := report.add(ctx, o, dt, s, dim); err != nil {
			return nil, fmt.Errorf("attention, head dim %d: %w", dim, err)
		}
	}
	return report, nil
}

func (r *AttentionReport) add(ctx context.Context, o Options, dt tensor.DType, s AttentionShape, dim int) (err error) {
	m, err := open(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	r.Device = m.Name()
	forward, backward, err := m.attention(dt, s, dim)
	if err != nil {
		return err
	}
	cube := Shape{s.GemmSize, s.GemmSize, s.GemmSize}
	product, err := m.linear(dt, cube)
	if err != nil {
		return err
	}
	gemm := func() (float64, error) {
		seconds, err := m.measure(ctx, m.duration/4, func() { product(tensor.NT) })
		return cube.flops() / seconds.Median / 1e9, err
	}
	gemmBefore, err := gemm()
	if err != nil {
		return err
	}
	peakBefore := m.peak()
	pairs := float64(s.Batch) * float64(s.Heads) * float64(s.Length) * float64(s.Length) / 2
	for _, pass := range []struct {
		name     string
		products float64
		run      func()
	}{{"forward", forwardProducts, forward}, {"backward", backwardProducts, backward}} {
		seconds, err := m.measure(ctx, m.duration, pass.run)
		if err != nil {
			return err
		}
		peakAfter := m.peak()
		gemmAfter, err := gemm()
		if err != nil {
			return err
		}
		row := AttentionRow{
			HeadDim: dim, Pass: pass.name,
			Rate: newRate(seconds, pass.products*2*pairs*float64(dim), peakBefore, peakAfter),
			Gemm: (gemmBefore + gemmAfter) / 2,
		}
		row.GemmShare = row.GFLOPS.Median / row.Gemm
		r.Rows = append(r.Rows, row)
		peakBefore, gemmBefore = peakAfter, gemmAfter
	}
	return nil
}

// attention gives the two passes over random values.
func (m *machine) attention(dt tensor.DType, s AttentionShape, dim int) (forward, backward func(), err error) {
	n, qd, kd := s.Batch*s.Length, s.Heads*dim, s.KVHeads*dim
	packed, out := matSpec{dt, n, qd + 2*kd}, matSpec{dt, n, qd}
	mats, err := m.randomMats(packed, packed, out, out)
	if err != nil {
		return nil, nil, err
	}
	lse, err := m.Alloc(dt.Accum(), n*s.Heads)
	if err != nil {
		return nil, nil, err
	}
	split := func(x tensor.Mat) (q, k, v tensor.Mat) {
		return x.ColRange(0, qd), x.ColRange(qd, qd+kd), x.ColRange(qd+kd, qd+2*kd)
	}
	q, k, v := split(mats[0])
	dq, dk, dv := split(mats[1])
	o, do := mats[2], mats[3]
	shape := tensor.AttentionShape{
		Batch: s.Batch, Length: s.Length, Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: dim,
		Scale: 1 / math.Sqrt(float64(dim)),
	}
	return func() { m.Attention(m.q, o, lse, q, k, v, shape) },
		func() { m.AttentionBackward(m.q, dq, dk, dv, do, o, lse, q, k, v, shape) }, nil
}

// Print writes r as a table.
func (r *AttentionReport) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s; %s; causal, %d×%d tokens, %d heads on %d; GEMM is %d³ forward\n\n", r.Device, r.Precision,
		r.Batch, r.Length, r.Heads, r.KVHeads, r.GemmSize)
	fmt.Fprintln(w, "head dim\tpass\tGFLOP/s\tmin–max\tpeak\tof it\tGEMM\tof it")
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%d\t%s\t%s\t%.1f\t%.1f%%\n", row.HeadDim, row.Pass, row.cells(), row.Gemm, 100*row.GemmShare)
	}
	return w.Flush()
}

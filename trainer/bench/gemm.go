package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/herdtrain/herd/tensor"
)

// Shape is a linear layer's: from Tokens × In to Tokens × Out.
type Shape struct {
	Tokens int `json:"tokens"`
	Out    int `json:"out"`
	In     int `json:"in"`
}

// maxSide bounds a side of a Shape, so that no product of two leaves an int.
const maxSide = 1 << 20

// ParseShape reads "N", a cube, or "TOKENSxOUTxIN".
func ParseShape(s string) (Shape, error) {
	parts := strings.Split(s, "x")
	if len(parts) == 1 {
		parts = []string{s, s, s}
	}
	var sides [3]int
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > maxSide || len(parts) != len(sides) {
			return Shape{}, fmt.Errorf("size %q, want N or TOKENSxOUTxIN, each from 1 to %d", s, maxSide)
		}
		sides[i] = n
	}
	return Shape{sides[0], sides[1], sides[2]}, nil
}

func (s Shape) String() string { return fmt.Sprintf("%d×%d×%d", s.Tokens, s.Out, s.In) }

func (s Shape) flops() float64 { return 2 * float64(s.Tokens) * float64(s.Out) * float64(s.In) }

// GemmReport is the speed of the three products of training with linear layers.
type GemmReport struct {
	Device    string    `json:"device"`
	Precision string    `json:"precision"`
	Rows      []GemmRow `json:"rows"`
}

// GemmRow is one product of one layer.
type GemmRow struct {
	Shape
	Form string `json:"form"` // forward, dgrad, wgrad
	Rate
}

var forms = []struct {
	name string
	form tensor.GemmForm
}{{"forward", tensor.NT}, {"dgrad", tensor.NN}, {"wgrad", tensor.TN}}

// Gemm measures each form of each shape with matrices of dtype F32 or BF16; a weight's gradient is F32, and added to.
func Gemm(ctx context.Context, o Options, dt tensor.DType, shapes []Shape) (*GemmReport, error) {
	report := &GemmReport{Precision: precision(dt), Rows: []GemmRow{}}
	for _, s := range shapes {
		if err := report.add(ctx, o, dt, s); err != nil {
			return nil, fmt.Errorf("gemm %v: %w", s, err)
		}
	}
	return report, nil
}

func (r *GemmReport) add(ctx context.Context, o Options, dt tensor.DType, s Shape) (err error) {
	m, err := open(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	r.Device = m.Name()
	product, err := m.linear(dt, s)
	if err != nil {
		return err
	}
	before := m.peak()
	for _, f := range forms {
		seconds, err := m.measure(ctx, m.duration, func() { product(f.form) })
		if err != nil {
			return err
		}
		after := m.peak()
		r.Rows = append(r.Rows, GemmRow{s, f.name, newRate(seconds, s.flops(), before, after)})
		before = after
	}
	return nil
}

// linear is a layer of random values, whose products it computes.
func (m *machine) linear(dt tensor.DType, s Shape) (product func(tensor.GemmForm), err error) {
	mats, err := m.randomMats(
		matSpec{dt, s.Tokens, s.In}, matSpec{dt, s.Tokens, s.Out}, matSpec{dt, s.Out, s.In},
		matSpec{tensor.F32, s.Out, s.In}, matSpec{dt, s.Tokens, max(s.In, s.Out)})
	if err != nil {
		return nil, err
	}
	x, dy, w, dw, out := mats[0], mats[1], mats[2], mats[3], mats[4]
	y := tensor.Matrix(out.Slice(0, s.Tokens*s.Out), s.Tokens, s.Out)
	dx := tensor.Matrix(out.Slice(0, s.Tokens*s.In), s.Tokens, s.In)
	return func(form tensor.GemmForm) {
		switch form {
		case tensor.NT:
			m.Gemm(m.q, form, y, x, w, false)
		case tensor.NN:
			m.Gemm(m.q, form, dx, dy, w, false)
		case tensor.TN:
			m.Gemm(m.q, form, dw, dy, x, true)
		}
	}, nil
}

// precision is dt as a job file calls it.
func precision(dt tensor.DType) string {
	if dt == tensor.BF16 {
		return "bf16"
	}
	return "fp32"
}

// Print writes r as a table.
func (r *GemmReport) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s; %s\n\n", r.Device, r.Precision)
	fmt.Fprintln(w, "tokens×out×in\tproduct\tGFLOP/s\tmin–max\tpeak\tof it")
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%v\t%s\t%s\n", row.Shape, row.Form, row.cells())
	}
	return w.Flush()
}

// cells are those of a table: GFLOP/s, min–max, peak, share.
func (r Rate) cells() string {
	return fmt.Sprintf("%.1f\t%.1f–%.1f\t%.1f\t%.1f%%", r.GFLOPS.Median, r.GFLOPS.Min, r.GFLOPS.Max, r.Peak, 100*r.Share)
}

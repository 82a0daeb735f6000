package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/herdtrain/herd/tensor"
)

// Difference is how a tensor differs between two checkpoints A and B.
type Difference struct {
	Name   string `json:"name"`
	Reason string `json:"reason"` // "only in A", "only in B", the types or shapes, or "values"

	Elements  int64   `json:"elements,omitzero"`   // of the tensor, if the values differ
	Differ    int64   `json:"differ,omitzero"`     // elements that have other bits
	NotFinite int64   `json:"not_finite,omitzero"` // of these, where a or b is infinite or no number
	MaxAbs    float64 `json:"max_abs,omitzero"`    // the largest |a−b| of the others
	Relative  float64 `json:"relative,omitzero"`   // ‖a−b‖/‖a‖ over the finite elements; 0 if a is 0
}

// compareSize is how many bytes of either checkpoint are compared at a time.
const compareSize = 8 << 20

// Compare reads two checkpoints and describes each tensor that differs, in the order of a, then of b. It calls progress,
// if not nil, with the bytes of a compared so far and to compare.
func Compare(ctx context.Context, a, b *Checkpoint, progress func(done, total int64)) ([]Difference, error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	list := []Difference{}
	var done, total int64
	for _, t := range a.tensors {
		total += t.Bytes
	}
	buf := [2][]byte{make([]byte, compareSize), make([]byte, compareSize)}
	for _, t := range a.tensors {
		other, ok := b.Info(t.Name)
		d := Difference{Name: t.Name}
		switch {
		case !ok:
			d.Reason = "only in A"
		case other.DType != t.DType || !slices.Equal(other.Shape, t.Shape):
			d.Reason = fmt.Sprintf("%v %v in A, %v %v in B", t.DType, t.Shape, other.DType, other.Shape)
		default:
			err := d.compare(ctx, a, b, t, buf, func(n int64) { progress(done+n, total) })
			if err != nil {
				return nil, err
			}
		}
		if d.Reason != "" {
			list = append(list, d)
		}
		done += t.Bytes
		progress(done, total)
	}
	for _, t := range b.tensors {
		if _, ok := a.Info(t.Name); !ok {
			list = append(list, Difference{Name: t.Name, Reason: "only in B"})
		}
	}
	return list, nil
}

// compare compares the values of a tensor that both have.
func (d *Difference) compare(ctx context.Context, a, b *Checkpoint, t Info, buf [2][]byte, progress func(int64)) error {
	size := int64(t.DType.Size())
	n := t.Bytes / size
	var squares, norm float64
	for lo := int64(0); lo < n; lo += compareSize / size {
		hi := min(lo+compareSize/size, n)
		for i, c := range []*Checkpoint{a, b} {
			buf[i] = buf[i][:(hi-lo)*size]
			if err := c.ReadParts(ctx, t.Name, Whole(t.Shape).Parts(lo, hi, buf[i])...); err != nil {
				return err
			}
		}
		for at := int64(0); at < int64(len(buf[0])); at += size {
			p, q := buf[0][at:at+size], buf[1][at:at+size]
			x := number(t.DType, p)
			diff := math.Abs(x - number(t.DType, q))
			if !bytes.Equal(p, q) {
				d.Differ++
			}
			switch finite := diff <= math.MaxFloat64; {
			case finite:
				norm += x * x
				squares += diff * diff
				d.MaxAbs = max(d.MaxAbs, diff)
			case !bytes.Equal(p, q):
				d.NotFinite++
			}
		}
		progress(hi * size)
	}
	if d.Differ > 0 {
		d.Reason, d.Elements = "values", n
		if norm > 0 {
			d.Relative = math.Sqrt(squares / norm)
		}
	}
	return nil
}

// number is an element of a stored tensor.
func number(dt tensor.DType, b []byte) float64 {
	switch dt {
	case tensor.F32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	case tensor.BF16:
		return float64(tensor.BFloat16(binary.LittleEndian.Uint16(b)).Float32())
	case tensor.F64:
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return float64(int32(binary.LittleEndian.Uint32(b)))
}

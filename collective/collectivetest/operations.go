package collectivetest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/tensor"
)

// counts are sizes in elements: nothing, one, odd ones around the sizes of slots and blocks, and several blocks.
func counts(short bool) []int {
	if short {
		return []int{0, 1, 3, 1021, 20_003}
	}
	return []int{0, 1, 2, 17, 255, 1025, 8191, 70_003}
}

// operations runs every operation on every dtype, out of place and in place, and compares bits.
func operations(g collective.Group, short bool) error {
	for _, count := range counts(short) {
		dtypes := []func(*call) error{of[float32], of[tensor.BFloat16], of[float64], of[int32]}
		if count > 10_000 { // where blocks begin does not depend on the kind of 4 or 8 bytes
			dtypes = dtypes[:2]
		}
		for _, of := range dtypes {
			if err := of(&call{g, count}); err != nil {
				return err
			}
		}
	}
	return nil
}

type call struct {
	g     collective.Group
	count int
}

// of runs the operations on one dtype.
func of[T tensor.Elem](c *call) error {
	g, n, me := c.g, c.g.Size(), c.g.Rank()
	run := func(name string, got, want []T, op collective.Op) error {
		if err := g.Start(nil, op).Wait(context.Background()); err != nil {
			return fmt.Errorf("%s of %d × %v: %w", name, c.count, tensor.HostBuffer(got).DType(), err)
		}
		for i := range want {
			if !same(got[i], want[i]) {
				return fmt.Errorf("%s of %d × %v among %d ranks: element %d is %v, want %v",
					name, c.count, tensor.HostBuffer(got).DType(), n, i, got[i], want[i])
			}
		}
		return nil
	}
	buf := tensor.HostBuffer[T]
	small, large := make([][]T, n), make([][]T, n) // by rank: count, and n·count elements
	for r := range n {
		small[r], large[r] = Values[T](c.count, r), Values[T](n*c.count, r+100)
	}
	piece := func(v []T, r int) []T { return v[r*c.count : (r+1)*c.count] }
	var gathered, swapped []T
	pieces := make([][]T, n)
	for r := range n {
		gathered = append(gathered, small[r]...)
		swapped = append(swapped, piece(large[r], me)...)
		pieces[r] = piece(large[r], me)
	}
	for _, red := range []collective.Reduction{collective.Sum, collective.Max} {
		name := "all-reduce " + red.String()
		want := Reduced(red, small)
		dst, src := make([]T, c.count), slices.Clone(small[me])
		if err := run(name, dst, want, collective.AllReduce(buf(dst), buf(src), red)); err != nil {
			return err
		}
		if !slices.EqualFunc(src, small[me], same) {
			return fmt.Errorf("%s changed its source", name)
		}
		if err := run(name+" in place", src, want, collective.AllReduce(buf(src), buf(src), red)); err != nil {
			return err
		}
		name = "reduce-scatter " + red.String()
		want = Reduced(red, pieces)
		src = slices.Clone(large[me])
		if err := run(name, dst, want, collective.ReduceScatter(buf(dst), buf(src), red)); err != nil {
			return err
		}
		part := piece(src, me)
		if err := run(name+" in place", part, want, collective.ReduceScatter(buf(part), buf(src), red)); err != nil {
			return err
		}
	}
	all := make([]T, n*c.count)
	if err := run("all-gather", all, gathered, collective.AllGather(buf(all), buf(small[me]))); err != nil {
		return err
	}
	clear(all)
	copy(piece(all, me), small[me])
	op := collective.AllGather(buf(all), buf(piece(all, me)))
	if err := run("all-gather in place", all, gathered, op); err != nil {
		return err
	}
	clear(all)
	if err := run("all-to-all", all, swapped, collective.AllToAll(buf(all), buf(large[me]))); err != nil {
		return err
	}
	for root := range n {
		got := slices.Clone(small[me])
		if err := run("broadcast", got, small[root], collective.Broadcast(buf(got), root)); err != nil {
			return err
		}
	}
	return run("barrier", nil, nil, collective.Barrier())
}

// same compares values, and takes all NaNs for the same; a sum has no negative zeros to tell apart.
func same[T tensor.Elem](a, b T) bool { return a == b || a != a && b != b || nan(a) && nan(b) }

// nan knows the NaNs of BF16, which is an integer to Go.
func nan[T tensor.Elem](v T) bool {
	b, ok := any(v).(tensor.BFloat16)
	return ok && b&0x7fff > 0x7f80
}

// Values are n elements that depend on seed, of many magnitudes, with a NaN or an infinity here and there.
func Values[T tensor.Elem](n, seed int) []T {
	rng := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
	v := make([]T, n)
	switch v := any(v).(type) {
	case []float32:
		for i := range v {
			v[i] = float(rng)
		}
	case []float64:
		for i := range v {
			v[i] = float64(float(rng)) * (1 + rng.Float64())
		}
	case []tensor.BFloat16:
		for i := range v {
			v[i] = tensor.ToBFloat16(float(rng))
		}
	case []int32:
		for i := range v {
			v[i] = int32(rng.Uint32())
		}
	}
	return v
}

// float has a random sign and mantissa and an exponent from −16 to 15; one in 1024 is infinite or a NaN.
func float(rng *rand.Rand) float32 {
	u := rng.Uint64()
	exponent := uint32(111 + u>>32%32)
	if u>>37%1024 == 0 {
		exponent = 255
	}
	return math.Float32frombits(uint32(u)&0x807fffff | exponent<<23)
}

// Reduced is what all ranks' terms reduce to: in rank order, BF16 in fp32 and rounded once.
func Reduced[T tensor.Elem](red collective.Reduction, terms [][]T) []T {
	out := make([]T, len(terms[0]))
	switch terms := any(terms).(type) {
	case [][]float32:
		fold(red, any(out).([]float32), terms)
	case [][]float64:
		fold(red, any(out).([]float64), terms)
	case [][]int32:
		fold(red, any(out).([]int32), terms)
	case [][]tensor.BFloat16:
		wide := make([][]float32, len(terms))
		for r, t := range terms {
			for _, v := range t {
				wide[r] = append(wide[r], v.Float32())
			}
		}
		sum := make([]float32, len(out))
		fold(red, sum, wide)
		for i, v := range sum {
			any(out).([]tensor.BFloat16)[i] = tensor.ToBFloat16(v)
		}
	}
	return out
}

func fold[T float32 | float64 | int32](red collective.Reduction, out []T, terms [][]T) {
	for i := range out {
		acc := terms[0][i]
		for _, t := range terms[1:] {
			if red == collective.Max {
				acc = max(acc, t[i])
			} else {
				acc += t[i]
			}
		}
		out[i] = acc
	}
}

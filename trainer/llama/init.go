package llama

import (
	"math"
	"runtime"
	"sync"

	"github.com/herdtrain/herd/tensor"
)

// Initial fills dst, the elements from index first on of the part of p that is here, with their initial values: 1 for a
// norm, else a truncated normal. A value depends on the seed, the name and its index in all of p alone, so any part of any
// layout gets the same bits.
func (p Param) Initial(dst []float32, seed uint64, first int) {
	if p.Norm {
		for i := range dst {
			dst[i] = 1
		}
		return
	}
	g := tensor.NewPhilox(seed, p.Name)
	lo := normalCDF(-p.Cut / p.Std)
	scale := 1 - 2*lo
	cols := int(p.Extent[1])
	for i := range dst {
		row, col := int64((first+i)/cols), int64((first+i)%cols)
		u := lo + scale*g.Uniform(uint64((p.Offset[0]+row)*p.Shape[1]+p.Offset[1]+col), 0)
		dst[i] = float32(p.Std * math.Sqrt2 * math.Erfinv(2*u-1))
	}
}

// Initialize fills master, F32 of host memory, with the initial values of elements lo, lo+1, … of the flat arrays.
func (p *Params) Initialize(master []float32, lo int, seed uint64) {
	const chunk = 1 << 16
	type job struct {
		q          Param
		first, end int
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				j.q.Initial(master[j.q.offset-lo+j.first:j.q.offset-lo+j.end], seed, j.first)
			}
		})
	}
	for _, q := range p.List {
		first, end := q.Within(Items{lo, lo + len(master)})
		for i := first; i < end; i += chunk {
			jobs <- job{q, i, min(i+chunk, end)}
		}
	}
	close(jobs)
	wg.Wait()
}

func normalCDF(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) }

package cpu

import (
	"sync"
	"sync/atomic"
	"testing"
)

// testPool is a pool that ends with the test.
func testPool(t testing.TB, threads int) *pool {
	p := newPool(threads)
	t.Cleanup(p.close)
	return p
}

// TestPoolRun wants every index once, whatever the sizes, also when several goroutines share the pool and when pieces
// use it themselves.
func TestPoolRun(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 7} {
		p := testPool(t, threads)
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				for _, n := range []int{0, 1, 2, 5, 64, 1000} {
					for _, grain := range []int{1, 3, 2000} {
						counts := make([]atomic.Int32, n)
						p.run(n, grain, func(i0, i1 int) {
							p.run(i1-i0, 1, func(j0, j1 int) {
								for j := j0; j < j1; j++ {
									counts[i0+j].Add(1)
								}
							})
						})
						for i := range counts {
							if c := counts[i].Load(); c != 1 {
								t.Errorf("%d threads, n %d, grain %d: index %d ran %d times", threads, n, grain, i, c)
							}
						}
					}
				}
			})
		}
		callers.Wait()
	}
}

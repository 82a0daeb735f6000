// Package cpu implements tensor.Device on the processor: every operation in plain Go, and on F32 and BF16 also in C for
// the instruction set that is found. The plain Go is what all other kernels are held against, and all there is for F64
// and in a build without cgo.
//
// The kernels are the best that the processor and the operating system run, or those that the environment variable
// HERD_CPU names:
//
//	amx       as avx512, with the product of two BF16 matrices on tiles (Intel AMX; Linux 5.16 or newer); only if named
//	avx512    AVX-512 F, BW, VL and DQ; BF16 is converted to fp32 to compute
//	avx2      AVX2 and FMA
//	portable  C for any processor, also arm64
//	go        plain Go
//
// Two more are for tests on processors without the instructions: amx-emulated and avx512-emulated run the tiles of their
// namesakes in AVX2.
package cpu

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/herdtrain/herd/tensor"
)

// KernelsEnv is the environment variable that chooses the kernels where Options leaves it open.
const KernelsEnv = "HERD_CPU"

// Options of a Device.
type Options struct {
	Threads int    // that compute, 0: GOMAXPROCS
	Kernels string // amx, avx512, avx2, portable or go; "": what KernelsEnv says, else the best
}

// Device is the processor. The Compute queue runs inline in the goroutine that enqueues, on all threads; each other
// queue is one goroutine, started by its first operation and ended by Close, and computes on that thread alone.
type Device struct {
	name      string
	pool      *pool
	c         kernelSet // nil: plain Go
	scratches scratchList
	queues    [tensor.NumQueues]queue

	// gemm is the product of F32 and BF16 matrices. It may be called from several goroutines at once.
	gemm func(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool)

	mu   sync.Mutex
	maps [][]byte // guarded by mu
}

var _ tensor.Device = (*Device)(nil)

// New makes a Device. It fails if the kernels asked for are unknown or do not run on this machine. Close it.
func New(o Options) (*Device, error) {
	threads := o.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	if threads < 0 {
		return nil, fmt.Errorf("cpu: %d threads, want 0 (all) or a positive number", threads)
	}
	kernels := o.Kernels
	if kernels == "" {
		kernels = os.Getenv(KernelsEnv)
	}
	c, kernels, err := findKernels(kernels)
	if err != nil {
		return nil, err
	}
	d := &Device{pool: newPool(threads), c: c}
	if d.c != nil {
		d.gemm = (&gemm{pool: d.pool, kernels: d.c}).run
	} else {
		d.gemm = func(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
			goGemm[float32](d, form, c, a, b, accumulate)
		}
	}
	d.name = fmt.Sprintf("cpu, %s kernels, %d threads", kernels, threads)
	d.queues[tensor.Compute] = inlineQueue{d.pool}
	for k := tensor.Compute + 1; k < tensor.NumQueues; k++ {
		d.queues[k] = newAsyncQueue()
	}
	return d, nil
}

// Name says which kernels run on how many threads.
func (d *Device) Name() string { return d.name }

// Queue is the device's queue of that kind.
func (d *Device) Queue(k tensor.QueueKind) tensor.Queue { return d.queues[k] }

// Alloc maps anonymous memory outside the Go heap, which Close unmaps.
func (d *Device) Alloc(dt tensor.DType, n int) (tensor.Buffer, error) {
	if n == 0 {
		return tensor.At(nil, dt, 0), nil
	}
	if n < 0 || n > math.MaxInt/dt.Size() {
		return tensor.Buffer{}, fmt.Errorf("cpu: cannot allocate %d elements of %v", n, dt)
	}
	mem, err := unix.Mmap(-1, 0, n*dt.Size(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return tensor.Buffer{}, fmt.Errorf("cpu: cannot allocate %d bytes (%d elements of %v): %w",
			n*dt.Size(), n, dt, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.maps = append(d.maps, mem)
	return tensor.At(unsafe.Pointer(unsafe.SliceData(mem)), dt, n), nil
}

// Close waits for the queues, ends their goroutines and the pool's, and unmaps every buffer. Nothing may be enqueued
// after it. A second Close does nothing.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.queues {
		q.close()
	}
	d.pool.close()
	var errs []error
	for _, m := range d.maps {
		errs = append(errs, unix.Munmap(m))
	}
	d.maps = nil
	return errors.Join(errs...)
}

package cpu_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/tensor/devicetest"
)

// open makes a device.
func open(t *testing.T, o cpu.Options) *cpu.Device {
	t.Helper()
	d, err := cpu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func shut(t *testing.T, d *cpu.Device) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	for _, k := range cpu.Kernels() {
		if k.Available {
			t.Run(k.Name, func(t *testing.T) {
				devicetest.Run(t, func() tensor.Device { return open(t, cpu.Options{Kernels: k.Name, Threads: 2}) })
			})
		}
	}
}

// TestThreads wants the same bits from any number of threads.
func TestThreads(t *testing.T) {
	var want map[string]uint64
	for _, threads := range []int{1, 2, 3, 7} {
		d := open(t, cpu.Options{Threads: threads})
		t.Run(fmt.Sprint(threads), func(t *testing.T) {
			got := devicetest.Digests(t, d)
			if want == nil {
				want = got
			}
			for name, digest := range got {
				if digest != want[name] {
					t.Errorf("%s: other bits than with one thread", name)
				}
			}
		})
		shut(t, d)
	}
}

// pending is an event that passes when the test says so.
type pending chan struct{}

func (p pending) Done() <-chan struct{} { return p }
func (p pending) Query() (bool, error)  { return false, nil }

func TestSyncEndsWithItsContext(t *testing.T) {
	d := open(t, cpu.Options{})
	defer shut(t, d)
	q, e := d.Queue(tensor.Gather), make(pending)
	b, err := d.Alloc(tensor.F32, 1)
	if err != nil {
		t.Fatal(err)
	}
	q.Wait(e)
	d.Fill(q, b, 1)
	filled := q.Record()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Sync gave %v, want context.Canceled", err)
	}
	if passed, err := filled.Query(); passed || err != nil {
		t.Errorf("an operation behind an event that did not pass: %v, %v", passed, err)
	}
	if got := tensor.Host[float32](b)[0]; got != 0 {
		t.Errorf("the buffer was filled with %v before the event", got)
	}
	close(e)
	d.Queue(tensor.Compute).Wait(filled)
	if got := tensor.Host[float32](b)[0]; got != 1 {
		t.Errorf("the buffer holds %v, want 1", got)
	}
}

func TestCloseEndsGoroutines(t *testing.T) {
	before := goleak.IgnoreCurrent()
	d := open(t, cpu.Options{Threads: 4})
	b, err := d.Alloc(tensor.F32, 100)
	if err != nil {
		t.Fatal(err)
	}
	for k := tensor.Compute; k < tensor.NumQueues; k++ {
		d.Fill(d.Queue(k), b, 1)
		<-d.Queue(k).Record().Done()
	}
	shut(t, d)
	shut(t, d)
	goleak.VerifyNone(t, before)
	_, err = cpu.New(cpu.Options{Kernels: "mmx"})
	if err == nil || !strings.Contains(err.Error(), "mmx") || !strings.Contains(err.Error(), "go") {
		t.Errorf("unknown kernels: %v", err)
	}
	goleak.VerifyNone(t, before)
}

func TestKernelsOfTheEnvironment(t *testing.T) {
	t.Setenv(cpu.KernelsEnv, "go")
	d := open(t, cpu.Options{Threads: 3})
	defer shut(t, d)
	if want := "cpu, go kernels, 3 threads"; d.Name() != want {
		t.Errorf("the device is %q, want %q", d.Name(), want)
	}
}

func TestAllocSaysHowMuch(t *testing.T) {
	d := open(t, cpu.Options{})
	defer shut(t, d)
	for n, want := range map[int]string{1 << 50: "4503599627370496 bytes", 1 << 61: "elements", -1: "-1 elements"} {
		if _, err := d.Alloc(tensor.F32, n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d elements: %v, want %q in it", n, err, want)
		}
	}
}

// TestWrongShapes wants a panic that names the operation and the shapes.
func TestWrongShapes(t *testing.T) {
	d := open(t, cpu.Options{Threads: 1})
	defer shut(t, d)
	q := d.Queue(tensor.Compute)
	buf := func(dt tensor.DType, n int) tensor.Buffer {
		b, err := d.Alloc(dt, n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	mat := func(rows, cols int) tensor.Mat { return tensor.Matrix(buf(tensor.F32, rows*cols), rows, cols) }
	ids := buf(tensor.I32, 4)
	tensor.Host[int32](ids)[2] = 7
	s := tensor.AttentionShape{Batch: 1, Length: 4, Heads: 3, KVHeads: 2, HeadDim: 2}
	for _, c := range []struct {
		op, want string
		run      func()
	}{
		{"Gemm NT", "f32 [4 5], f32 [4 3], f32 [6 3]", func() {
			d.Gemm(q, tensor.NT, mat(4, 5), mat(4, 3), mat(6, 3), false)
		}},
		{"Upload", "3 bytes into 8", func() { d.Upload(q, buf(tensor.F32, 2), make([]byte, 3)) }},
		{"Cast", "f32 [1 2], i32 [1 4]", func() { d.Cast(q, buf(tensor.F32, 2), ids) }},
		{"Add", "f32 [1 4], f32 [1 4], i32 [1 4]", func() { d.Add(q, buf(tensor.F32, 4), buf(tensor.F32, 4), ids) }},
		{"Embed", "f32 [4 2], f32 [5 3]", func() { d.Embed(q, mat(4, 2), mat(5, 3), ids) }},
		{"EmbedBackward", "f32 [5 3], f32 [4 2]", func() { d.EmbedBackward(q, mat(5, 3), mat(4, 2), ids) }},
		{"RMSNorm", "f32 [1 3]", func() {
			d.RMSNorm(q, mat(4, 2), buf(tensor.F32, 4), mat(4, 2), buf(tensor.F32, 3), 1)
		}},
		{"RoPE", "i32 [1 4]", func() { d.RoPE(q, mat(3, 4), ids, buf(tensor.F32, 8), 4, false) }},
		{"RoPE", "position 7 is not in [0, 2)", func() { d.RoPE(q, mat(4, 4), ids, buf(tensor.F32, 8), 4, false) }},
		{"Attention", "f32 [4 6], f32 [4 4]", func() {
			d.Attention(q, mat(4, 6), buf(tensor.F32, 12), mat(4, 6), mat(4, 4), mat(4, 4), s)
		}},
		{"SwiGLU", "f32 [4 3], f32 [4 5]", func() { d.SwiGLU(q, mat(4, 3), mat(4, 5)) }},
		{"CrossEntropy", "target 7 is not in [0, 5)", func() {
			d.CrossEntropy(q, buf(tensor.F32, 4), mat(4, 5), ids, 1, true)
		}},
		{"LogSumExp", "f32 [1 3], f32 [4 5]", func() { d.LogSumExp(q, buf(tensor.F32, 3), mat(4, 5)) }},
		{"CrossEntropyShard", "f32 [1 4], f32 [4 5], i32 [1 4], f32 [1 5]", func() {
			d.CrossEntropyShard(q, buf(tensor.F32, 4), mat(4, 5), ids, buf(tensor.F32, 5), 1, true)
		}},
		{"Sum", "f32 [1 1]", func() { d.Sum(q, buf(tensor.F32, 1), buf(tensor.F32, 9)) }},
	} {
		got := message(c.run)
		if !strings.Contains(got, "cpu: "+c.op) || !strings.Contains(got, c.want) {
			t.Errorf("%s: the panic is %q, want %q in it", c.op, got, c.want)
		}
	}
}

// message is what f panics with.
func message(f func()) (m string) {
	defer func() { m = fmt.Sprint(recover()) }()
	f()
	return ""
}

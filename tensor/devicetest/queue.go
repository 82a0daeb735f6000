package devicetest

import (
	"bytes"
	"context"
	"testing"

	"github.com/herdtrain/herd/tensor"
)

// testQueues passes a value through every queue by events, and checks memory.
func testQueues(t *testing.T, open func() tensor.Device) {
	dev := open()
	alloc := func(dt tensor.DType, n int) tensor.Buffer {
		t.Helper()
		b, err := dev.Alloc(dt, n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if dev.Name() == "" {
		t.Error("the device has no name")
	}
	const n = 1 << 16
	ctx := context.Background()
	a, b, c := alloc(tensor.F32, n), alloc(tensor.F32, n), alloc(tensor.BF16, n)
	got := make([]byte, b.Bytes())
	dev.Download(dev.Queue(tensor.CopyQueue), got, b)
	if err := dev.Queue(tensor.CopyQueue).Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, make([]byte, len(got))) {
		t.Error("new memory is not zero")
	}
	if uintptr(b.Ptr())%64 != 0 {
		t.Errorf("new memory is at %p, want a multiple of 64", b.Ptr())
	}
	if _, err := dev.Alloc(tensor.F64, 1<<58); err == nil {
		t.Error("2^61 bytes were allocated")
	}

	out := make([]byte, c.Bytes())
	for round := range 20 {
		gather, reduce := dev.Queue(tensor.Gather), dev.Queue(tensor.Reduce)
		compute, copies := dev.Queue(tensor.Compute), dev.Queue(tensor.CopyQueue)
		v := float64(round + 1)
		dev.Fill(gather, a, v)
		filled := gather.Record()
		reduce.Wait(filled)
		dev.Cast(reduce, b, a)
		reduced := reduce.Record()
		compute.Wait(reduced)
		dev.Cast(compute, c, b)
		copies.Wait(compute.Record())
		dev.Download(copies, out, c)
		if err := copies.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		if got := decode(tensor.BF16, out, n); got[0] != v || got[n-1] != v {
			t.Fatalf("round %d: %v and %v came through the queues", round, got[0], got[n-1])
		}
		<-filled.Done()
		if passed, err := reduced.Query(); !passed || err != nil {
			t.Fatalf("an event is %v, %v after it was waited for", passed, err)
		}
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

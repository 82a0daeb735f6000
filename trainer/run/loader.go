package run

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/herdtrain/herd/dataset"
)

// batch is the global batch of one step.
type batch struct {
	tokens  dataset.Tokens
	targets int64 // valid targets
	err     error
}

// loader reads the batches of consecutive steps ahead of the one that trains, into two buffers that go round.
type loader struct {
	ready, free chan *batch
	cancel      context.CancelFunc
	done        chan struct{}
}

// newLoader starts reading at step from. Its goroutine ends with close, or at the last step.
func newLoader(ctx context.Context, s dataset.Stream, from, steps int64, size int) *loader {
	ctx, cancel := context.WithCancel(ctx)
	l := &loader{make(chan *batch, 2), make(chan *batch, 2), cancel, make(chan struct{})}
	l.free <- new(batch)
	l.free <- new(batch)
	go func() {
		defer close(l.done)
		defer close(l.ready)
		for step := from; step < steps; step++ {
			select {
			case b := <-l.free:
				b.err = s.Batch(ctx, step, dataset.Part{First: 0, Count: size}, &b.tokens)
				if b.err == nil {
					b.targets, b.err = s.Targets(ctx, step)
				}
				l.ready <- b // never blocks: there are as many places as buffers
				if b.err != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return l
}

// next is the batch of the next step. It belongs to the caller until release.
func (l *loader) next(ctx context.Context) (*batch, error) {
	select {
	case b, ok := <-l.ready:
		if !ok {
			return nil, fmt.Errorf("loader: no batch after the last step")
		}
		return b, b.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *loader) release(b *batch) { l.free <- b }

func (l *loader) close() {
	l.cancel()
	<-l.done
}

// batchDigest is the CRC-32C of a batch's tokens and targets, little-endian.
func batchDigest(t *dataset.Tokens) string {
	var sum uint32
	buf := make([]byte, 0, 4096)
	for _, s := range [][]int32{t.Input, t.Target} {
		for _, v := range s {
			if buf = binary.LittleEndian.AppendUint32(buf, uint32(v)); len(buf) == cap(buf) {
				sum, buf = crc32.Update(sum, castagnoli, buf), buf[:0]
			}
		}
	}
	return fmt.Sprintf("%08x", crc32.Update(sum, castagnoli, buf))
}

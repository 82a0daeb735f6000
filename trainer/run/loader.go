package run

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/trainer/parallel"
)

// batch is a rank's part of the global batch of one step.
type batch struct {
	tokens  dataset.Tokens
	targets int64 // valid targets of the global batch
	err     error
}

// loader reads the batches of consecutive steps ahead of the one that trains, into two buffers that go round.
type loader struct {
	ready, free chan *batch
	cancel      context.CancelFunc
	done        chan struct{}
}

// newLoader starts reading part of each batch at step from. Its goroutine ends with close, or at the last step.
func newLoader(ctx context.Context, s dataset.Stream, from, steps int64, part parallel.Range) *loader {
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
				b.err = nil
				if part.Len() > 0 {
					b.err = s.Batch(ctx, step, dataset.Part{First: part.Lo, Count: part.Len()}, &b.tokens)
				}
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

// batchDigest is the sum of a checksum of each sequence, so that the digests of parts add up to that of the whole,
// wrapping: the CRC-32C of its ordinal (8 bytes), tokens and targets, little-endian.
func batchDigest(t *dataset.Tokens) (sum uint32) {
	buf := make([]byte, 0, 8+8*t.Length)
	for i := range t.Seqs {
		buf = binary.LittleEndian.AppendUint64(buf[:0], uint64(t.Ordinal[i]))
		for _, s := range [][]int32{t.Input, t.Target} {
			for _, v := range s[i*t.Length : (i+1)*t.Length] {
				buf = binary.LittleEndian.AppendUint32(buf, uint32(v))
			}
		}
		sum += crc32.Checksum(buf, castagnoli)
	}
	return sum
}

package run

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/tensor"
)

// load reads this rank's part of the training state of a checkpoint.
func (w *worker) load(ctx context.Context, c *checkpoint.Checkpoint) error {
	return loadTensors(ctx, c, w.dev, w.q, state(w.stage.Params, w.opt))
}

// deriveWeights rounds the master weights to the weights that the passes read, and gathers those of other ranks.
func (w *worker) deriveWeights(ctx context.Context) error {
	w.opt.Derive(w.dev, w.q)
	w.gatherWeights()
	return w.sync(ctx)
}

// loadTensors fills the buffers of list, which c must hold with these shapes.
func loadTensors(ctx context.Context, c tensors, dev tensor.Device, q tensor.Queue, list []stored) error {
	var wrong []string
	for _, p := range list {
		info, ok := c.Info(p.name)
		if !ok || info.DType != p.buf.DType() || !slices.Equal(info.Shape, p.param.Shape) {
			wrong = append(wrong, mismatch(p, info, ok))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("it is of another model: %s", firstFew(wrong))
	}
	return loadPieces(ctx, c, list, func(b tensor.Buffer, host []byte) error {
		dev.Upload(q, b, host)
		return q.Sync(ctx)
	})
}

// A load reads so many pieces, of so many bytes, at a time.
const loadReaders, loadPiece = 4, 8 << 20

// pieces are consecutive parts of p, of loadPiece bytes but for the last.
func (p stored) pieces() iter.Seq[stored] {
	return func(yield func(stored) bool) {
		n := loadPiece / p.buf.DType().Size()
		for lo := p.first; lo < p.end; lo += n {
			q := p
			q.first, q.end = lo, min(lo+n, p.end)
			q.buf = p.buf.Slice(q.first-p.first, q.end-p.first)
			if !yield(q) {
				return
			}
		}
	}
}

// mismatch says how what a checkpoint has under the name of p is not it.
func mismatch(p stored, info checkpoint.Info, ok bool) string {
	if !ok {
		return p.name + " is missing"
	}
	return fmt.Sprintf("%s is %v %v, want %v %v", p.name, info.DType, info.Shape, p.buf.DType(), p.param.Shape)
}

// piece is a stored tensor, or a part of one, as read into host memory.
type piece struct {
	stored
	host []byte
	used chan error // what became of it; host is used again after
}

// loadPieces reads all elements of list, in pieces and several at once, and gives each to use, whose calls come one
// after another from this goroutine.
func loadPieces(ctx context.Context, c tensors, list []stored,
	use func(b tensor.Buffer, host []byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	todo, ready := make(chan stored), make(chan piece)
	g.Go(func() error {
		defer close(todo)
		for _, p := range list {
			for q := range p.pieces() {
				select {
				case todo <- q:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	for range loadReaders {
		g.Go(func() error {
			var host []byte
			used := make(chan error)
			for p := range todo {
				host = slices.Grow(host[:0], int(p.buf.Bytes()))[:p.buf.Bytes()]
				if err := c.ReadParts(ctx, p.name, p.parts(host)...); err != nil {
					return err
				}
				ready <- piece{p, host, used}
				if err := <-used; err != nil {
					return err
				}
			}
			return nil
		})
	}
	over := make(chan error, 1)
	go func() { over <- g.Wait() }()
	for {
		select {
		case p := <-ready:
			p.used <- use(p.buf, p.host)
		case err := <-over:
			return err
		}
	}
}

// firstFew joins texts, at most four of them.
func firstFew(texts []string) string {
	const most = 4
	if len(texts) <= most {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
}

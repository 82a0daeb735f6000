package run

import (
	"context"
	"fmt"
	"slices"
	"strings"

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

// loadTensors fills the buffers of list, which a checkpoint must hold with these shapes.
func loadTensors(ctx context.Context, c *checkpoint.Checkpoint, dev tensor.Device, q tensor.Queue, list []stored) error {
	var wrong []string
	for _, p := range list {
		switch info, ok := c.Info(p.name); {
		case !ok:
			wrong = append(wrong, p.name+" is missing")
		case info.DType != p.buf.DType() || !slices.Equal(info.Shape, p.param.Shape):
			wrong = append(wrong, fmt.Sprintf("%s is %v %v, want %v %v", p.name, info.DType, info.Shape, p.buf.DType(),
				p.param.Shape))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("it is of another model: %s", firstFew(wrong))
	}
	var host []byte
	for _, p := range list {
		host = slices.Grow(host[:0], int(p.buf.Bytes()))[:p.buf.Bytes()]
		if err := c.ReadParts(ctx, p.name, p.parts(host)...); err != nil {
			return err
		}
		dev.Upload(q, p.buf, host)
		if err := q.Sync(ctx); err != nil { // host is used again
			return err
		}
	}
	return nil
}

// firstFew joins texts, at most four of them.
func firstFew(texts []string) string {
	const most = 4
	if len(texts) <= most {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
}

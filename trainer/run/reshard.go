package run

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/parallel"
)

// Reshard writes a checkpoint again below root, cut as the ranks of a layout of its job hold and save it, and seals it.
// A load at that layout reads each file from end to end; every other layout can load it too. Memory is that of a piece
// of a tensor. It calls progress, if not nil, with the bytes written and to write.
func Reshard(ctx context.Context, fsys storage.FS, root string, c *checkpoint.Checkpoint, job *config.Job, l parallel.Layout,
	progress func(done, total int64)) (checkpoint.Ref, error) {
	r := resharding{ctx: ctx, from: c, progress: progress}
	if r.progress == nil {
		r.progress = func(int64, int64) {}
	}
	for _, t := range c.Tensors() {
		r.total += t.Bytes
	}
	st := c.State()
	st.Config, st.Layout, st.Parent = string(job.YAML()), layoutOf(l), checkpoint.Ref{}
	dir, err := checkpoint.Create(fsys, root, st)
	if err != nil {
		return checkpoint.Ref{}, err
	}
	ref, err := r.write(fsys, dir, st, job, l)
	if err != nil {
		checkpoint.Abandon(fsys, dir)
	}
	return ref, err
}

// resharding is a checkpoint being written again.
type resharding struct {
	ctx         context.Context
	from        *checkpoint.Checkpoint
	progress    func(done, total int64)
	done, total int64
}

func (r *resharding) write(fsys storage.FS, dir string, st checkpoint.State, job *config.Job, l parallel.Layout) (
	ref checkpoint.Ref, err error) {
	var files []checkpoint.Files
	for rank := range l.Mesh.World() {
		number, ok := writer(l, rank)
		if !ok {
			continue
		}
		w := new(worker)
		w.place(tensor.NewPlan(), nil, job, l, rank)
		f, err := checkpoint.WriteStream(r.ctx, fsys, dir, number, r.pieces(ownState(w.stage.Params, w.opt)))
		if err != nil {
			return ref, err
		}
		files = append(files, f)
	}
	if r.done != r.total {
		return ref, fmt.Errorf("%s holds %d bytes of tensors, its job's model has %d of them", r.from.Dir(), r.total, r.done)
	}
	return checkpoint.Seal(r.ctx, fsys, dir, st, files)
}

// pieces reads a rank's state, a piece at a time. Moments may be missing, in a checkpoint of weights alone.
func (r *resharding) pieces(list []stored) iter.Seq2[checkpoint.Tensor, error] {
	return func(yield func(checkpoint.Tensor, error) bool) {
		var host []byte
		for _, whole := range list {
			info, ok := r.from.Info(whole.name)
			if !ok && whole.name != whole.param.Name {
				continue
			}
			if !ok || info.DType != whole.buf.DType() || !slices.Equal(info.Shape, whole.param.Shape) {
				yield(checkpoint.Tensor{}, errors.New(mismatch(whole, info, ok)))
				return
			}
			for p := range whole.pieces() {
				host = slices.Grow(host[:0], int(p.buf.Bytes()))[:p.buf.Bytes()]
				parts := p.parts(host)
				if err := r.from.ReadParts(r.ctx, p.name, parts...); err != nil {
					yield(checkpoint.Tensor{}, err)
					return
				}
				for _, part := range parts {
					t := checkpoint.Tensor{Name: p.name, DType: info.DType, Shape: info.Shape, Box: part.Box, Data: part.Data}
					if !yield(t, nil) {
						return
					}
				}
				r.done += int64(len(host))
				r.progress(r.done, r.total)
			}
		}
	}
}

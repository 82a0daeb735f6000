package checkpoint

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/herdtrain/herd/storage"
)

// deal gives each writer an equal flat range of each tensor, as boxes.
func deal(tensors []Tensor, writers int64) [][]Tensor {
	shards := make([][]Tensor, writers)
	for _, t := range tensors {
		b, size := Whole(t.Shape), int64(t.DType.Size())
		for w := range writers {
			lo, hi := b.Elements()*w/writers, b.Elements()*(w+1)/writers
			for _, p := range b.Parts(lo, hi, t.Data[lo*size:hi*size]) {
				shard := t
				shard.Box, shard.Data = p.Box, p.Data
				shards[w] = append(shards[w], shard)
			}
		}
	}
	return shards
}

// saveShards saves as so many writers as there are shards, and sends their Files in binary form, out of order.
func saveShards(fsys storage.FS, root string, st State, shards [][]Tensor) (Ref, error) {
	return saveShardsBy(fsys, root, st, shards, func(fsys storage.FS, write []func(storage.FS)) {
		for _, w := range write {
			w(fsys)
		}
	})
}

func saveShardsBy(fsys storage.FS, root string, st State, shards [][]Tensor,
	run func(storage.FS, []func(storage.FS))) (Ref, error) {
	dir, err := Create(fsys, root, st)
	if err != nil {
		return Ref{}, err
	}
	messages, errs := make([][]byte, len(shards)), make([]error, len(shards))
	var writers []func(storage.FS)
	for w, tensors := range shards {
		writers = append(writers, func(fsys storage.FS) {
			f, err := Write(ctx, fsys, dir, w, tensors)
			if err == nil {
				messages[w], err = f.MarshalBinary()
			}
			errs[w] = err
		})
	}
	run(fsys, writers)
	files := make([]Files, len(shards))
	for w, b := range slices.Backward(messages) {
		if b != nil {
			errs[w] = files[len(files)-1-w].UnmarshalBinary(b)
		}
	}
	var ref Ref
	if err = errors.Join(errs...); err == nil {
		ref, err = Seal(ctx, fsys, dir, st, files)
	}
	if err != nil {
		Abandon(fsys, dir)
	}
	return ref, err
}

// saveInterleaved is Save by three writers at the same time; by two in a short test.
func saveInterleaved(_ context.Context, fsys storage.FS, root string, st State, tensors []Tensor) (Ref, error) {
	writers := int64(3)
	if testing.Short() {
		writers = 2
	}
	return saveShardsBy(fsys, root, st, deal(tensors, writers), interleave)
}

// interleave runs tasks by turns, each up to its next operation that writes; whose turn it is comes from a fixed seed.
func interleave(fsys storage.FS, tasks []func(storage.FS)) {
	random := rand.New(rand.NewPCG(1, 2))
	var next []func() (struct{}, bool)
	for _, task := range tasks {
		resume, stop := iter.Pull(func(yield func(struct{}) bool) {
			task(turns{fsys, func() { yield(struct{}{}) }})
		})
		defer stop()
		next = append(next, resume)
	}
	for len(next) > 0 {
		i := random.IntN(len(next))
		if _, ok := next[i](); !ok {
			next = slices.Delete(next, i, i+1)
		}
	}
}

// turns is a file system that lets others have a turn before each operation that writes.
type turns struct {
	storage.FS
	wait func()
}

type turnsFile struct {
	storage.File
	wait func()
}

func (f turns) Create(name string) (storage.File, error) {
	f.wait()
	file, err := f.FS.Create(name)
	return turnsFile{file, f.wait}, err
}

func (f turns) SyncDir(name string) error {
	f.wait()
	return f.FS.SyncDir(name)
}

func (f turnsFile) WriteAt(b []byte, off int64) (int, error) {
	f.wait()
	return f.File.WriteAt(b, off)
}

func (f turnsFile) Sync() error {
	f.wait()
	return f.File.Sync()
}

package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/herdtrain/herd/storage"
)

// SafeOptions say how tensors are written.
type SafeOptions struct {
	Stem      string // of file names: model, consolidated
	DType     string // F32, BF16, F16
	ShardSize int64  // bytes of tensors in a file, at most, unless one tensor has more; 0: no limit
	// Read fills dst with elements of a tensor from number first on, as fp32, little-endian.
	Read func(ctx context.Context, t SafeTensor, first int64, dst []byte) error
	// Progress, if not nil, is called with the bytes written and to write.
	Progress func(done, total int64)
}

// WriteSafeTensors writes tensors, of which Name and Shape count, in their order into a folder, as one file or as several
// with an index. Files get their names when they are whole and durable, the index last, so that what a crash leaves is
// never taken for a model. It holds 8 MiB of data at a time.
func WriteSafeTensors(ctx context.Context, fsys storage.FS, dir string, list []SafeTensor, o SafeOptions) error {
	size, ok := safeSizes[o.DType]
	if _, known := narrowings[o.DType]; !ok || !known {
		return fmt.Errorf("dtype %q, want F32, BF16 or F16", o.DType)
	}
	w := safeWriter{ctx: ctx, fs: fsys, o: o, size: size}
	var shards [][]SafeTensor
	shard := int64(0) // bytes of the last
	for _, t := range list {
		t.DType, t.bytes = o.DType, size*product(t.Shape)
		if len(shards) == 0 || o.ShardSize > 0 && shard > 0 && shard+t.bytes > o.ShardSize {
			shards, shard = append(shards, nil), 0
		}
		t.begin = shard
		shard += t.bytes
		w.total += t.bytes
		shards[len(shards)-1] = append(shards[len(shards)-1], t)
	}
	where := map[string]string{}
	for i, tensors := range shards {
		name := o.Stem + ".safetensors"
		if len(shards) > 1 {
			name = fmt.Sprintf("%s-%05d-of-%05d.safetensors", o.Stem, i+1, len(shards))
		}
		for _, t := range tensors {
			where[t.Name] = name
		}
		if err := w.file(filepath.Join(dir, name), tensors); err != nil {
			return fmt.Errorf("write %s: %w", filepath.Join(dir, name), err)
		}
	}
	if len(shards) == 1 {
		return nil
	}
	index, err := json.MarshalIndent(map[string]any{
		"metadata": map[string]int64{"total_size": w.total}, "weight_map": where,
	}, "", "  ")
	if err != nil {
		return err
	}
	return storage.WriteFileFS(fsys, filepath.Join(dir, o.Stem+".safetensors.index.json"), append(index, '\n'))
}

// safePiece is how many bytes are read, in fp32, and written at a time.
const safePiece = 8 << 20

type safeWriter struct {
	ctx         context.Context
	fs          storage.FS
	o           SafeOptions
	size        int64 // bytes of an element
	done, total int64
}

// file writes one file under another name and renames it.
func (w *safeWriter) file(path string, list []SafeTensor) error {
	tmp := path + tmpSuffix
	if err := w.fs.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := create(w.fs, tmp, func(f storage.File) error { return w.fill(f, list) })
	if err == nil {
		err = w.fs.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, w.fs.Remove(tmp))
	}
	return w.fs.SyncDir(filepath.Dir(path))
}

func (w *safeWriter) fill(f storage.File, list []SafeTensor) error {
	header := safeHeader(list)
	if _, err := f.WriteAt(header, 0); err != nil {
		return err
	}
	at, buf := int64(len(header)), make([]byte, safePiece)
	narrow := narrowings[w.o.DType]
	for _, t := range list {
		for first, n := int64(0), product(t.Shape); first < n; {
			b := buf[:min(safePiece, 4*(n-first))]
			if err := w.o.Read(w.ctx, t, first, b); err != nil {
				return err
			}
			first += int64(len(b) / 4)
			narrow(b, b)
			b = b[:int64(len(b)/4)*w.size]
			if _, err := f.WriteAt(b, at); err != nil {
				return err
			}
			at += int64(len(b))
			w.done += int64(len(b))
			if w.o.Progress != nil {
				w.o.Progress(w.done, w.total)
			}
		}
	}
	return nil
}

// safeHeader is the beginning of a file: the header's length and the header, padded with spaces to a multiple of 8.
func safeHeader(list []SafeTensor) []byte {
	b := append(make([]byte, 8), `{"__metadata__":{"format":"pt"}`...)
	for _, t := range list {
		entry, err := json.Marshal(map[string]any{
			"dtype": t.DType, "shape": append([]int64{}, t.Shape...), "data_offsets": []int64{t.begin, t.begin + t.bytes},
		})
		name, err2 := json.Marshal(t.Name)
		if err = errors.Join(err, err2); err != nil {
			panic(err) // plain values
		}
		b = append(append(append(append(b, ','), name...), ':'), entry...)
	}
	b = append(b, '}')
	b = append(b, bytes.Repeat([]byte{' '}, (8-len(b)%8)%8)...)
	binary.LittleEndian.PutUint64(b, uint64(len(b)-8))
	return b
}

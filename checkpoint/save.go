package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/zeebo/blake3"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
)

// ioSize is how many bytes are read or written at a time.
const ioSize = 1 << 20

// Save writes a new checkpoint below root, which it makes if need be, and seals it: after nil it is complete and
// durable, but `latest` still names the old one. The tensors' data must not change until Save returns. On an error, a
// full disk included, what was written is removed as far as that is possible, and nothing else was touched.
func Save(ctx context.Context, fsys storage.FS, root string, st State, tensors []Tensor) (Ref, error) {
	st.ConfigDigest = blake3.Sum256([]byte(st.Config))
	if st.Created.IsZero() {
		st.Created = time.Now()
	}
	st.Attempt = 1
	if err := checkSave(st, tensors); err != nil {
		return Ref{}, fmt.Errorf("save checkpoint of step %d: %w", st.Step, err)
	}
	dir, err := createDirectory(fsys, root, &st)
	if err != nil {
		return Ref{}, fmt.Errorf("save checkpoint of step %d: %w", st.Step, err)
	}
	digest, err := write(ctx, fsys, dir, st, tensors)
	if err != nil {
		_, _ = remove(fsys, dir) // what is left has no manifest, or is not committed: Prune's
		return Ref{}, fmt.Errorf("save checkpoint %s: %w", dir, err)
	}
	return Ref{Name: st.id().String(), Manifest: digest, Ancestors: st.Parent.lineage()}, nil
}

func checkSave(st State, tensors []Tensor) error {
	if err := st.check(); err != nil {
		return err
	}
	seen := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		if err := checkName(t.Name); err != nil {
			return err
		}
		if seen[t.Name] {
			return fmt.Errorf("two tensors are named %q", t.Name)
		}
		seen[t.Name] = true
		if _, ok := tensor.ParseDType(t.DType.String()); !ok {
			return fmt.Errorf("tensor %q has no dtype", t.Name)
		}
		n, err := byteSize(t.DType, t.Shape)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if int64(len(t.Data)) != n {
			return fmt.Errorf("tensor %q has %d bytes of data, want %d for shape %v of %v", t.Name, len(t.Data), n,
				t.Shape, t.DType)
		}
	}
	return nil
}

// createDirectory makes a directory of a name that no earlier attempt has had, and sets st.Attempt.
func createDirectory(fsys storage.FS, root string, st *State) (string, error) {
	if err := storage.MkdirAll(fsys, root); err != nil {
		return "", err
	}
	// A root that a killed process had just made may not be durable yet.
	if err := fsys.SyncDir(filepath.Dir(root)); err != nil {
		return "", err
	}
	taken, err := directories(fsys, root)
	if err != nil {
		return "", err
	}
	for _, i := range taken {
		if i.step == st.Step && i.generation == st.Generation {
			st.Attempt = max(st.Attempt, i.attempt+1)
		}
	}
	dir := filepath.Join(root, st.id().String())
	if err := fsys.Mkdir(dir); err != nil {
		return "", err
	}
	if err := fsys.SyncDir(root); err != nil {
		return "", errors.Join(err, fsys.Remove(dir))
	}
	return dir, nil
}

// write fills the directory: data, index, and when those are durable the manifest.
func write(ctx context.Context, fsys storage.FS, dir string, st State, tensors []Tensor) (Digest, error) {
	files, err := writeWriter(ctx, fsys, dir, 0, tensors)
	if err != nil {
		return Digest{}, err
	}
	if err := fsys.SyncDir(dir); err != nil {
		return Digest{}, err
	}
	text, err := encodeManifest(manifest{st, int64(len(tensors)), []writerFiles{files}})
	if err != nil {
		return Digest{}, err
	}
	return blake3.Sum256(text), storage.WriteFileFS(fsys, filepath.Join(dir, manifestName), text)
}

// writeWriter writes the data and index file of one writer.
func writeWriter(ctx context.Context, fsys storage.FS, dir string, writer int, tensors []Tensor) (writerFiles, error) {
	var w writerFiles
	infos := make([]Info, len(tensors))
	data := filepath.Join(dir, fmt.Sprintf(dataName, writer))
	err := create(fsys, data, func(f storage.File) (err error) {
		w.dataSize, w.dataDigest, err = writeData(ctx, f, tensors, infos)
		return err
	})
	if err != nil {
		return w, err
	}
	index, err := encodeIndex(infos)
	if err != nil {
		return w, err
	}
	w.indexSize, w.indexDigest = int64(len(index)), blake3.Sum256(index)
	return w, create(fsys, filepath.Join(dir, fmt.Sprintf(indexName, writer)), func(f storage.File) error {
		_, err := f.WriteAt(index, 0)
		return err
	})
}

// create makes a durable file of what fill writes.
func create(fsys storage.FS, path string, fill func(storage.File) error) error {
	f, err := fsys.Create(path)
	if err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// writeData writes each tensor at the next multiple of the alignment, with zeros between, and fills infos. The crc of
// a tensor is taken from memory, before the bytes are handed to the file system.
func writeData(ctx context.Context, f storage.File, tensors []Tensor, infos []Info) (size int64, d Digest, err error) {
	var zeros [alignment]byte
	h := blake3.New()
	for i, t := range tensors {
		h.Write(zeros[:align(size)-size])
		size = align(size)
		infos[i] = Info{Name: t.Name, DType: t.DType, Shape: t.Shape, Begin: size, Bytes: int64(len(t.Data))}
		for rest := t.Data; len(rest) > 0; {
			if err := ctx.Err(); err != nil {
				return 0, d, err
			}
			b := rest[:min(len(rest), ioSize)]
			rest = rest[len(b):]
			h.Write(b)
			infos[i].CRC32C = crc32.Update(infos[i].CRC32C, castagnoli, b)
			if _, err := f.WriteAt(b, size); err != nil {
				return 0, d, err
			}
			size += int64(len(b))
		}
	}
	h.Sum(d[:0])
	return size, d, nil
}

// remove deletes a checkpoint directory, the manifest first, so that what a crash leaves is plainly unfinished. A file
// that is not a checkpoint's stays, and so does the directory then: gone is false.
func remove(fsys storage.FS, dir string) (gone bool, err error) {
	if err := fsys.Remove(filepath.Join(dir, manifestName)); err == nil {
		if err := fsys.SyncDir(dir); err != nil {
			return false, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return false, err
	}
	gone = true
	for _, e := range entries {
		if !ownFile(e.Name()) {
			gone = false
			continue
		}
		if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
			return false, err
		}
	}
	if !gone {
		return false, nil
	}
	if err := fsys.Remove(dir); err != nil {
		return false, err
	}
	return true, fsys.SyncDir(filepath.Dir(dir))
}

// ownFile says whether name is one that Save writes beside the manifest.
func ownFile(name string) bool {
	if name == manifestName+tmpSuffix {
		return true
	}
	for _, format := range []string{dataName, indexName} {
		var writer int
		if n, _ := fmt.Sscanf(name, format, &writer); n == 1 && fmt.Sprintf(format, writer) == name {
			return true
		}
	}
	return false
}

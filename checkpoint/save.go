package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"github.com/herdtrain/herd/storage"
)

// Save writes a new checkpoint below root, which it makes if need be, and seals it: after nil it is complete and
// durable, but `latest` still names the old one. The tensors' data must not change until Save returns. On an error, a
// full disk included, what was written is removed as far as that is possible, and nothing else was touched.
//
// It is Create, Write and Seal of one process. If several write, one of them, the leader, calls Create and tells the
// others the directory; each calls Write, under numbers from 0 on without a gap, and sends its Files to the leader; the
// leader calls Seal once it has them all, or, if anything failed, Abandon once no writer is at work any more.
func Save(ctx context.Context, fsys storage.FS, root string, st State, tensors []Tensor) (Ref, error) {
	dir, err := Create(fsys, root, st)
	if err != nil {
		return Ref{}, err
	}
	var ref Ref
	files, err := Write(ctx, fsys, dir, 0, tensors)
	if err == nil {
		ref, err = Seal(ctx, fsys, dir, st, []Files{files})
	}
	if err != nil {
		Abandon(fsys, dir)
	}
	return ref, err
}

// Create makes the directory of a new checkpoint below root, durably, and returns its path. Its name, of step,
// generation and attempt, is one that no earlier attempt has had.
func Create(fsys storage.FS, root string, st State) (dir string, err error) {
	st.Attempt = 1
	if err = st.check(); err == nil {
		dir, err = createDirectory(fsys, root, st.id())
	}
	if err != nil {
		return "", fmt.Errorf("create checkpoint of step %d: %w", st.Step, err)
	}
	return dir, nil
}

func createDirectory(fsys storage.FS, root string, id id) (string, error) {
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
		if i.step == id.step && i.generation == id.generation {
			id.attempt = max(id.attempt, i.attempt+1)
		}
	}
	dir := filepath.Join(root, id.String())
	if err := fsys.Mkdir(dir); err != nil {
		return "", err
	}
	if err := fsys.SyncDir(root); err != nil {
		return "", errors.Join(err, fsys.Remove(dir))
	}
	return dir, nil
}

// Seal makes the directory that Create made for st a checkpoint, by its manifest, once the files of all its writers are
// durable; their order does not matter. It opens them first as Open would: slices that leave a part of a tensor out or
// hold one twice, or files that are not those that the writers described, are ErrCorrupt and are not sealed.
func Seal(ctx context.Context, fsys storage.FS, dir string, st State, files []Files) (Ref, error) {
	ref, err := seal(ctx, fsys, dir, st, files)
	if err != nil {
		return Ref{}, fmt.Errorf("seal checkpoint %s: %w", dir, err)
	}
	return ref, nil
}

func seal(ctx context.Context, fsys storage.FS, dir string, st State, files []Files) (Ref, error) {
	id, ok := parseID(filepath.Base(dir))
	if !ok || id.step != st.Step || id.generation != st.Generation {
		return Ref{}, fmt.Errorf("it is not one of step %d, generation %d", st.Step, st.Generation)
	}
	st.Attempt = id.attempt
	st.ConfigDigest = blake3.Sum256([]byte(st.Config))
	if st.Created.IsZero() {
		st.Created = time.Now()
	}
	if err := st.check(); err != nil {
		return Ref{}, err
	}
	files = slices.SortedFunc(slices.Values(files), func(a, b Files) int { return cmp.Compare(a.Writer, b.Writer) })
	for i, f := range files {
		if f.Writer != int64(i) {
			return Ref{}, fmt.Errorf("the files of %d writers are not one of each: one of %d is where that of %d should be",
				len(files), f.Writer, i)
		}
	}
	if len(files) == 0 {
		return Ref{}, errors.New("no writer has written to it")
	}
	path := filepath.Join(dir, manifestName)
	if _, err := fsys.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return Ref{}, cmp.Or(err, fmt.Errorf("it has a manifest: %w", fs.ErrExist))
	}
	c, err := openFiles(ctx, fsys, dir, manifest{state: st, writers: files})
	if err != nil {
		return Ref{}, err
	}
	text, err := encodeManifest(manifest{st, int64(len(c.tensors)), files})
	if err != nil {
		return Ref{}, err
	}
	if err := storage.WriteFileFS(fsys, path, text); err != nil {
		return Ref{}, err
	}
	return Ref{Name: id.String(), Manifest: blake3.Sum256(text), Ancestors: st.Parent.lineage()}, nil
}

// Abandon removes a checkpoint that could not be written or sealed, as far as that is possible; Prune gets the rest.
func Abandon(fsys storage.FS, dir string) { _, _ = remove(fsys, dir) }

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

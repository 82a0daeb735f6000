package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/zeebo/blake3"

	"github.com/herdtrain/herd/storage"
)

// inMemory is a storage.Reader of bytes.
type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// Copy copies a checkpoint, of that name in both stores, and gives its Ref. Every file is compared with its digest in the
// manifest on the way; the manifest comes last, so that what an error or a crash leaves is plainly unfinished, and a
// damaged file is never part of a checkpoint. Files that are there already, and undamaged, are not sent again. It calls
// progress, if not nil, with bytes. Errors: ErrNotFound, ErrCorrupt, and fs.ErrExist if to holds another checkpoint of
// that name.
func Copy(ctx context.Context, to, from storage.Store, name string, progress func(done, total int64)) (Ref, error) {
	c := copying{ctx: ctx, to: to, from: from, name: name, progress: progress}
	ref, err := c.run()
	if err != nil {
		return Ref{}, fmt.Errorf("copy checkpoint %s: %w", name, err)
	}
	return ref, nil
}

type copying struct {
	ctx         context.Context
	to, from    storage.Store
	name        string
	progress    func(done, total int64)
	done, total int64
}

func (c *copying) run() (Ref, error) {
	manifestPath := path.Join(c.name, manifestName)
	text, m, digest, err := manifestIn(c.ctx, c.from, c.name)
	if err != nil {
		return Ref{}, err
	}
	ref := Ref{Name: c.name, Manifest: digest, Ancestors: m.state.Parent.lineage()}
	switch there, err := storage.ReadObject(c.ctx, c.to, manifestPath, maxManifest); {
	case err == nil && bytes.Equal(there, text):
		return ref, nil
	case err == nil:
		return Ref{}, fmt.Errorf("another one of that name is there: %w", fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return Ref{}, err
	}
	for _, w := range m.writers {
		c.total += w.DataSize + w.IndexSize
	}
	for i, w := range m.writers {
		if err := c.file(fmt.Sprintf(dataName, i), w.DataSize, w.Data); err != nil {
			return Ref{}, err
		}
		if err := c.file(fmt.Sprintf(indexName, i), w.IndexSize, w.Index); err != nil {
			return Ref{}, err
		}
	}
	err = c.to.Put(c.ctx, manifestPath, bytes.NewReader(text), int64(len(text)), storage.PutOptions{IfAbsent: true})
	if errors.Is(err, storage.ErrPrecondition) { // somebody was faster
		if there, e := storage.ReadObject(c.ctx, c.to, manifestPath, maxManifest); e == nil && bytes.Equal(there, text) {
			return ref, nil
		}
	}
	return ref, err
}

// manifestIn reads the manifest of a checkpoint in a store.
func manifestIn(ctx context.Context, s storage.Store, name string) (text []byte, m manifest, d Digest, err error) {
	file := path.Join(name, manifestName)
	text, err = storage.ReadObject(ctx, s, file, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("its manifest was %w", ErrNotFound)
	}
	if err == nil {
		m, d, err = readManifest(inMemory{bytes.NewReader(text)}, file)
	}
	if err == nil && name != m.state.id().String() {
		err = damaged(file, "it is the manifest of %v", m.state.id())
	}
	return text, m, d, err
}

// StateIn is what the manifest of a checkpoint in a store says. Errors: ErrNotFound, ErrCorrupt, ErrVersion.
func StateIn(ctx context.Context, s storage.Store, name string) (State, error) {
	_, m, _, err := manifestIn(ctx, s, name)
	return m.state, err
}

// file copies one file, unless it is there.
func (c *copying) file(file string, size int64, want Digest) error {
	name := path.Join(c.name, file)
	if same, err := c.holds(name, size, want); err != nil || same {
		c.count(int(size))
		return err
	}
	r, err := c.from.Get(c.ctx, name, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return &DamageError{File: name, Reason: "it is missing", Err: err}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	h := blake3.New()
	if err := c.to.Put(c.ctx, name, counted{io.TeeReader(r, h), c}, size, storage.PutOptions{}); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return &DamageError{File: name, Reason: fmt.Sprintf("it ends before byte %d", size), Err: err}
		}
		return err
	}
	if got := Digest(h.Sum(nil)); got != want {
		return errors.Join(damaged(name, "its digest is %v, the manifest says %v", got, want), c.to.Delete(c.ctx, name))
	}
	return nil
}

// holds says whether the file is there with the right bytes.
func (c *copying) holds(name string, size int64, want Digest) (bool, error) {
	info, err := c.to.Stat(c.ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || info.Size != size {
		return false, err
	}
	r, err := c.to.Get(c.ctx, name, 0, -1)
	if err != nil {
		return false, err
	}
	defer r.Close()
	h := blake3.New()
	if _, err := io.Copy(h, r); err != nil {
		return false, err
	}
	return Digest(h.Sum(nil)) == want, nil
}

func (c *copying) count(n int) {
	c.done += int64(n)
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
}

// counted counts what is read.
type counted struct {
	io.Reader
	c *copying
}

func (r counted) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.c.count(n)
	return n, err
}

// StoreCommitter keeps the committed checkpoint in the object `latest` of a store.
type StoreCommitter struct{ Store storage.Store }

// Latest implements Committer.
func (c StoreCommitter) Latest(ctx context.Context) (Ref, error) {
	ref, _, err := c.latest(ctx)
	return ref, err
}

func (c StoreCommitter) latest(ctx context.Context) (Ref, storage.Object, error) {
	info, err := c.Store.Stat(ctx, latestName)
	if errors.Is(err, fs.ErrNotExist) {
		return Ref{}, info, ErrNone
	}
	if err != nil {
		return Ref{}, info, err
	}
	text, err := storage.ReadObject(ctx, c.Store, latestName, maxLatest)
	if err != nil {
		return Ref{}, info, err
	}
	ref, err := DecodeRef(text)
	if err != nil && !errors.Is(err, ErrVersion) {
		err = &DamageError{File: latestName, Reason: "it does not name a checkpoint", Err: err}
	}
	return ref, info, err
}

// Commit implements Committer. Of two processes that commit at once one fails with storage.ErrPrecondition.
func (c StoreCommitter) Commit(ctx context.Context, ref Ref) error {
	text, err := ref.Encode()
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	now, info, err := c.latest(ctx)
	o := storage.PutOptions{IfMatch: info.Version}
	switch {
	case errors.Is(err, ErrNone):
		o.IfAbsent = true
	case errors.Is(err, ErrCorrupt):
	case err != nil:
		return fmt.Errorf("commit %s: %w", ref.Name, err)
	default:
		old, _ := parseID(now.Name)
		if i, _ := parseID(ref.Name); i.compare(old) < 0 {
			return fmt.Errorf("commit %s: %w by %s", ref.Name, ErrFenced, now.Name)
		}
	}
	if err := c.Store.Put(ctx, latestName, bytes.NewReader(text), int64(len(text)), o); err != nil {
		return fmt.Errorf("commit %s: %w", ref.Name, err)
	}
	return nil
}

// Names lists the checkpoints in a store that have a manifest, in the order of names.
func Names(ctx context.Context, s storage.Store) (names []string, err error) {
	for o, err := range s.List(ctx, "step-") {
		if err != nil {
			return nil, err
		}
		dir, file := path.Split(o.Name)
		if _, ok := parseID(path.Clean(dir)); ok && file == manifestName {
			names = append(names, path.Clean(dir))
		}
	}
	return names, nil
}

// OpenStore is the store of the checkpoints of s3://BUCKET/PREFIX, or of a run's output directory.
func OpenStore(at string) (storage.Store, error) {
	if strings.HasPrefix(at, storage.S3Scheme) {
		return storage.OpenS3(at)
	}
	return storage.Folder{FS: storage.OS, Root: filepath.Join(at, Folder)}, nil
}

// Follow deletes the checkpoints in a store that were saved before head and are not in from any more, the manifest first.
func Follow(ctx context.Context, to, from storage.Store, head Ref) error {
	there, err := Names(ctx, to)
	if err != nil {
		return err
	}
	newest, _ := parseID(head.Name)
	for _, name := range there {
		if i, _ := parseID(name); i.compare(newest) >= 0 {
			continue
		}
		_, err := from.Stat(ctx, path.Join(name, manifestName))
		if !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return err
			}
			continue
		}
		if err := to.Delete(ctx, path.Join(name, manifestName)); err != nil {
			return err
		}
		for o, err := range to.List(ctx, name+"/") {
			if err == nil {
				err = to.Delete(ctx, o.Name)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/herdtrain/herd/storage"
)

// Committer keeps which sealed checkpoint is the one to resume from.
type Committer interface {
	// Latest is the committed checkpoint; ErrNone if nothing was ever committed.
	Latest(ctx context.Context) (Ref, error)
	// Commit makes ref the committed one, durably. It fails with ErrFenced if a later save is committed already.
	Commit(ctx context.Context, ref Ref) error
}

// FileCommitter keeps the committed checkpoint in the file `latest` of a folder of checkpoints, for a run without a
// coordinator. The caller of Commit holds the run's lock.
type FileCommitter struct {
	FS   storage.FS
	Root string
}

// Latest implements Committer. If the file is missing although a checkpoint there names a parent, it was lost, and
// the error is ErrCorrupt: a parent was committed once.
func (c FileCommitter) Latest(ctx context.Context) (Ref, error) {
	path := filepath.Join(c.Root, latestName)
	f, err := c.FS.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Ref{}, c.none(ctx, path)
	}
	if err != nil {
		return Ref{}, fmt.Errorf("committed checkpoint: %w", err)
	}
	defer f.Close()
	if f.Size() > maxLatest {
		return Ref{}, damaged(path, "it has %d bytes, want at most %d", f.Size(), maxLatest)
	}
	text := make([]byte, f.Size())
	if err := readFull(f, path, text, 0); err != nil {
		return Ref{}, err
	}
	ref, err := DecodeRef(text)
	if errors.Is(err, ErrVersion) {
		return Ref{}, fmt.Errorf("%s has %w", path, err)
	}
	if err != nil {
		return Ref{}, &DamageError{File: path, Reason: "it does not name a checkpoint", Err: err}
	}
	return ref, nil
}

func (c FileCommitter) none(ctx context.Context, path string) error {
	list, err := directories(c.FS, c.Root)
	if err != nil {
		return fmt.Errorf("committed checkpoint: %w", err)
	}
	for _, i := range list {
		found, err := Open(ctx, c.FS, filepath.Join(c.Root, i.String()))
		if err == nil && found.state.Parent.Name != "" {
			return damaged(path, "it is missing, but %s was committed once: %v continues it; resume from one of them by name",
				found.state.Parent.Name, i)
		}
	}
	return fmt.Errorf("%w in %s", ErrNone, c.Root)
}

// Commit implements Committer. A damaged `latest` is replaced.
func (c FileCommitter) Commit(ctx context.Context, ref Ref) error {
	text, err := ref.Encode()
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	now, err := c.Latest(ctx)
	switch {
	case errors.Is(err, ErrNone), errors.Is(err, ErrCorrupt):
	case err != nil:
		return fmt.Errorf("commit %s: %w", ref.Name, err)
	default:
		old, _ := parseID(now.Name)
		if i, _ := parseID(ref.Name); i.compare(old) < 0 {
			return fmt.Errorf("commit %s: %w by %s", ref.Name, ErrFenced, now.Name)
		}
	}
	_, digest, err := openManifest(c.FS, filepath.Join(c.Root, ref.Name))
	if err != nil {
		return fmt.Errorf("commit %s: %w", ref.Name, err)
	}
	if digest != ref.Manifest {
		return fmt.Errorf("commit %s: its manifest is %v, want %v: %w", ref.Name, digest, ref.Manifest, ErrCorrupt)
	}
	if err := storage.WriteFileFS(c.FS, filepath.Join(c.Root, latestName), text); err != nil {
		return fmt.Errorf("commit %s: %w", ref.Name, err)
	}
	return nil
}

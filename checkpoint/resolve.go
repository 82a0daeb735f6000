package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"github.com/herdtrain/herd/storage"
)

// Rejection is a checkpoint that could not be used, and why.
type Rejection struct {
	Name string
	Err  error
}

// Resolve gives the newest checkpoint of head's lineage that load accepts: head itself, then its parent and so on,
// never one that is not in the lineage, however high its step. load reads what the caller needs; nil stands for
// Verify. A checkpoint is passed over if it is gone or damaged, that is if opening it or load fails with ErrNotFound or
// ErrCorrupt, and is then among the rejections; load must be ready to be called again. Any other error ends the search:
// a checkpoint of a newer version, or of another model, is no reason to go back in time. If none is left the error
// joins all rejections.
func Resolve(ctx context.Context, fsys storage.FS, root string, head Ref, load func(*Checkpoint) error) (
	*Checkpoint, []Rejection, error) {
	if head.Name == "" {
		return nil, nil, ErrNone
	}
	if load == nil {
		load = func(c *Checkpoint) error { return c.Verify(ctx, nil) }
	}
	var rejected []Rejection
	for l := range lineage(ctx, fsys, root, head) {
		err := l.err
		if err == nil {
			err = load(l.checkpoint)
		}
		if err == nil {
			return l.checkpoint, rejected, nil
		}
		if !passable(err) {
			return nil, rejected, fmt.Errorf("checkpoint %s: %w", l.name, err)
		}
		rejected = append(rejected, Rejection{l.name, err})
	}
	errs := []error{fmt.Errorf("no checkpoint of the lineage of %q can be used", head.Name)}
	for _, r := range rejected {
		errs = append(errs, r.Err)
	}
	return nil, rejected, errors.Join(errs...)
}

// passable says whether an ancestor may stand in for a checkpoint that fails like this.
func passable(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) }

// link is one element of a lineage, opened if that was possible.
type link struct {
	name       string
	checkpoint *Checkpoint
	err        error
}

// lineage goes from head to its ancestors. A checkpoint whose manifest can be read says what comes next; past
// one that cannot, the ancestors that its successor named go on.
func lineage(ctx context.Context, fsys storage.FS, root string, head Ref) iter.Seq[link] {
	return func(yield func(link) bool) {
		seen := map[string]bool{}
		want := head.Manifest
		for next := head.lineage(); len(next) > 0; {
			name := next[0]
			if seen[name] {
				return
			}
			seen[name] = true
			c, err := Open(ctx, fsys, filepath.Join(root, name))
			if err == nil && want != (Digest{}) && c.digest != want {
				err = damaged(filepath.Join(c.dir, manifestName), "its digest is %v, want %v", c.digest, want)
			}
			if err != nil {
				c = nil
			}
			if !yield(link{name, c, err}) {
				return
			}
			if c == nil {
				next, want = next[1:], Digest{}
				continue
			}
			next, want = c.state.Parent.lineage(), c.state.Parent.Manifest
		}
	}
}

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/herdtrain/herd/storage"
)

// minKept is how many verified checkpoints stay whatever `keep` says.
const minKept = 2

// Prune deletes what is no longer needed below root and returns the names of what it deleted. head is the committed
// checkpoint.
//
// Of head's lineage the newest keep (at least 2) good ones stay. If there are that many, and the two newest of them
// have been verified to the last byte, older ones go, and with them saves of the same job, older than head, that are
// not in the lineage: never committed, or rolled back. Unfinished directories older than head go in any case. What is
// newer than head, damaged, or was put there by a person stays. A file that no checkpoint has keeps its directory.
func Prune(ctx context.Context, fsys storage.FS, root string, head Ref, keep int) (removed []string, err error) {
	stale, err := stale(ctx, fsys, root, head, max(keep, minKept))
	if err != nil {
		return nil, fmt.Errorf("prune %s: %w", root, err)
	}
	for _, name := range stale {
		gone, err := remove(fsys, filepath.Join(root, name))
		if gone {
			removed = append(removed, name)
		}
		if err != nil {
			return removed, fmt.Errorf("prune %s: %w", name, err)
		}
	}
	return removed, nil
}

// stale is what may go.
func stale(ctx context.Context, fsys storage.FS, root string, head Ref, keep int) ([]string, error) {
	if head.Name == "" {
		return nil, ErrNone
	}
	var family []link // of the lineage, what is there and was sealed
	for l := range lineage(ctx, fsys, root, head) {
		switch {
		case l.err != nil && (l.name == head.Name || !passable(l.err)):
			return nil, l.err
		case !errors.Is(l.err, ErrNotFound):
			family = append(family, l)
		}
	}
	sealed, unfinished, err := litter(ctx, fsys, root, family)
	if err != nil || len(family) <= keep && len(sealed) == 0 {
		return unfinished, err
	}
	kept, err := newestGood(ctx, family, keep)
	if err != nil || kept == nil {
		return unfinished, err
	}
	var names []string
	for _, l := range slices.Backward(family[len(kept):]) {
		names = append(names, l.name)
	}
	return slices.Concat(names, sealed, unfinished), nil
}

// newestGood is the beginning of a lineage up to its keep-th good member, of which the first two are verified in full.
// It is nil if there are not so many.
func newestGood(ctx context.Context, family []link, keep int) ([]link, error) {
	good := 0
	for i, l := range family {
		err := l.err
		if err == nil && good < minKept {
			err = l.checkpoint.Verify(ctx, nil)
		}
		switch {
		case err == nil:
			good++
		case !passable(err):
			return nil, err
		}
		if good == keep {
			return family[:i+1], nil
		}
	}
	return nil, nil
}

// litter is what is older than the head, the first of its lineage, and not in it: other saves of the same job, and
// unfinished ones.
func litter(ctx context.Context, fsys storage.FS, root string, family []link) (sealed, unfinished []string, err error) {
	head := family[0].checkpoint.state
	ids, err := directories(fsys, root)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range ids {
		name := i.String()
		if i.compare(head.id()) >= 0 || slices.ContainsFunc(family, func(l link) bool { return l.name == name }) {
			continue
		}
		c, err := Open(ctx, fsys, filepath.Join(root, name))
		switch {
		case errors.Is(err, ErrNotFound):
			unfinished = append(unfinished, name)
		case err == nil && c.state.JobName == head.JobName && c.state.JobDigest == head.JobDigest:
			sealed = append(sealed, name)
		}
	}
	return sealed, unfinished, nil
}

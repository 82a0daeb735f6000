package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/herdtrain/herd/storage"
)

// minKept is how many verified checkpoints stay whatever `keep` says.
const minKept = 2

// Keep says which checkpoints stay. Besides, the newest two that were verified always do.
type Keep struct {
	Last  int   // the newest of the lineage
	Every int64 // and those of steps that are multiples of it; 0: none
	Best  int   // and those of the lowest validation loss
}

// Pruner deletes what is no longer needed below Root. It remembers which checkpoints it has verified.
type Pruner struct {
	FS   storage.FS
	Root string
	Keep Keep

	verified map[Digest]bool // by the manifest
}

// Prune deletes what Stale names and returns the names of what it deleted. A file that no checkpoint has keeps its
// directory.
func (p *Pruner) Prune(ctx context.Context, head Ref) (removed []string, err error) {
	stale, err := p.Stale(ctx, head)
	if err != nil {
		return nil, err
	}
	for _, name := range stale {
		gone, err := remove(p.FS, filepath.Join(p.Root, name))
		if gone {
			removed = append(removed, name)
		}
		if err != nil {
			return removed, fmt.Errorf("prune %s: %w", name, err)
		}
	}
	return removed, nil
}

// Stale is what may go, head being the committed checkpoint.
//
// Of head's lineage the newest Keep.Last (at least 2) good ones stay. If there are that many, and the two newest of them
// have been verified to the last byte, older ones go, and with them saves of the same job, older than head, that are
// not in the lineage: never committed, or rolled back. Of all these, Keep.Every and Keep.Best save some; where a step was
// saved more than once, its last save. Unfinished directories older than head go in any case. What is newer than head,
// damaged, or was put there by a person stays.
func (p *Pruner) Stale(ctx context.Context, head Ref) ([]string, error) {
	names, err := p.stale(ctx, head)
	if err != nil {
		return nil, fmt.Errorf("prune %s: %w", p.Root, err)
	}
	return names, nil
}

func (p *Pruner) stale(ctx context.Context, head Ref) ([]string, error) {
	if head.Name == "" {
		return nil, ErrNone
	}
	var family []link // of the lineage, what is there and was sealed
	for l := range lineage(ctx, p.FS, p.Root, head) {
		switch {
		case l.err != nil && (l.name == head.Name || !passable(l.err)):
			return nil, l.err
		case !errors.Is(l.err, ErrNotFound):
			family = append(family, l)
		}
	}
	sealed, unfinished, err := p.litter(ctx, family)
	keep := max(p.Keep.Last, minKept)
	if err != nil || len(family) <= keep && len(sealed) == 0 {
		return unfinished, err
	}
	kept, err := p.newestGood(ctx, family, keep)
	if err != nil || kept == nil {
		return unfinished, err
	}
	saved := p.Keep.among(append(sealed, family...))
	var names []string
	for _, l := range slices.Backward(append(family[len(kept):], sealed...)) {
		if !saved[l.name] {
			names = append(names, l.name)
		}
	}
	return append(names, unfinished...), nil
}

// among is which of the list Every and Best save.
func (k Keep) among(list []link) map[string]bool {
	last := map[int64]State{} // saves of a step
	for _, l := range list {
		if l.err != nil {
			continue
		}
		st := l.checkpoint.state
		if old, ok := last[st.Step]; !ok || old.id().compare(st.id()) < 0 {
			last[st.Step] = st
		}
	}
	saved := map[string]bool{}
	var rated []State
	for step, st := range last {
		if k.Every > 0 && step%k.Every == 0 {
			saved[st.id().String()] = true
		}
		if st.ValidationLoss != 0 {
			rated = append(rated, st)
		}
	}
	slices.SortFunc(rated, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.ValidationLoss, b.ValidationLoss), cmp.Compare(b.Step, a.Step))
	})
	for _, st := range rated[:min(k.Best, len(rated))] {
		saved[st.id().String()] = true
	}
	return saved
}

// newestGood is the beginning of a lineage up to its keep-th good member, of which the first two are verified in full.
// It is nil if there are not so many.
func (p *Pruner) newestGood(ctx context.Context, family []link, keep int) ([]link, error) {
	good := 0
	for i, l := range family {
		err := l.err
		if err == nil && good < minKept {
			err = p.verify(ctx, l.checkpoint)
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

// verify reads a checkpoint, once.
func (p *Pruner) verify(ctx context.Context, c *Checkpoint) error {
	if p.verified[c.digest] {
		return nil
	}
	if err := c.Verify(ctx, nil); err != nil {
		return err
	}
	if p.verified == nil {
		p.verified = map[Digest]bool{}
	}
	p.verified[c.digest] = true
	return nil
}

// litter is what is older than the head, the first of its lineage, and not in it: other saves of the same job, and
// unfinished ones.
func (p *Pruner) litter(ctx context.Context, family []link) (sealed []link, unfinished []string, err error) {
	head := family[0].checkpoint.state
	ids, err := directories(p.FS, p.Root)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range ids {
		name := i.String()
		if i.compare(head.id()) >= 0 || slices.ContainsFunc(family, func(l link) bool { return l.name == name }) {
			continue
		}
		c, err := Open(ctx, p.FS, filepath.Join(p.Root, name))
		switch {
		case errors.Is(err, ErrNotFound):
			unfinished = append(unfinished, name)
		case err == nil && c.state.JobName == head.JobName && c.state.JobDigest == head.JobDigest:
			sealed = append(sealed, link{name: name, checkpoint: c})
		}
	}
	return sealed, unfinished, nil
}

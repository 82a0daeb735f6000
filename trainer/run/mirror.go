package run

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
)

// mirror copies committed checkpoints to another place in the background, one at a time; of those that come meanwhile the
// newest is next. It belongs to the leader's goroutine. A nil one does nothing.
type mirror struct {
	at    string // of checkpoint.mirror
	to    storage.Store
	from  storage.Folder
	event func(format string, args ...any)

	copied chan error     // nil: no copy is in flight
	going  checkpoint.Ref // what is being copied
	next   checkpoint.Ref // what comes next; zero: nothing
}

// openMirror is the mirror of a job, nil if it has none.
func openMirror(job *config.Job, fsys storage.FS) (*mirror, error) {
	at := job.Checkpoint.Mirror
	if at == "" {
		return nil, nil
	}
	to, err := checkpoint.OpenStore(at)
	if err != nil {
		return nil, fmt.Errorf("checkpoint.mirror: %w", err)
	}
	from := storage.Folder{FS: fsys, Root: filepath.Join(job.Job.Output, checkpoint.Folder)}
	return &mirror{at: at, to: to, from: from}, nil
}

// restore copies a checkpoint of the mirror to where a run without one looks for it, and commits it.
func (m *mirror) restore(ctx context.Context, head checkpoint.Ref, commit checkpoint.Committer) (checkpoint.Ref, error) {
	ref, err := checkpoint.Copy(ctx, m.from, m.to, head.Name, nil)
	if err == nil {
		err = commit.Commit(ctx, ref)
	}
	return ref, err
}

// start copies a checkpoint that has been committed, now or after the copy in flight.
func (m *mirror) start(ctx context.Context, ref checkpoint.Ref) {
	if m == nil {
		return
	}
	if m.copied != nil {
		m.next = ref
		return
	}
	m.going, m.copied = ref, make(chan error, 1)
	go func() { m.copied <- m.copy(ctx, ref) }()
}

// copy copies, commits, and deletes there what has been pruned here.
func (m *mirror) copy(ctx context.Context, ref checkpoint.Ref) error {
	if _, err := checkpoint.Copy(ctx, m.to, m.from, ref.Name, nil); err != nil {
		return err
	}
	if err := (checkpoint.StoreCommitter{Store: m.to}).Commit(ctx, ref); err != nil {
		return err
	}
	return checkpoint.Follow(ctx, m.to, m.from, ref)
}

// poll reports a copy that has ended meanwhile.
func (m *mirror) poll(ctx context.Context) {
	if m == nil || m.copied == nil {
		return
	}
	select {
	case err := <-m.copied:
		m.settle(ctx, err)
	default:
	}
}

// wait waits for all copies.
func (m *mirror) wait(ctx context.Context) {
	for m != nil && m.copied != nil {
		m.settle(ctx, <-m.copied)
	}
}

func (m *mirror) settle(ctx context.Context, err error) {
	if err != nil {
		m.event("%s could not be copied to %s: %v; training goes on", m.going.Name, m.at, err)
	} else {
		m.event("%s is in %s", m.going.Name, m.at)
	}
	next := m.next
	m.copied, m.next = nil, checkpoint.Ref{}
	if next.Name != "" {
		m.start(ctx, next)
	}
}

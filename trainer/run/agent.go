package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/parallel"
)

// agent is a node's part of a run: it holds the output directory's lock, decides the generation, and has a worker for
// each rank, in goroutines or in processes.
type agent struct {
	job    *config.Job
	layout parallel.Layout
	o      Options
	lock   *storage.FileLock
}

func newAgent(job *config.Job, layout parallel.Layout, o Options) (*agent, error) {
	out := job.Job.Output
	if err := storage.MkdirAll(storage.OS, out); err != nil {
		return nil, fmt.Errorf("job.output: %w", err)
	}
	lock, err := storage.Lock(filepath.Join(out, "lock"))
	if errors.Is(err, storage.ErrLocked) {
		return nil, fmt.Errorf("another run writes to %s: %w; stop it, or choose another job.output", out, err)
	}
	if err != nil {
		return nil, fmt.Errorf("job.output: %w", err)
	}
	return &agent{job, layout, o, lock}, nil
}

func (a *agent) close() { _ = a.lock.Unlock() }

// run is the life of one generation.
func (a *agent) run(ctx context.Context) error {
	var elsewhere []string
	m, err := openMirror(a.job, a.o.FS)
	if err == nil && m != nil {
		if elsewhere, err = checkpoint.Names(ctx, m.to); err != nil {
			err = fmt.Errorf("checkpoint.mirror: %w", err)
		}
	}
	if err != nil {
		return err
	}
	generation, err := checkpoint.NextGeneration(a.o.FS, filepath.Join(a.job.Job.Output, checkpoint.Folder), elsewhere...)
	if err != nil {
		return err
	}
	for _, warning := range a.layout.Warnings {
		a.event("warning: %s", warning)
	}
	a.o.peak = cpu.PeakFLOPS("", runtime.GOMAXPROCS(0), peakTime) // before any rank computes
	if len(a.o.Command) > 0 {
		return a.processes(ctx, generation)
	}
	return a.goroutines(ctx, generation)
}

// peakTime is how long the machine's peak is measured, for MFU.
const peakTime = 20 * time.Millisecond

// goroutines runs each rank in a goroutine.
func (a *agent) goroutines(ctx context.Context, generation int64) error {
	ranks := localRanks(a.layout, a.o.stepTimeout)
	errs := make([]error, len(ranks))
	var all sync.WaitGroup
	for i, r := range ranks {
		all.Go(func() { errs[i] = r.work(ctx, a.job, generation, a.o) })
	}
	all.Wait()
	for _, r := range ranks {
		errs = append(errs, r.close())
	}
	return first(errs)
}

// first is the error of the lowest rank that did not fail because another one did, else the first.
func first(errs []error) error {
	var any error
	for rank, err := range errs {
		switch {
		case err == nil:
		case !follows(err) && rank > 0:
			return fmt.Errorf("rank %d: %w", rank, err)
		case !follows(err):
			return err
		case any == nil:
			any = err
		}
	}
	return any
}

// follows says whether a rank failed because another one did, or because the agent gave the run up.
func follows(err error) bool {
	var group *collective.Error
	var process *processError
	return errors.As(err, &group) || errors.As(err, &process) && process.Follows || errors.Is(err, errGivenUp)
}

// event logs a line before the leader does.
func (a *agent) event(format string, args ...any) { fmt.Fprintf(a.o.Out, format+"\n", args...) }

// Package run is the main path of training: Run starts a node's agent, which takes the run's lock, decides from which
// checkpoint and in which generation it goes on, and runs the worker; the worker holds the model and loops over the
// steps (worker.go); trainStep in step.go is one step.
package run

import (
	"context"
	"io"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
)

// Options are the parts of a run that are not in its job file.
type Options struct {
	// Resume is where to start: "auto" (the newest good checkpoint of the output directory, or fresh), "none" (fresh,
	// and only into an output directory without checkpoints), or the path of a checkpoint.
	Resume string
	// Ranks is how many ranks the run has, goroutines of this process that exchange over memory; 0 is as 1. A lone rank
	// computes on all cores, each of several on one.
	Ranks int
	// Stop, when closed, asks for the run to end after the step in hand, with a checkpoint.
	Stop <-chan struct{}
	// Out takes the log. Terminal says that it is a terminal, Width columns wide, which gets a live progress line.
	Out      io.Writer
	Terminal bool
	Width    int
	// FS is the file system that checkpoints are written through; nil is the machine's.
	FS storage.FS
	// Version is the build's, recorded in checkpoints.
	Version string

	peak float64 // FLOP/s of the machine
}

// Run trains the job to its last step, or until it is asked to stop. It returns nil when the job is complete. Errors
// may have a method ExitCode.
func Run(ctx context.Context, job *config.Job, o Options) error {
	if o.FS == nil {
		o.FS = storage.OS
	}
	layout, err := Layout(job, max(o.Ranks, 1))
	if err != nil {
		return err
	}
	a, err := newAgent(job, layout, o)
	if err != nil {
		return err
	}
	defer a.close()
	return a.run(ctx)
}

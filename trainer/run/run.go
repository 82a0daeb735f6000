// Package run is the main path of training: Run starts a node's agent, which takes the run's lock, decides from which
// checkpoint and in which generation it goes on, and runs the worker; the worker holds the model and loops over the
// steps (worker.go); trainStep in step.go is one step.
package run

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
)

// Options are the parts of a run that are not in its job file.
type Options struct {
	// Resume is where to start: "auto" (the newest good checkpoint of the output directory, or fresh), "none" (fresh,
	// and only into an output directory without checkpoints), or the path of a checkpoint.
	Resume string
	// Ranks is how many ranks the run has, 0 is as 1: goroutines of this process that exchange over memory or, with a
	// Command, processes. A lone rank computes on all cores, each of several goroutines on one; processes share the cores.
	Ranks int
	// Command, if not empty, is the command line that starts a rank's process, which calls Rank; its number is added.
	Command []string
	// Stop, when closed, asks for the run to end after the step in hand, with a checkpoint.
	Stop <-chan struct{}
	// Out takes the log. Terminal says that it is a terminal, Width columns wide, which gets a live progress line.
	Out      io.Writer
	Terminal bool
	Width    int
	// Err takes what processes print beside the log, each line with its rank before it; nil: nothing does.
	Err io.Writer
	// FS is the file system that checkpoints are written through; nil is the machine's, and processes use no other.
	FS storage.FS
	// Version is the build's, recorded in checkpoints.
	Version string

	peak        float64       // FLOP/s of the machine
	stepTimeout time.Duration // 0: stepTimeout
	grace       time.Duration // 0: grace
}

// Run trains the job to its last step, or until it is asked to stop. It returns nil when the job is complete. Errors
// may have a method ExitCode.
func Run(ctx context.Context, job *config.Job, o Options) error {
	o.setDefaults()
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

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = storage.OS
	}
	if o.Err == nil {
		o.Err = io.Discard
	}
	o.stepTimeout = cmp.Or(o.stepTimeout, stepTimeout)
	o.grace = cmp.Or(o.grace, grace)
}

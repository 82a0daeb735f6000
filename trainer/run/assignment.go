package run

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/trainer/config"
)

// assignment is what a process must know to be a rank: the first line of its standard input, as JSON.
type assignment struct {
	World, Saves collective.Ticket // of the two Groups of all ranks
	Job          string            // the job file, with all that was laid over it
	Generation   int64
	Threads      int
	Resume       string
	Terminal     bool
	Width        int
	Peak         float64
	StepTimeout  time.Duration
}

// stopLine, after the assignment, asks for the run to end after the step in hand.
const stopLine = "stop\n"

// errGivenUp is why a rank ends when its standard input does.
var errGivenUp = errors.New("the process that started this rank gave the run up, or ended")

// ending is how a rank ended, as its process reports it: JSON.
type ending struct {
	Err     string // "": well
	Code    int    // exit code
	Follows bool   // another rank's failure was the reason
}

// processError is the failure of a rank in another process.
type processError struct{ ending }

func (e *processError) Error() string { return e.Err }

// ExitCode is the exit code of the rank's process.
func (e *processError) ExitCode() int { return e.Code }

// Rank runs a rank of a run in this process, which Run has started by Options.Command. in is the process's standard
// input: the assignment, and the wish to stop; when it ends the rank gives up. How the rank ended is reported to the
// process that runs Run; only the exit code is returned, or why there is nothing to report. Of o, Stop, Out and Version
// count.
func Rank(ctx context.Context, number int, in io.Reader, o Options) (code int, err error) {
	lines := bufio.NewReader(in)
	var t assignment
	text, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	if err == nil && t.World.Rank != number {
		err = fmt.Errorf("it is rank %d's", t.World.Rank)
	}
	if err != nil {
		return 0, &exitError{exitUsage, fmt.Errorf("rank %d has no assignment (%w): 'trainer run --nproc' starts ranks", number, err)}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signal, stop := o.Stop, make(chan struct{})
	ask := sync.OnceFunc(func() { close(stop) })
	go func() {
		for {
			switch line, err := lines.ReadString('\n'); {
			case err != nil:
				cancel(errGivenUp)
				return
			case line == stopLine:
				ask()
			}
		}
	}()
	go func() {
		select {
		case <-signal:
			ask()
		case <-ctx.Done():
		}
	}()
	o.Stop, o.Resume, o.Terminal, o.Width, o.peak = stop, t.Resume, t.Terminal, t.Width, t.Peak
	o.setDefaults()
	e := ending{}
	if err := t.work(ctx, o); err != nil {
		e = ending{err.Error(), exitCode(err), follows(err)}
	}
	pipe := os.NewFile(reportFD, "report")
	return e.Code, errors.Join(json.NewEncoder(pipe).Encode(e), pipe.Close())
}

// work joins the other ranks and does the rank's part.
func (t *assignment) work(ctx context.Context, o Options) error {
	job, err := config.Parse("the job of the run", []byte(t.Job), nil)
	if err != nil {
		return err
	}
	layout, err := Layout(job, len(t.World.Addrs))
	if err != nil {
		return err
	}
	facts := map[string]string{
		"job file": job.Digest(), "build": o.Version + " " + buildID(),
		"layout": fmt.Sprintf("%v, %s, zero %d over %d", layout.Mesh, layout.Schedule, layout.Zero, layout.Shard),
	}
	world, err := collective.Join(ctx, collective.Config{
		Ticket: t.World, Options: worldOptions(t.StepTimeout), Facts: facts,
	})
	if err != nil {
		return err
	}
	saves, err := collective.Join(ctx, collective.Config{Ticket: t.Saves, Options: saveOptions, Facts: facts})
	if err != nil {
		return errors.Join(err, world.Close())
	}
	r := newRank(t.World.Rank, layout, t.Threads, world, saves)
	r.process = true
	err = r.work(ctx, job, t.Generation, o)
	return errors.Join(err, r.close())
}

package run

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/herdtrain/herd/collective"
)

// grace is how long ranks have to end by themselves once one has failed.
const grace = 5 * time.Second

// processes runs each rank in a process of its own, and returns when all have ended. Its error is that of the rank that
// died first or, if none did, the one that first chooses.
func (a *agent) processes(ctx context.Context, generation int64) error {
	tasks, err := a.assignments(generation)
	if err != nil {
		return err
	}
	return a.supervise(ctx, tasks)
}

// assignments are what the processes are told, by rank. They share the cores.
func (a *agent) assignments(generation int64) ([]assignment, error) {
	n := a.layout.Mesh.World()
	worlds, err := collective.HostTickets(n, uint64(generation))
	if err != nil {
		return nil, err
	}
	saves, err := collective.HostTickets(n, uint64(generation))
	if err != nil {
		return nil, err
	}
	tasks := make([]assignment, n)
	for r := range tasks {
		tasks[r] = assignment{
			World: worlds[r], Saves: saves[r], Job: string(a.job.YAML()), Generation: generation,
			Threads: max(1, runtime.GOMAXPROCS(0)/n), Resume: a.o.Resume, Terminal: a.o.Terminal, Width: a.o.Width,
			Peak: a.o.peak, StepTimeout: a.o.stepTimeout,
		}
	}
	return tasks, nil
}

// supervise starts a process for each task. When one fails, or ctx ends, the others have a while to end by themselves.
func (a *agent) supervise(ctx context.Context, tasks []assignment) (err error) {
	runtime.LockOSThread() // Pdeathsig comes when the thread that started a process ends
	defer runtime.UnlockOSThread()
	c := &console{out: a.o.Out, err: a.o.Err, terminal: a.o.Terminal}
	var all []*process
	ended := make(chan *process)
	for _, t := range tasks {
		p, e := a.start(t, c)
		if e != nil {
			err = fmt.Errorf("start rank %d: %w", t.World.Rank, e)
			break
		}
		all = append(all, p)
		go func() { p.wait(); ended <- p }()
	}

	var over <-chan time.Time
	giveUp := func(why error) {
		if err == nil {
			err = why
		}
		if over == nil {
			over = time.After(a.o.grace)
			for _, p := range all {
				p.in.Close()
			}
		}
	}
	if err != nil {
		giveUp(err)
	} else {
		fmt.Fprintf(c, "ranks 0 to %d are processes %s\n", len(all)-1, pids(all))
	}
	stop, done := a.o.Stop, ctx.Done()
	for left := len(all); left > 0; {
		select {
		case p := <-ended:
			left--
			p.over = true
			switch {
			case p.killed && p.died:
				p.err = fmt.Errorf("%w, and killed it after %v", errGivenUp, a.o.grace)
			case p.died:
				giveUp(fmt.Errorf("rank %d: %w", p.rank, p.err))
			case p.failed():
				giveUp(nil)
			}
		case <-stop:
			stop = nil
			for _, p := range all {
				p.tell(stopLine)
			}
		case <-done:
			done = nil
			giveUp(context.Cause(ctx))
		case <-over:
			for _, p := range all {
				p.kill()
			}
		}
	}
	if err != nil {
		return err
	}
	errs := make([]error, len(all))
	for i, p := range all {
		errs[i] = p.err
	}
	return first(errs)
}

func pids(all []*process) string {
	var list []string
	for _, p := range all {
		list = append(list, strconv.Itoa(p.cmd.Process.Pid))
	}
	return strings.Join(list, " ")
}

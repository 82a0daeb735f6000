package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
)

// rankCommand, before a number, makes a rank of this test binary.
const rankCommand = "rank"

// rankMain is the main of a rank. SIGUSR1 makes it panic, SIGUSR2 exit.
func rankMain(arg string) int {
	number, err := strconv.Atoi(arg)
	if err != nil {
		return exitUsage
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		if <-signals == syscall.SIGUSR2 {
			fmt.Println("bye")
			os.Exit(17)
		}
		panic("a test")
	}()
	fs := &killing{FS: storage.OS}
	if os.Getenv(killRank) == arg {
		fmt.Sscan(os.Getenv(childKill), &fs.at)
	}
	code, err := Rank(context.Background(), number, os.Stdin, Options{Out: os.Stdout, FS: fs})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// killRank, in the environment, is the rank that childKill is meant for.
const killRank = "HERD_TEST_KILL_RANK"

// spawn are the options of a run of so many processes.
func spawn(n int) Options {
	return Options{Out: io.Discard, Ranks: n, Command: []string{os.Args[0], rankCommand}}
}

// trap is a log that calls do once, with the processes of the ranks, when a line contains text.
type trap struct {
	text string
	do   func(pids []int)
	once sync.Once
	pids []int
	log  bytes.Buffer
}

func (l *trap) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		if _, list, ok := strings.Cut(line, " are processes "); ok {
			for _, pid := range strings.Fields(list) {
				n, _ := strconv.Atoi(pid)
				l.pids = append(l.pids, n)
			}
		}
		if strings.Contains(line, l.text) {
			l.once.Do(func() { l.do(l.pids) })
		}
	}
	return l.log.Write(b)
}

// ended wants no process of the run to be left, and its lock to be free.
func (l *trap) ended(t *testing.T, out string) {
	t.Helper()
	for rank, pid := range l.pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("rank %d, process %d, is left: %v", rank, pid, err)
		}
	}
	lock, err := storage.Lock(filepath.Join(out, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Unlock(); err != nil {
		t.Error(err)
	}
}

// TestProcesses wants the bits of goroutines from processes.
func TestProcesses(t *testing.T) {
	for _, sets := range short([][]string{
		{"parallel.tensor=2", "train.micro_batch=2"},
		{"parallel.pipeline=2", "train.micro_batch=1", "parallel.recompute=full"},
		{"parallel.zero=0", "train.precision=fp32"},
		{"numerics=canonical", "parallel.pipeline=2"},
	}, 1) {
		t.Run(strings.Join(sets, " "), func(t *testing.T) {
			sets := append(sets, "train.steps=4", "checkpoint.every=2")
			want, out := runOn(t, 4, t.TempDir(), sets...), t.TempDir()
			if err := Run(t.Context(), testJob(t, out, sets...), spawn(4)); err != nil {
				t.Fatal(err)
			}
			readOutcome(t, out).equal(t, want)
		})
	}
}

// TestProcessDies ends a rank in several ways in the middle of a run, wants the error to say which and how, and goes on.
func TestProcessDies(t *testing.T) {
	sets := []string{"train.steps=12", "checkpoint.every=3"}
	want := runOn(t, 3, t.TempDir(), sets...)
	for _, c := range short([]struct {
		rank   int
		signal syscall.Signal
		says   []string // the error
		prints []string // the rank
	}{
		{2, syscall.SIGKILL, []string{"rank 2: its process, ", "was killed by SIGKILL"}, nil},
		{1, syscall.SIGUSR1, []string{"rank 1: its process, ", "exit code 2 (panic: a test)"},
			[]string{"[1] panic: a test\n", "[1] goroutine "}},
		{0, syscall.SIGUSR2, []string{"rank 0: its process, ", "exit code 17"}, nil},
	}, 2) {
		t.Run(c.signal.String(), func(t *testing.T) {
			out := t.TempDir()
			job := testJob(t, out, sets...)
			log := &trap{text: "step 8/12", do: func(pids []int) {
				if err := syscall.Kill(pids[c.rank], c.signal); err != nil {
					t.Error(err)
				}
			}}
			o := spawn(3)
			var printed bytes.Buffer
			o.Out, o.Err = log, &printed
			err := Run(t.Context(), job, o)
			if err == nil || exitCode(err) != exitFailed {
				t.Fatalf("error %v, exit code %d\n%s", err, exitCode(err), log.log.String())
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %v, want %q in it", err, text)
				}
			}
			for _, text := range c.prints {
				if !strings.Contains(printed.String(), text) {
					t.Errorf("printed %q, want %q in it", printed.String(), text)
				}
			}
			log.ended(t, out)
			if err := Run(t.Context(), job, spawn(3)); err != nil {
				t.Fatal(err)
			}
			readOutcome(t, out).equal(t, want)
		})
	}
}

// TestProcessHangs freezes a rank, and wants the error to name it.
func TestProcessHangs(t *testing.T) {
	out := t.TempDir()
	log := &trap{text: "step 3/20", do: func(pids []int) {
		if err := syscall.Kill(pids[1], syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
	}}
	o := spawn(3)
	o.Out, o.stepTimeout, o.grace = log, 300*time.Millisecond, 300*time.Millisecond
	err := Run(t.Context(), testJob(t, out), o)
	if err == nil || !strings.Contains(err.Error(), "rank 1 has not come and does not answer") {
		t.Errorf("error %v\n%s", err, log.log.String())
	}
	log.ended(t, out)
}

// TestProcessesStop asks a run to stop, and goes on.
func TestProcessesStop(t *testing.T) {
	want, out := runOn(t, 2, t.TempDir()), t.TempDir()
	stop := make(chan struct{})
	log := &trap{text: "step 7/20", do: func([]int) { close(stop) }}
	o := spawn(2)
	o.Out, o.Stop = log, stop
	if err := Run(t.Context(), testJob(t, out), o); exitCode(err) != exitStopped ||
		!strings.Contains(err.Error(), "which is saved") {
		t.Fatalf("error %v\n%s", err, log.log.String())
	}
	log.ended(t, out)
	if err := Run(t.Context(), testJob(t, out), spawn(2)); err != nil {
		t.Fatal(err)
	}
	readOutcome(t, out).equal(t, want)
}

// TestProcessesCancelled ends the context of a run.
func TestProcessesCancelled(t *testing.T) {
	out := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no longer wanted")
	log := &trap{text: "step 2/20", do: func([]int) { cancel(why) }}
	o := spawn(2)
	o.Out = log
	if err := Run(ctx, testJob(t, out), o); !errors.Is(err, why) {
		t.Errorf("error %v, want %v", err, why)
	}
	log.ended(t, out)
}

// TestUnequalRanks gives a rank what the others do not have.
func TestUnequalRanks(t *testing.T) {
	for name, c := range map[string]struct {
		change func(job *config.Job)
		want   string
	}{
		"job":    {func(job *config.Job) { job.Optimizer.LR = 1 }, "the job file of rank "},
		"layout": {func(job *config.Job) { job.Parallel.Zero = 0 }, "the job file of rank "},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			job := testJob(t, out)
			o := spawn(3)
			o.setDefaults()
			layout, err := Layout(job, 3)
			if err != nil {
				t.Fatal(err)
			}
			a, err := newAgent(job, layout, o)
			if err != nil {
				t.Fatal(err)
			}
			defer a.close()
			tasks, err := a.assignments(1)
			if err != nil {
				t.Fatal(err)
			}
			c.change(job)
			tasks[1].Job = string(job.YAML())
			err = a.supervise(t.Context(), tasks)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "rank 1 is") {
				t.Errorf("error %v, want %q and rank 1", err, c.want)
			}
		})
	}
}

// TestCommandMissing names the rank that could not be started.
func TestCommandMissing(t *testing.T) {
	o := spawn(2)
	o.Command[0] += "-missing"
	if err := Run(t.Context(), testJob(t, t.TempDir()), o); !errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(err.Error(), "start rank 0") {
		t.Errorf("error %v", err)
	}
}

// TestNoAssignment runs a rank by hand.
func TestNoAssignment(t *testing.T) {
	for _, in := range []string{"", "{}", "no JSON\n", `{"World": {"Rank": 1}}` + "\n"} {
		if _, err := Rank(t.Context(), 0, strings.NewReader(in), Options{}); exitCode(err) != exitUsage ||
			!strings.Contains(err.Error(), "trainer run --nproc") {
			t.Errorf("%q: exit code %d, %v", in, exitCode(err), err)
		}
	}
}

func TestBuildID(t *testing.T) {
	if id := buildID(); len(id) < 10 {
		t.Errorf("this binary is called %q", id)
	}
}

// TestConsole wants a rank's lines above the leader's progress line, and its log as it is.
func TestConsole(t *testing.T) {
	var out bytes.Buffer
	c := &console{out: &out, err: &out, terminal: true}
	fmt.Fprint(c, "step 1\n50%")
	p := c.prefixed(3)
	fmt.Fprint(p, "one\ntw")
	fmt.Fprint(p, "o\n\npanic: x\n\nend")
	p.Close()
	const erase = "\r\x1b[2K"
	line := func(s string) string { return erase + "[3] " + s + "\n50%" }
	want := "step 1\n50%" + line("one") + line("two") + line("") + line("panic: x") + line("") + line("end")
	if out.String() != want || p.lastWords() != " (panic: x)" {
		t.Errorf("%q, want %q; last words %q", out.String(), want, p.lastWords())
	}
}

// TestFirst wants the rank at fault, not those that follow.
func TestFirst(t *testing.T) {
	group := &collective.Error{Err: collective.ErrGone}
	follower := &processError{ending{"gone", exitFailed, true}}
	own := &processError{ending{"own", exitHopeless, false}}
	for i, c := range []struct {
		errs []error
		want string
	}{
		{[]error{nil, nil}, "<nil>"},
		{[]error{group, follower, own}, "rank 2: own"},
		{[]error{fmt.Errorf("x: %w", errGivenUp), nil, own, own}, "rank 2: own"},
		{[]error{own, group}, "own"},
		{[]error{nil, follower, group}, "gone"},
	} {
		if got := fmt.Sprint(first(c.errs)); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
}

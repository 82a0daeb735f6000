package run

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
)

var kills = flag.Int("crash.kills", 10, "how many runs to kill at random moments")

// Environment of a child process, which is this test binary.
const (
	childJob  = "HERD_TEST_JOB"  // text of the job file
	childKill = "HERD_TEST_KILL" // the call of the file system at which the process kills itself; 0: never
)

// childMain is the main of a child process: it runs a job.
func childMain() int {
	job, err := config.Parse("child", []byte(os.Getenv(childJob)), nil)
	if err == nil {
		fs := &killing{FS: storage.OS}
		fmt.Sscan(os.Getenv(childKill), &fs.at)
		err = Run(context.Background(), job, Options{Out: os.Stdout, FS: fs})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// killing is a file system that kills the process, as kill -9 does, at its at-th change.
type killing struct {
	storage.FS
	at    int64
	calls atomic.Int64
}

func (k *killing) count() {
	if k.calls.Add(1) == k.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

func (k *killing) Create(name string) (storage.File, error) {
	k.count()
	f, err := k.FS.Create(name)
	return killingFile{f, k}, err
}

func (k *killing) Rename(from, to string) error {
	k.count()
	return k.FS.Rename(from, to)
}

func (k *killing) Remove(name string) error {
	k.count()
	return k.FS.Remove(name)
}

func (k *killing) SyncDir(name string) error {
	k.count()
	return k.FS.SyncDir(name)
}

type killingFile struct {
	storage.File
	k *killing
}

func (f killingFile) WriteAt(b []byte, off int64) (int, error) {
	f.k.count()
	return f.File.WriteAt(b, off)
}

func (f killingFile) Sync() error {
	f.k.count()
	return f.File.Sync()
}

// TestCrash kills runs with SIGKILL at random moments, every other one inside a save, and continues each to its end: it
// must equal an undisturbed run bit for bit, in weights, moments, losses and the log of samples.
func TestCrash(t *testing.T) {
	want := reference(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	runs := *kills
	if testing.Short() {
		runs = min(runs, 2)
	}
	for i := range runs {
		out := t.TempDir()
		job := testJob(t, out)
		deaths := 0
		for range 1 + rng.IntN(3) {
			if killed(t, job, rng, i%2 == 1) {
				deaths++
			}
		}
		if err := startChild(t, job, 0).Wait(); err != nil {
			t.Fatalf("run %d, after %d deaths: %v", i, deaths, err)
		}
		readOutcome(t, out).equal(t, want)
		if t.Failed() {
			t.Fatalf("run %d differs after %d deaths", i, deaths)
		}
	}
}

// TestKillAtCalls kills the leader, or another writer, at changes that it makes to the file system, one run each,
// from the first save to the pruning after the last: the other rank ends, and the same command goes on to the weights,
// moments, losses and samples of an undisturbed run.
func TestKillAtCalls(t *testing.T) {
	sets := []string{"parallel.zero=1", "train.steps=4", "checkpoint.every=1", "checkpoint.keep=2", "schedule.warmup_steps=1"}
	want := runOn(t, 2, t.TempDir(), sets...)
	stride := 1
	if testing.Short() {
		stride = 61
	} else if *kills <= 10 { // of an everyday test; make crash tries each
		stride = 7
	}
	for rank := range 2 {
		t.Setenv(killRank, fmt.Sprint(rank))
		calls := 1
		for died := true; died; calls += stride {
			t.Setenv(childKill, fmt.Sprint(calls))
			out := t.TempDir()
			job := testJob(t, out, sets...)
			err := Run(t.Context(), job, spawn(2))
			if died = err != nil; died {
				if !strings.Contains(err.Error(), fmt.Sprintf("rank %d", rank)) || !strings.Contains(err.Error(), "SIGKILL") {
					t.Fatalf("call %d of rank %d: %v", calls, rank, err)
				}
				t.Setenv(childKill, "0")
				if err := Run(t.Context(), job, spawn(2)); err != nil {
					t.Fatalf("after call %d of rank %d: %v", calls, rank, err)
				}
			}
			readOutcome(t, out).equal(t, want)
			if t.Failed() {
				t.Fatalf("after call %d of rank %d", calls, rank)
			}
		}
		t.Logf("rank %d changes the file system %d times", rank, calls-stride)
		if calls < 100 {
			t.Errorf("rank %d changed the file system %d times", rank, calls)
		}
	}
}

// killed starts a run and kills it, inside a save or a random while after a random line of its output. It reports
// whether the run died before its end.
func killed(t *testing.T, job *config.Job, rng *rand.Rand, inSave bool) bool {
	t.Helper()
	if inSave {
		return died(t, startChild(t, job, 1+rng.IntN(30)).Wait())
	}
	c := startChild(t, job, 0)
	line, after := rng.IntN(26), time.Duration(rng.IntN(3000))*time.Microsecond
	for c.lines.Scan() {
		if line--; line < 0 {
			<-time.After(after)
			break
		}
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	return died(t, c.Wait())
}

// died says whether a process ended by SIGKILL rather than by itself.
func died(t testing.TB, err error) bool {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

type child struct {
	*exec.Cmd
	lines *bufio.Scanner
}

// Wait reads what is left of the output and waits for the end.
func (p child) Wait() error {
	for p.lines.Scan() {
		continue
	}
	return p.Cmd.Wait()
}

// startChild runs job in a process of its own, which kills itself at a call of the file system.
func startChild(t testing.TB, job *config.Job, at int) child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childJob+"="+string(job.YAML()), fmt.Sprintf("%s=%d", childKill, at))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return child{cmd, bufio.NewScanner(out)}
}

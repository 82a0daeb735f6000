package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestNproc interrupts, kills and continues a run of several processes.
func TestNproc(t *testing.T) {
	job, _, _ := fishJob(t)
	args := []string{"run", "--config", job, "--nproc", "2", "--set", "train.micro_batch=2"}

	// A signal to the agent and, as of a batch system, one to each of the ranks: they stop once.
	code, stderr := signalled(t, "step 5/", func(agent int, ranks []int) {
		for _, pid := range append(ranks, agent) {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}, args...)
	if code != exitStopped || !strings.Contains(stderr, "run --config "+job+" --nproc 2 --set train.micro_batch=2") {
		t.Fatalf("stopped: exit code %d, %s", code, stderr)
	}

	code, stderr = signalled(t, "step 20/", func(agent int, ranks []int) {
		for _, k := range []struct {
			pid    int
			signal syscall.Signal
		}{{ranks[1], syscall.SIGSTOP}, {agent, syscall.SIGINT}, {agent, syscall.SIGTERM}} { // who is frozen cannot stop
			if err := syscall.Kill(k.pid, k.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Error(err)
			}
		}
	}, args...)
	if code != exitStopped || !strings.Contains(stderr, "ending at once") {
		t.Fatalf("stopped twice: exit code %d, %s", code, stderr)
	}

	code, stderr = signalled(t, "step 20/", func(agent int, _ []int) {
		if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}, args...)
	if code != -1 {
		t.Fatalf("killed: exit code %d, %s", code, stderr)
	}

	stdout, stderr := trainer(t, 0, args...)
	if !strings.Contains(stdout, "continuing after step ") || !strings.Contains(stdout, "\nstep 100/100") ||
		!strings.Contains(stdout, "above its plan") || stderr != "" {
		t.Errorf("the run that was continued printed\n%s%s", stdout, stderr)
	}
}

// signalled starts a run of processes, calls do with them once a line of its output begins with at, and returns its
// exit code, -1 for a signal, after the end of all of them.
func signalled(t *testing.T, at string, do func(agent int, ranks []int), args ...string) (code int, stderr string) {
	t.Helper()
	cmd, errs := command(t, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ranks []int
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), at) {
		if _, list, ok := strings.Cut(lines.Text(), " are processes "); ok {
			ranks = make([]int, len(strings.Fields(list)))
			for i, pid := range strings.Fields(list) {
				fmt.Sscan(pid, &ranks[i])
			}
		}
	}
	if len(ranks) == 0 {
		t.Fatal("the run does not say what its processes are")
	}
	do(cmd.Process.Pid, ranks)
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	code = exitOf(t, cmd.Wait())
	for _, pid := range ranks { // of an agent that was killed, others take a moment to die
		for syscall.Kill(pid, 0) == nil {
			runtime.Gosched()
		}
	}
	return code, errs.String()
}

func TestNprocUsage(t *testing.T) {
	job, _, out := fishJob(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--nproc", "2", "--simulate", "2"}, "[nproc simulate]"},
		{[]string{"--nproc", "0"}, "--nproc is 0, want at least 1 rank"},
		{[]string{"--nproc", "3", "--set", "parallel.data=2"}, "2 ranks, but there are 3"},
		{[]string{"--set", "parallel.data=2"}, "(--simulate N or --nproc N trains with N ranks)"},
	} {
		code, stdout, stderr := commandLineOf(append([]string{"run", "--config", job}, c.args...)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d, %q, %q; want 2 and %q", c.args, code, stdout, stderr, c.want)
		}
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a command line that was refused left %s: %v", out, err)
	}
	if code, _, stderr := commandLineOf("rank", "0"); code != exitUsage || !strings.Contains(stderr, "trainer run --nproc") {
		t.Errorf("a rank by hand: exit code %d, %q", code, stderr)
	}
}

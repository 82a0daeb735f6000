package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// childEnv makes this test binary behave like trainer itself.
const childEnv = "HERD_TEST_TRAINER"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// command is a trainer process.
func command(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	return cmd, &stderr
}

// trainer runs a command line to its end and returns what it printed; it must exit with code.
func trainer(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd, errs := command(t, args...)
	out, err := cmd.Output()
	if got := exitOf(t, err); got != code {
		t.Fatalf("trainer %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
	}
	return string(out), errs.String()
}

func exitOf(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return exit.ExitCode()
}

// TestRunAndSignals takes the road of a newcomer with real processes: prepare, train, interrupt, continue, look.
func TestRunAndSignals(t *testing.T) {
	job, data, out := fishJob(t)
	code, stderr := interrupt(t, "step 5/", 1, "run", "--config", job)
	if code != exitStopped || !strings.Contains(stderr, "go on with:\n") || !strings.Contains(stderr, "run --config "+job) {
		t.Fatalf("interrupted once: exit code %d, %s", code, stderr)
	}
	code, stderr = interrupt(t, "step 20/", 2, "run", "--config", job)
	if code != exitStopped {
		t.Fatalf("interrupted twice: exit code %d, %s", code, stderr)
	}
	stdout, _ := trainer(t, 0, "run", "--config", job)
	if !strings.Contains(stdout, "continuing after step ") || !strings.Contains(stdout, "step 100/100") {
		t.Errorf("the run that was continued printed\n%s", stdout)
	}
	if stdout, _ = trainer(t, 0, "run", "--config", job); !strings.Contains(stdout, "is complete") {
		t.Errorf("a complete job, run again, printed\n%s", stdout)
	}
	if stdout, _ = trainer(t, 0, "eval", "--config", job, "--json"); !strings.Contains(stdout, `"perplexity"`) {
		t.Errorf("eval printed %s", stdout)
	}
	args := []string{"generate", "--checkpoint", out, "--prompt", "One fish, ", "--temperature", "0", "--max-tokens", "40"}
	if stdout, _ = trainer(t, 0, args...); !strings.Contains(stdout, "One fish, two fish") {
		t.Errorf("generate printed %q", stdout)
	}
	trainer(t, 0, "checkpoint", "verify", out)
	trainer(t, 0, "data", "verify", data)
	trainer(t, 2, "run", "--config", job, "--set", "train.steps=none")
	if _, stderr = trainer(t, 2, "run", "--config", job, "--set", "model.dim=64"); !strings.Contains(stderr, "model.dim: may not change") {
		t.Errorf("another model on the same output: %s", stderr)
	}
	trainer(t, 1, "eval", "--checkpoint", filepath.Join(t.TempDir(), "nothing"))
	trainer(t, 2, "eval")
}

// fishJob prepares data and a job of 100 steps, and returns the job file, the data and the output directory.
func fishJob(t *testing.T) (job, data, out string) {
	t.Helper()
	dir := t.TempDir()
	text := filepath.Join(dir, "text.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("One fish, two fish, red fish, blue fish.\n", 4000)), 0o644); err != nil {
		t.Fatal(err)
	}
	job, data, out = filepath.Join(dir, "job.yaml"), filepath.Join(dir, "data"), filepath.Join(dir, "out")
	trainer(t, 0, "data", "prepare", text, "--tokenizer", "byte", "--sequence-length", "64", "--output", data)
	err := os.WriteFile(job, []byte(`
version: 1
job: {name: fish, output: `+out+`}
model: {dim: 32, layers: 2, heads: 4, ffn: 64, vocab: 258, max_length: 64, rope_theta: 10000, norm_eps: 1e-5}
tokenizer: {kind: byte}
data: {sequence_length: 64, train: [{path: `+data+`}], validation: {path: `+data+`, every: 50, sequences: 4}}
train: {steps: 100, global_batch: 4, micro_batch: 4}
optimizer: {lr: 1e-2}
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return job, data, out
}

// interrupt starts trainer, sends it SIGINT so many times once a line of its output begins with at, and returns its exit
// code. The second signal may find the process gone.
func interrupt(t *testing.T, at string, signals int, args ...string) (code int, stderr string) {
	t.Helper()
	cmd, errs := command(t, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), at) {
		continue
	}
	for range signals {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	return exitOf(t, cmd.Wait()), errs.String()
}

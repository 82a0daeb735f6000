package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/herdtrain/herd/trainer/config"
)

const debugJob = "../configs/llama3-debug.yaml"

// configCommand runs `trainer config` with args.
func configCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = execute(append([]string{"config"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestConfigValidate(t *testing.T) {
	code, out, errs := configCommand(t, "validate", "--config", debugJob)
	if code != 0 || !strings.HasPrefix(out, debugJob+": good, job llama3-debug, digest ") {
		t.Errorf("exit code %d, output %q, %q", code, out, errs)
	}

	bad := []string{"validate", "--config", debugJob, "--set", "train.steps=0", "--set", "optimizer.lr=high"}
	code, out, errs = configCommand(t, bad...)
	if code != exitUsage || out != "" || !strings.Contains(errs, "--set train.steps: out of range, found 0") ||
		!strings.Contains(errs, `--set optimizer.lr: wrong type, found "high"`) {
		t.Errorf("exit code %d, output %q, %q", code, out, errs)
	}

	code, out, _ = configCommand(t, append(bad, "--json")...)
	var verdict configVerdict
	if err := json.Unmarshal([]byte(out), &verdict); err != nil {
		t.Fatal(err)
	}
	if code != exitUsage || verdict.File != debugJob || len(verdict.Faults) != 2 ||
		verdict.Faults[0].Set != "optimizer.lr" {
		t.Errorf("exit code %d, verdict %+v", code, verdict)
	}
}

func TestConfigExplain(t *testing.T) {
	code, out, errs := configCommand(t, "explain", "--config", debugJob, "--set", "train.steps=500")
	if code != 0 {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	lines := map[string]bool{}
	for line := range strings.Lines(out) {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{
		"model.dim 128 preset llama3-debug",
		"train.steps 500 --set train.steps",
		"train.global_batch 16 " + debugJob + ":10:35",
		"schedule.decay_steps 0 default",
		"parameters 1049728",
		"tokens per step 2048",
		"tokens of the job 1024000",
		"FLOPs per token, causal 5905152",
		"FLOPs per token, full attention 6298368",
		"memory of a rank bytes MiB",
	} {
		if !lines[want] {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}

	_, out, _ = configCommand(t, "explain", "--config", debugJob, "--json")
	var e explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, m := range e.Memory {
		sum += m.Bytes
	}
	if e.Parameters != 1_049_728 || e.Tokens != 819_200 || e.FLOPs.Full != 6_298_368 || len(e.Values) < 50 ||
		sum == 0 || sum != e.MemoryBytes {
		t.Errorf("got %+v", e)
	}
}

func TestConfigDiff(t *testing.T) {
	args := []string{"diff", debugJob, debugJob, "--set", "optimizer.lr=1e-4", "--set", "device=cpu"}
	code, out, errs := configCommand(t, args...)
	if want := "optimizer.lr  0.003  0.0001\ndevice        auto   cpu\n"; code != 0 || out != want {
		t.Errorf("exit code %d, output %q, %q; want %q", code, out, errs, want)
	}
	_, out, _ = configCommand(t, append(args, "--json")...)
	var changes []config.Change
	if err := json.Unmarshal([]byte(out), &changes); err != nil || len(changes) != 2 || changes[1].New != "cpu" {
		t.Errorf("got %+v, %v", changes, err)
	}
	if code, _, _ := configCommand(t, "diff", "-", "-"); code != exitUsage {
		t.Errorf("two jobs from standard input: exit code %d", code)
	}
	if code, _, errs := configCommand(t, "diff", debugJob, "none.yaml"); code != exitUsage {
		t.Errorf("a file that is not there: exit code %d, %s", code, errs)
	}
}

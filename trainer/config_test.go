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

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
		"ranks 1: data 1, tensor 1, pipeline 1, context 1",
		"memory of rank 0 bytes MiB",
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
	for _, m := range e.Memory[0].Uses {
		sum += m.Bytes
	}
	if e.Parameters != 1_049_728 || e.Tokens != 819_200 || e.FLOPs.Full != 6_298_368 || len(e.Values) < 50 ||
		sum == 0 || sum != e.Memory[0].Bytes || len(e.Memory) != 1 {
		t.Errorf("got %+v", e)
	}
}

func TestConfigExplainRanks(t *testing.T) {
	layout := []string{"explain", "--config", debugJob, "--set", "parallel.pipeline=2"}
	_, out, errs := configCommand(t, append(layout, "--ranks", "6", "--json")...)
	var e explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatalf("%v, %s", err, errs)
	}
	if e.Ranks != 6 || e.Layout != "data 3, tensor 1, pipeline 2, context 1" || len(e.Memory) != 2 ||
		e.Memory[1].Rank != 1 || len(e.Warnings) == 0 {
		t.Errorf("got %+v", e)
	}

	svg := filepath.Join(t.TempDir(), "layout.svg")
	code, out, errs := configCommand(t, append(layout, "--draw", "--svg", svg)...)
	for _, want := range []string{"mesh of world size 2", "schedule 1f1b: stages 2, micro-batches 4", "stage 1  ."} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit code %d, no %q in\n%s%s", code, want, out, errs)
		}
	}
	if b, err := os.ReadFile(svg); err != nil || !strings.HasPrefix(string(b), "<svg") {
		t.Errorf("the figure begins %.20q, %v", b, err)
	}

	code, _, errs = configCommand(t, append(layout, "--ranks", "3")...)
	if code != exitUsage || !strings.Contains(errs, "the nearest layout that works on 3 ranks: ") {
		t.Errorf("pipeline 2 on 3 ranks: exit code %d, %s", code, errs)
	}
}

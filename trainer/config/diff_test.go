package config

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage/storagetest"
)

func TestDiff(t *testing.T) {
	a := mustParse(t, base, "model.preset=llama3.1-8b")
	b := mustParse(t, base, "model.preset=llama3-8b", "data.train.1.path=b", "train.steps=20", "data.validation.path=v")
	var got []string
	for _, c := range Diff(a, b) {
		got = append(got, c.String())
	}
	want := []string{
		"model.preset: llama3.1-8b → llama3-8b",
		"model.max_length: 131072 → 8192",
		"model.rope_scaling.factor: 8 → none",
		"model.rope_scaling.low_freq_factor: 1 → none",
		"model.rope_scaling.high_freq_factor: 4 → none",
		"model.rope_scaling.original_length: 8192 → none",
		"train.steps: 10 → 20",
		"data.train.1.path: none → b",
		"data.train.1.weight: none → 1",
		"data.validation.path: none → v",
		"data.validation.every: none → 100",
		"data.validation.sequences: none → 64",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if changes := Diff(a, a); len(changes) != 0 {
		t.Errorf("a job differs from itself: %v", changes)
	}
}

func TestCompareForResume(t *testing.T) {
	saved := mustParse(t, base)
	for set, same := range map[string]bool{
		"train.steps=20": true, "train.micro_batch=2": true, "optimizer.lr=1e-5": true, "optimizer.clip_norm=0": true,
		"optimizer.weight_decay=0": true, "schedule.kind=constant": true, "checkpoint.keep=9": true, "device=cpu": true,
		"telemetry.jsonl=false": true, "data.validation.path=v": true, "job.output=elsewhere": true, "parallel.zero=0": true,

		"job.name=y": false, "job.seed=1": false, "model.dim=64": false, "model.rope_scaling.factor=2": false,
		"tokenizer={kind: bpe, path: t}": false, "data.sequence_length=32": false, "data.train.0.path=b": false,
		"data.train.1.path=b": false, "data.document_mask=false": false, "train.global_batch=8": false,
		"train.precision=fp32": false,
	} {
		changes, err := CompareForResume(saved, mustParse(t, base, set))
		if same && (err != nil || len(changes) == 0) || !same && err == nil {
			t.Errorf("%s: got %v and %v", set, changes, err)
		}
	}
}

func TestCompareForResumeShowsAll(t *testing.T) {
	now := strings.Replace(base, "global_batch: 4", "global_batch: 8", 1)
	_, err := CompareForResume(mustParse(t, base), mustParse(t, now, "model.preset=llama3-26m", "train.steps=99"))
	var faults *Errors
	if !errors.As(err, &faults) {
		t.Fatalf("got %v, want *Errors", err)
	}
	storagetest.Golden(t, "testdata/resume.txt", err.Error()+"\n")
}

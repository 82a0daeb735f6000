package run

import (
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hubModel is a model that transformers saved, and hubJob the settings of a job that begins with it.
const hubModel = "../testdata/hub/tied"

var hubJob = []string{
	"init.from=" + hubModel, "model.dim=48", "model.ffn=112", "model.layers=2", "model.heads=6", "model.kv_heads=2",
	"model.head_dim=16", "model.vocab=260", "model.tied=true", "model.rope_theta=500000", "model.rope_scaling.factor=32",
	"train.steps=4", "train.precision=fp32", "numerics=canonical", "data.validation.every=100",
}

// TestInit begins with weights of another trainer at two layouts, with the bits of a lone rank; with those of its own
// import; and goes on from its own checkpoint, not from init.from again.
func TestInit(t *testing.T) {
	lone := t.TempDir()
	s := stopAt("never")
	if err := Run(t.Context(), testJob(t, lone, hubJob...), Options{Out: s}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.log.String(), "starting fresh: 69552 parameters of "+hubModel) {
		t.Errorf("the log does not say with what it begins:\n%s", s.log.String())
	}
	want := readOutcome(t, lone)
	for _, layout := range short([][]string{
		{"parallel.data=2", "parallel.tensor=2", "parallel.pipeline=2", "parallel.zero=3"},
		{"parallel.tensor=3", "parallel.context=2"},
	}, 1) {
		ranks := 8
		if len(layout) == 2 {
			ranks = 6
		}
		runOn(t, ranks, t.TempDir(), slices.Concat(hubJob, layout)...).equal(t, want)
	}
	fresh := runOn(t, 1, t.TempDir(), slices.Concat(hubJob, []string{`init.from=""`})...)
	if slices.Equal(fresh.lineage, want.lineage) {
		t.Error("the weights made no difference")
	}

	h, err := OpenHub(hubModel)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	imported := filepath.Join(t.TempDir(), "imported")
	dir, err := Import(t.Context(), h, imported, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{imported, dir} {
		runOn(t, 2, t.TempDir(), slices.Concat(hubJob, []string{"init.from=" + from})...).equal(t, want)
	}

	s = stopAt("never")
	more := slices.Concat(hubJob, []string{"train.steps=5", "schedule.kind=constant"})
	if err := Run(t.Context(), testJob(t, lone, more...), Options{Out: s}); err != nil ||
		!strings.Contains(s.log.String(), "continuing after step 4") {
		t.Errorf("%v\n%s", err, s.log.String())
	}
}

func TestInitRefuses(t *testing.T) {
	for want, sets := range map[string][]string{
		"model.ffn is 112 there, 96 in the job file":  {"model.ffn=96"},
		"model.tied is true there, false in the job":  {"model.tied=false"},
		"model.rope_scaling.factor is 32 there, 8 in": {"model.rope_scaling.factor=8"},
		"init.from: nowhere not found":                {"init.from=nowhere"},
	} {
		for _, ranks := range []int{1, 2} {
			err := Run(t.Context(), testJob(t, t.TempDir(), slices.Concat(hubJob, sets)...), Options{Out: io.Discard, Ranks: ranks})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v on %d ranks: %v, want %q", sets, ranks, err, want)
			}
		}
	}
}

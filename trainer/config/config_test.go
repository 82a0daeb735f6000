package config

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage/storagetest"
)

// base is a small good job to change by sets.
const base = `version: 1
job: {name: x, output: runs/x}
model: {preset: llama3-debug}
tokenizer: {kind: byte}
data: {sequence_length: 64, train: [{path: a}]}
train: {steps: 10, global_batch: 4}
`

func mustParse(t *testing.T, text string, sets ...string) *Job {
	t.Helper()
	job, err := Parse("job.yaml", []byte(text), sets)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// TestKeysMatchJob holds the table of keys and the fields of Job together.
func TestKeysMatchJob(t *testing.T) {
	var paths []string
	var visit func(v reflect.Type, path string)
	visit = func(v reflect.Type, path string) {
		for i := range v.NumField() {
			f := v.Field(i)
			if f.Tag.Get("yaml") == "" {
				continue
			}
			p, typ := join(path, f.Tag.Get("yaml")), f.Type
			if typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
				paths = append(paths, p)
			}
			switch {
			case typ.Kind() == reflect.Slice:
				visit(typ.Elem(), p+".N")
			case typ.Kind() == reflect.Pointer:
				visit(typ.Elem(), p)
			case typ.Kind() == reflect.Struct:
				visit(typ, p)
			default:
				paths = append(paths, p)
			}
		}
	}
	visit(reflect.TypeFor[Job](), "")
	var table []string
	for _, k := range keys {
		table = append(table, k.path)
		if n := len(slices.DeleteFunc([]string{k.def, k.follows}, func(s string) bool { return s == "" })); n > 1 ||
			(n == 0) != k.required {
			t.Errorf("%s is not exactly one of required, with a default, and following from others", k.path)
		}
		if k.about == "" || k.rule.want == "" {
			t.Errorf("%s is not explained", k.path)
		}
	}
	if !slices.Equal(paths, table) {
		t.Errorf("keys of Job:\n%v\nkeys of the table:\n%v", paths, table)
	}
	for _, r := range reserved {
		if keyAt[r] != nil {
			t.Errorf("%s is reserved and a key", r)
		}
	}
}

// TestPresets compares sizes with published ones (llama-models, Hugging Face), FLOPs with 6·N + 12·L·H·hd·T.
func TestPresets(t *testing.T) {
	want := []struct {
		name         string
		parameters   int64
		length       int
		causal, full float64 // GFLOP a token, rounded as printed; 0: not printed anywhere
		unit         float64
	}{
		{"llama3-debug", 1_049_728, 128, 0, 0, 0},
		{"llama3-26m", 26_483_200, 512, 0, 0, 0},
		{"llama3-124m", 124_668_672, 1024, 0, 0, 0},
		{"llama2-7b", 6_738_415_616, 8192, 46.09, 52.53, 0.01},
		{"llama2-13b", 13_015_864_320, 4096, 0, 0, 0},
		{"llama2-70b", 68_976_648_192, 8192, 444.50, 476.71, 0.01},
		{"llama3-8b", 8_030_261_248, 8192, 51.472, 57.914, 0.001},
		{"llama3-70b", 70_553_706_496, 8192, 449.23, 481.44, 0.01},
		{"llama3.1-8b", 8_030_261_248, 8192, 51.472, 57.914, 0.001},
		{"llama3.1-70b", 70_553_706_496, 8192, 449.23, 481.44, 0.01},
		{"llama3.1-405b", 405_853_388_800, 8192, 2524.0, 2625.4, 0.1},
		{"llama3.2-1b", 1_235_814_400, 8192, 9.025, 10.636, 0.001},
		{"llama3.2-3b", 3_212_749_824, 8192, 23.504, 27.732, 0.001},
	}
	for _, w := range want {
		job := mustParse(t, base, "model.preset="+w.name)
		c := job.Model.Config()
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
		if got := c.Parameters(); got != w.parameters {
			t.Errorf("%s has %d parameters, want %d", w.name, got, w.parameters)
		}
		full, causal := c.FLOPs(w.length)
		near := func(got, want float64) bool { return got/1e9 > want-0.51*w.unit && got/1e9 < want+0.51*w.unit }
		if w.unit > 0 && (!near(causal, w.causal) || !near(full, w.full)) {
			t.Errorf("%s: %.1f and %.1f FLOPs a token, want %v and %v G", w.name, causal, full, w.causal, w.full)
		}
	}
}

func TestMistral(t *testing.T) {
	c := mustParse(t, base, "model.preset=mistral-7b").Model.Config()
	if got := c.Parameters(); got != 7_241_732_096 {
		t.Errorf("%d parameters", got)
	}
	c.Window = 0
	if full, causal := c.FLOPs(8192); math.Round(full/1e7) != 5555 || math.Round(causal/1e7) != 4911 {
		t.Errorf("without the window %.0f and %.0f FLOPs a token, want 55.55 G and 49.11 G", full, causal)
	}
}

// TestExamples loads each file of configs/; there is one for each preset, of its name.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		names = append(names, name)
		job, err := Load(file, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		if job.Model.Preset != name || job.Job.Name != name || job.Job.Output != "runs/"+name {
			t.Errorf("%s is the job %+v with preset %s", file, job.Job, job.Model.Preset)
		}
		again := mustParse(t, string(job.YAML()))
		if changes := Diff(job, again); len(changes) > 0 || again.Digest() != job.Digest() {
			t.Errorf("%s: YAML makes another job: %v", file, changes)
		}
	}
	want := Presets()
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("configs/ has %v, want %v", names, want)
	}
}

func TestYAMLRoundTrip(t *testing.T) {
	for _, sets := range [][]string{
		nil,
		{"model={dim: 64, layers: 1, heads: 4, ffn: 64, vocab: 300, max_length: 64}"},
		{"model.rope_scaling.factor=2.5", "data.validation.path=v", "data.train.1.path=b", "data.train.1.weight=1e-9"},
		{"model.preset=llama3.1-8b", "model.rope_scaling=null"},
		{`job.output="a \"b\"\n\t\u0001é: #"`, `data.train.0.path="null"`, `telemetry.prometheus="[::1]:80"`},
		{`data.train.0.path="1e3"`, `job.output="- a"`, "job.seed=18446744073709551615",
			"optimizer.lr=0.1234567890123456789"},
	} {
		job := mustParse(t, base, sets...)
		again := mustParse(t, string(job.YAML()))
		if changes := Diff(job, again); len(changes) > 0 || string(again.YAML()) != string(job.YAML()) {
			t.Errorf("%q: YAML makes another job: %v", sets, changes)
		}
		again.origins, again.file = job.origins, job.file
		if !reflect.DeepEqual(job, again) {
			t.Errorf("%q: got %+v, want %+v", sets, again, job)
		}
	}
}

func TestExplain(t *testing.T) {
	text, err := os.ReadFile("../../configs/llama3-debug.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sets := []string{"model.dim=256", "data.train.1={path: runs/data/docs}", "job.seed=7"}
	job, err := Parse("llama3-debug.yaml", text, sets)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, v := range job.Explain() {
		b.WriteString(v.Path + " = " + v.Value + "  # " + v.From + "\n")
	}
	storagetest.Golden(t, "testdata/explain.txt", b.String())
	storagetest.Golden(t, "testdata/resolved.yaml", string(job.YAML()))
}

func TestModelFollowsFromOtherFields(t *testing.T) {
	const own = "model={dim: 64, layers: 1, heads: 4, ffn: 64, vocab: 300, max_length: 64}"
	for _, c := range []struct {
		sets             []string
		headDim, kvHeads int
	}{
		{nil, 32, 2},
		{[]string{"model.dim=256"}, 64, 2},
		{[]string{"model.heads=8"}, 16, 2},
		{[]string{"model.dim=256", "model.head_dim=32"}, 32, 2},
		{[]string{own}, 16, 4},
		{[]string{own, "model.kv_heads=1", "model.head_dim=8"}, 8, 1},
	} {
		m := mustParse(t, base, c.sets...).Model
		if m.HeadDim != c.headDim || m.KVHeads != c.kvHeads {
			t.Errorf("%q: head_dim %d and kv_heads %d, want %d and %d", c.sets, m.HeadDim, m.KVHeads, c.headDim, c.kvHeads)
		}
	}
}

func TestPresetsAreNotShared(t *testing.T) {
	mustParse(t, base, "model.preset=llama3.1-8b", "model.rope_scaling.factor=2")
	if f := mustParse(t, base, "model.preset=llama3.1-8b").Model.RopeScaling.Factor; f != 8 {
		t.Errorf("factor %v after another job changed its own, want 8", f)
	}
}

func TestNumbers(t *testing.T) {
	job := mustParse(t, base, "train.steps=1e6", "train.global_batch=1_024", "optimizer.lr=1", "job.seed=010",
		"parallel.data=1", "checkpoint.every=0")
	if job.Train.Steps != 1e6 || job.Train.GlobalBatch != 1024 || job.Optimizer.LR != 1 || job.Job.Seed != 10 ||
		job.Parallel.Data != 1 || job.Checkpoint.Every != 0 {
		t.Errorf("got %+v", job)
	}
	if d := mustParse(t, base).Parallel.Data; d != 0 || d.String() != "auto" {
		t.Errorf("parallel.data is %v, want auto", d)
	}
}

func TestUnreadable(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	var faults *Errors
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &faults) || faults.ExitCode() != 2 {
		t.Errorf("got %v, want *Errors over fs.ErrNotExist", err)
	}
	if _, err := Load(t.TempDir(), nil); !errors.As(err, &faults) {
		t.Errorf("a directory: got %v, want *Errors", err)
	}
	if _, err := Parse("x", make([]byte, MaxBytes+1), nil); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("got %v, want a bound of the length", err)
	}
}

func TestStandardInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(file, []byte(base+"tran: 1\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer func(stdin *os.File) { os.Stdin = stdin }(os.Stdin)
	os.Stdin = in
	_, err = Load("-", nil)
	if want := "standard input:7:1: unknown key, found tran, want train"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestManyFaults(t *testing.T) {
	var b strings.Builder
	for i := range 20_000 {
		b.WriteString("key" + strings.Repeat("x", i%30) + ": 1\n")
	}
	_, err := Parse("x", []byte(b.String()), nil)
	var faults *Errors
	if !errors.As(err, &faults) || len(faults.List) != maxFaults || faults.More < 19_000 {
		t.Errorf("got %v, want the first %d faults and the number of the others", err, maxFaults)
	}
}

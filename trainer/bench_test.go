package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/herdtrain/herd/trainer/bench"
	"github.com/herdtrain/herd/trainer/config"
)

// benchJSON runs a bench command and reads its JSON into report.
func benchJSON(t *testing.T, line string, report any) {
	t.Helper()
	code, out, errs := commandLineOf(append(strings.Fields("bench "+line), "--duration=2ms", "--json")...)
	if code != 0 {
		t.Fatalf("%s: exit code %d, %s", line, code, errs)
	}
	if err := json.Unmarshal([]byte(out), report); err != nil {
		t.Fatalf("%s: %v in\n%s", line, err, out)
	}
}

func TestBench(t *testing.T) {
	var gemm bench.GemmReport
	benchJSON(t, "gemm --sizes 8,4x5x6 --precision bf16 --threads 1", &gemm)
	if len(gemm.Rows) != 6 || gemm.Precision != "bf16" || gemm.Rows[5].Shape != (bench.Shape{Tokens: 4, Out: 5, In: 6}) {
		t.Errorf("got %+v", gemm)
	}
	var attention bench.AttentionReport
	benchJSON(t, "attention --length 9 --heads 2 --kv-heads 1 --head-dims 4,8 --gemm-size 8", &attention)
	if len(attention.Rows) != 4 || attention.Precision != "fp32" || attention.Length != 9 {
		t.Errorf("got %+v", attention)
	}
	code, out, _ := commandLineOf(strings.Fields("bench gemm --sizes 8 --duration 1ms --kernels go")...)
	if code != 0 || !strings.Contains(out, "cpu, go kernels") || strings.Count(out, "\n") != 6 {
		t.Errorf("exit code %d, table\n%s", code, out)
	}
}

func TestBenchStep(t *testing.T) {
	var r bench.StepReport
	benchJSON(t, "step --preset llama3-debug --micro-batch 2 --length 8 --precision bf16", &r)
	if r.Model != "llama3-debug" || r.MicroBatch != 2 || r.Length != 8 || r.Precision != "bf16" {
		t.Errorf("got %+v", r)
	}
	benchJSON(t, "step --config "+debugJob+" --set model.layers=1 --set train.micro_batch=1 --length 8 --precision fp32", &r)
	job, err := config.Load(debugJob, []string{
		"model.layers=1", "train.micro_batch=1", "data.sequence_length=8", "train.precision=fp32",
	})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := memoryPlan(job)
	if err != nil {
		t.Fatal(err)
	}
	_, uses := plan.Uses()
	want := plan.Bytes() - uses["snapshot"] // nothing is saved
	if r.MicroBatch != 1 || r.Precision != "fp32" || r.MemoryBytes != want {
		t.Errorf("got %+v, want the %d bytes that a run takes", r, want)
	}
}

func TestBenchCheckpoint(t *testing.T) {
	dir := t.TempDir()
	var r bench.CheckpointReport
	code, out, errs := commandLineOf("bench", "checkpoint", "--size", "1", "--rounds", "2", "--dir", dir, "--json")
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	if r.Bytes < 1<<19 || r.Rounds != 2 || r.Save.Median <= 0 || r.LoadShare <= 0 {
		t.Errorf("got %+v", r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestBenchUsage(t *testing.T) {
	for line, want := range map[string]string{
		"gemm --sizes 5x3":                  `size "5x3"`,
		"gemm --precision fp16":             `--precision is "fp16"`,
		"gemm --duration 0s":                "--duration is 0s",
		"attention --threads -1":            "--threads is -1",
		"attention --heads 3":               "3 heads",
		"step --preset llama4":              "llama4",
		"checkpoint --size 0":               "--size is 0",
		"checkpoint --rounds 0":             "--rounds is 0",
		"step --length 5000":                "sequence_length",
		"step --config none.yaml":           "none.yaml",
		"step --config a.yaml --preset b":   "none of the others can be",
		"step --micro-batch -1 --length -1": "train.micro_batch",
	} {
		code, out, errs := commandLineOf(strings.Fields("bench " + line)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: exit code %d, output %q, error %q; want 2 and %q", line, code, out, errs, want)
		}
	}
}

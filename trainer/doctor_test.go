package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

func TestDoctorOfThisMachine(t *testing.T) {
	dir := t.TempDir()
	code, out, _ := commandLineOf("doctor", "--dir", dir, "--json")
	var findings []finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil {
		t.Fatalf("exit code %d: %v in %s", code, err, out)
	}
	failed := 0
	for _, f := range findings {
		if f.Found == "" || (f.Advice == "") != (f.Status == statusOK) {
			t.Errorf("%+v: want a finding, and advice where it is not good", f)
		}
		if f.Status == statusFailed {
			failed++
		}
	}
	if len(findings) != len(machineChecks(dir)) || (code == 0) != (failed == 0) {
		t.Errorf("exit code %d with %d of %d findings failed, from %d checks",
			code, failed, len(findings), len(machineChecks(dir)))
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("doctor left %v, %v", left, err)
	}
}

func TestDoctorReport(t *testing.T) {
	fixed := func(name string, good bool, bad status) check {
		return check{name, func(context.Context) []finding { return judge(name, good, bad, "seen", "do this") }}
	}
	checks := []check{fixed("one", true, ""), fixed("two", false, statusWarning), fixed("three", false, statusFailed)}
	var out bytes.Buffer
	if err := examine(t.Context(), &out, checks[:2], false); err != nil {
		t.Errorf("a warning is an error: %v", err)
	}
	out.Reset()
	err := examine(t.Context(), &out, checks, false)
	if err == nil || err.Error() != "1 of 3 checks failed" {
		t.Errorf("error %v", err)
	}
	want := "✓ one          seen\n! two          seen\n               → do this\n✗ three        seen\n               → do this\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestDoctorDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		stuck := check{"disk", func(context.Context) []finding { <-release; return nil }}
		got := runCheck(t.Context(), stuck)
		if len(got) != 1 || got[0].Status != statusFailed || got[0].Found != "no answer within 30s" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestDoctorOfAJob(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "configs", "llama3-debug.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"bad.yaml": "version: 1\nmodel: {presett: x}\n", "job.yaml": string(text)} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	found := jobCheck("bad.yaml").run(t.Context())
	if len(found) != 1 || found[0].Status != statusFailed || !strings.Contains(found[0].Found, "bad.yaml:2:") {
		t.Errorf("a bad job file: %+v", found)
	}
	status := map[string]status{}
	for _, f := range jobCheck("job.yaml").run(t.Context()) {
		status[f.Check] = f.Status
	}
	if status["job"] != statusOK || status["output"] != statusOK || status["memory plan"] != statusOK ||
		status["tokenizer"] != statusFailed || status["data"] != statusFailed || status["validation"] != statusFailed {
		t.Errorf("a job without its data: %v", status)
	}
}

func TestDoctorOfAJobWithItsData(t *testing.T) {
	t.Chdir(t.TempDir())
	job := `version: 1
job: {name: tiny, output: runs/tiny}
model: {preset: llama3-debug}
tokenizer: {kind: byte}
data:
  sequence_length: 16
  train: [{path: shards, weight: 1}]
  validation: {path: shards, every: 10, sequences: 4}
train: {steps: 10, global_batch: 2, micro_batch: 1}
`
	for name, text := range map[string]string{"text.txt": strings.Repeat("Some text. ", 50), "job.yaml": job} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	code, _, err := commandLineOf("data", "prepare", "text.txt", "--output", "shards",
		"--tokenizer", "byte", "--sequence-length", "16")
	if code != 0 {
		t.Fatal(err)
	}
	found := jobCheck("job.yaml").run(t.Context())
	for _, f := range found {
		if f.Status != statusOK {
			t.Errorf("%+v", f)
		}
	}
	if len(found) != 6 {
		t.Errorf("%d findings: %+v", len(found), found)
	}
}

func TestOutputInTheWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, output := range []string{file, filepath.Join(file, "runs", "x")} {
		if found := checkOutput(output); found[0].Status != statusFailed {
			t.Errorf("%s: %+v", output, found)
		}
	}
}

func TestGroupLimit(t *testing.T) {
	mount := t.TempDir()
	inner := filepath.Join(mount, "job", "step")
	if err := os.MkdirAll(inner, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{inner: "max\n", filepath.Dir(inner): "1000\n", mount: "2000\n"} {
		if err := os.WriteFile(filepath.Join(name, "memory.max"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]int64{"/job/step": 1000, "/job": 1000, "/": 2000, "/elsewhere": 2000} {
		if got := groupLimit(mount, path, "memory.max"); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	if got := groupLimit(t.TempDir(), "/", "memory.max"); got != math.MaxInt64 {
		t.Errorf("without a limit: %d", got)
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 3 << 40: "3.0 TiB", 1 << 60: "1024.0 PiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

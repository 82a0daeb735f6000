package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/herdtrain/herd/dataset"
)

// runData runs a data command and returns its exit code, standard output and standard error.
func runData(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = execute(append([]string{"data"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestDataCommands(t *testing.T) {
	dir := t.TempDir()
	text, out := filepath.Join(dir, "text.txt"), filepath.Join(dir, "out")
	if err := os.WriteFile(text, []byte("some text to train on\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"prepare", "--output", out, "--tokenizer", "byte", "--sequence-length", "8", "--max-bytes", "1KiB", text}
	for _, want := range []string{": ready: 1 documents, 24 tokens, 3 windows of 8 + 1", ": already there: 1 documents"} {
		if code, stdout, stderr := runData(args...); code != 0 || !strings.Contains(stdout, want) {
			t.Fatalf("prepare: exit code %d, %q, %q, want %q", code, stdout, stderr, want)
		}
	}
	if code, stdout, _ := runData("inspect", "--window", "1", out); code != 0 || !strings.Contains(stdout, "t to trai") {
		t.Errorf("inspect: exit code %d, %q", code, stdout)
	}
	var in dataset.Inspection
	code, stdout, _ := runData("inspect", "--json", out)
	if err := json.Unmarshal([]byte(stdout), &in); code != 0 || err != nil || in.Manifest.Tokens != 24 || in.Window != nil {
		t.Errorf("inspect --json: exit code %d, %v, %+v", code, err, in)
	}
	if code, stdout, _ := runData("verify", out); code != 0 || !strings.Contains(stdout, "sound") {
		t.Errorf("verify: exit code %d, %q", code, stdout)
	}
	if err := os.Truncate(filepath.Join(out, "shard-00000.arrow"), 10); err != nil {
		t.Fatal(err)
	}
	var report dataset.Report
	code, stdout, stderr := runData("verify", "--json", out)
	if err := json.Unmarshal([]byte(stdout), &report); code != exitFailed || err != nil || len(report.Faults) != 1 ||
		!strings.Contains(stderr, "shard-00000.arrow") {
		t.Errorf("verify --json: exit code %d, %v, %+v, %q", code, err, report, stderr)
	}
}

func TestDataUsage(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"prepare", exitUsage, "requires at least 1 arg"},
		{"prepare --output " + dir + " x", exitUsage, "sequence-length 0"},
		{"prepare --output " + dir + " --sequence-length 8 --tokenizer word x", exitUsage, `unknown tokenizer "word"`},
		{"prepare --output " + dir + " --max-bytes 1XB x", exitUsage, "want a number of bytes"},
		{"prepare --output " + dir + "/o --sequence-length 8 --tokenizer byte " + dir + "/none", exitFailed, "no such file"},
		{"inspect", exitUsage, "accepts 1 arg"},
		{"inspect " + dir, exitFailed, "did not finish"},
		{"verify " + dir + "/none", exitFailed, "no such file"},
	} {
		code, _, stderr := runData(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d, %q, want %d, %q", c.args, code, stderr, c.code, c.want)
		}
	}
}

func TestByteSize(t *testing.T) {
	for s, want := range map[string]byteSize{"0": 0, "123": 123, "16MiB": 16 << 20, "2 GB": 2e9, "1KiB": 1024, "3TB": 3e12} {
		var b byteSize
		if err := b.Set(s); err != nil || b != want {
			t.Errorf("%s is %d (%v), want %d", s, b, err, want)
		}
	}
	for _, s := range []string{"", "-1", "1.5MB", "MiB", "9999999TiB", "16mb"} {
		if err := new(byteSize).Set(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

package telemetry

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func readLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
}

func TestJSONLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "steps.jsonl")
	synctest.Test(t, func(t *testing.T) { // its clock starts at 2000-01-01
		r := newRecorder(t, Options{JSONL: path, FLOPsFull: 7e6, FLOPsCausal: 6e6, Peak: 400e9})
		s := sample(1)
		s.Loss, s.Applied = math.NaN(), false
		r.Step(s)
		r.Validation(1, 2.5, 1500*time.Millisecond)
	})
	want := []string{
		`{"time":"2000-01-01T00:00:00Z","step":1,"steps":400,"loss":null,"loss_z":null,"grad_norm":0.9,` +
			`"grad_norm_z":null,"lr":0.00287,"tokens":2048,"tokens_seen":2048,"tokens_per_second":20480,"mfu":0.3584,` +
			`"mfu_causal":0.3072,"duration":0.1,"data_wait":0.01,"checkpoint_stall":0,"memory":222298112,"eta":39.9,` +
			`"applied":false}` + "\n",
		`{"time":"2000-01-01T00:00:00Z","step":1,"validation_loss":2.5,"validation_duration":1.5}`,
	}
	got := readLines(t, path)
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d\n got %s\nwant %s", i, got[i], want[i])
		}
	}
}

func TestJSONLinesOfAResumedRun(t *testing.T) {
	for name, torn := range map[string]string{"whole": "", "torn": `{"time":"2026-01-01T00:0`} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "steps.jsonl")
			if err := os.WriteFile(path, []byte("{\"step\":1}\n{\"step\":2}\n"+torn), 0o666); err != nil {
				t.Fatal(err)
			}
			r := newRecorder(t, Options{JSONL: path, Resume: 1})
			r.Step(sample(2))
			got := readLines(t, path)
			if len(got) != 4 || got[1] != "{\"step\":2}\n" || got[2] != "{\"resume\":1}\n" {
				t.Fatalf("got %q, want the two old lines, the resume line, and step 2", got)
			}
			var line struct{ Step int64 }
			if err := json.Unmarshal([]byte(got[3]), &line); err != nil || line.Step != 2 {
				t.Errorf("last line %q: step %d, %v", got[3], line.Step, err)
			}
		})
	}
}

func TestJSONLinesRefuseAnotherFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "steps.jsonl")
	if err := os.WriteFile(path, make([]byte, 70<<10), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := openJSONL(path, 0); err == nil || !strings.Contains(err.Error(), "not a file of JSON lines") {
		t.Errorf("got %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 70<<10 {
		t.Errorf("the file was changed: %v, %v", info.Size(), err)
	}
}

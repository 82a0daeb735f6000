package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzJob reads any bytes as a job file: it never panics, a fault has its place, and a good job survives YAML.
func FuzzJob(f *testing.F) {
	for _, pattern := range []string{"../../configs/*.yaml", "testdata/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			set := ""
			if sets := setsOf(text); len(sets) > 0 {
				set = sets[0]
			}
			f.Add(text, set)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, set string) {
		var sets []string
		if set != "" {
			sets = []string{set}
		}
		job, err := Parse("job.yaml", text, sets)
		if err == nil {
			again, err := Parse("again.yaml", job.YAML(), nil)
			if err != nil {
				t.Fatalf("YAML is no job: %v\n%s", err, job.YAML())
			}
			if changes := Diff(job, again); len(changes) > 0 {
				t.Fatalf("YAML makes another job: %v", changes)
			}
			return
		}
		var faults *Errors
		if !errors.As(err, &faults) || len(faults.List) == 0 {
			t.Fatalf("got %v, want *Errors", err)
		}
		for _, e := range faults.List {
			if e.Set == "" && (e.Line < 1 || e.Column < 1) || e.What == "" {
				t.Errorf("a fault without a place: %v", e)
			}
		}
	})
}

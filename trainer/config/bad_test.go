package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage/storagetest"
)

// setsOf are the sets that the first lines of a test file name, as `# --set PATH=VALUE`.
func setsOf(text []byte) []string {
	var sets []string
	for line := range strings.Lines(string(text)) {
		if set, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "# --set "); ok {
			sets = append(sets, set)
		}
	}
	return sets
}

// TestBadFiles reads testdata/NAME.bad.yaml and compares all faults with NAME.bad.txt.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".bad.yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), text, setsOf(text))
			var faults *Errors
			if !errors.As(err, &faults) || len(faults.Unwrap()) == 0 {
				t.Fatalf("got %v, want *Errors", err)
			}
			storagetest.Golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

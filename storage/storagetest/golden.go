package storagetest

import (
	"flag"
	"os"
	"testing"
)

// Rewrite is the flag -rewrite of a test binary: write the golden files anew from what the code does.
var Rewrite = flag.Bool("rewrite", false, "write the golden files anew from what the code does")

// Golden compares got with the golden file at path, or writes it under -rewrite.
func Golden(t *testing.T, path, got string) {
	t.Helper()
	if *Rewrite {
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; if that is meant, go test -rewrite writes it anew\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

package parallel

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

var rewrite = flag.Bool("rewrite", false, "write the expected texts anew from what the code does")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares got with the file at path, or writes it under -rewrite.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *rewrite {
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
		t.Errorf("%s differs; go test -rewrite writes it anew\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

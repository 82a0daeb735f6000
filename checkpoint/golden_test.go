package checkpoint

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/herdtrain/herd/storage"
)

var rewrite = flag.Bool("rewrite", false, "write testdata of this build's version again")

// Checkpoints of every version stay readable. One that is there is never written again, except by the version's own
// author before its first release.
func TestGolden(t *testing.T) {
	root := filepath.Join("testdata", "v1")
	if *rewrite {
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		save(t, storage.OS, root, 20, save(t, storage.OS, root, 10, Ref{}))
	}
	head, err := FileCommitter{storage.OS, root}.Latest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, rejected, err := Resolve(ctx, storage.OS, root, head, nil)
	if err != nil || rejected != nil {
		t.Fatal(err, rejected)
	}
	parent, err := Open(ctx, storage.OS, filepath.Join(root, c.State().Parent.Name))
	if err != nil {
		t.Fatal(err)
	}
	if err := same(parent, Ref{}); err != nil {
		t.Error(err)
	}
	if err := same(c, parent.Ref()); err != nil {
		t.Error(err)
	}
	// Independent of the code: what docs/format/checkpoint.md says.
	index, err := os.ReadFile(filepath.Join(c.Dir(), "data-00000.index"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(index[:16]); got != "herdindx\x01\x00\x00\x00\x04\x00\x00\x00" {
		t.Errorf("the index begins with %q", got)
	}
	data, err := os.ReadFile(filepath.Join(c.Dir(), "data-00000.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(data[4:8]); got != "\x00\x02\xa0\x41" { // float32 20 + 1/1024
		t.Errorf("bytes 4 to 7 of the data are %q", got)
	}
}

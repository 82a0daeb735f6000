package checkpoint

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// Checkpoints of every version stay readable. One that is there is never written again, except by the version's own
// author before its first release.
func TestGolden(t *testing.T) {
	root := filepath.Join("testdata", "v1")
	if *storagetest.Rewrite {
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

// The same state, each tensor cut over three writers: see deal.
func TestGoldenSlices(t *testing.T) {
	root := filepath.Join("testdata", "v1-slices")
	if *storagetest.Rewrite {
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		if _, err := saveShards(storage.OS, root, sampleState(20, Ref{}), deal(sampleTensors(20), 3)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(ctx, storage.OS, filepath.Join(root, "step-00000020.gen-3.a-1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := same(c, Ref{}); err != nil {
		t.Error(err)
	}
	if err := c.Verify(ctx, nil); err != nil {
		t.Error(err)
	}
	embed, _ := c.Info("model.embed.weight")
	want := []Slice{
		{0, Box{[]int64{0, 0}, []int64{1, 5}}, 0, 20, embed.Slices[0].CRC32C},
		{0, Box{[]int64{1, 0}, []int64{1, 1}}, 4096, 4, embed.Slices[1].CRC32C},
		{1, Box{[]int64{1, 1}, []int64{1, 4}}, 0, 16, embed.Slices[2].CRC32C},
		{1, Box{[]int64{2, 0}, []int64{1, 3}}, 4096, 12, embed.Slices[3].CRC32C},
		{2, Box{[]int64{2, 3}, []int64{1, 2}}, 0, 8, embed.Slices[4].CRC32C},
		{2, Box{[]int64{3, 0}, []int64{1, 5}}, 4096, 20, embed.Slices[5].CRC32C},
	}
	if !reflect.DeepEqual(embed.Slices, want) {
		t.Errorf("slices %v, want %v", embed.Slices, want)
	}
	// Independent of the code: what docs/format/checkpoint.md says.
	data, err := os.ReadFile(filepath.Join(c.Dir(), "data-00001.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(data[4096:4100]); got != "\x00\x14\xa0\x41" { // element [2 0]: float32 20 + 10/1024
		t.Errorf("bytes 4096 to 4099 of the data of writer 1 are %q", got)
	}
}

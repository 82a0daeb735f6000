package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// Checkpoints of every version stay readable. One that is there is never written again, except by the version's own
// author before its first release. A directory's version is that of its indexes.
func TestGolden(t *testing.T) {
	for v := byte(1); v <= 2; v++ {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { testGolden(t, v) })
	}
}

func testGolden(t *testing.T, version byte) {
	root := filepath.Join("testdata", fmt.Sprintf("v%d", version))
	if *storagetest.Rewrite && uint32(version) == indexForm.version {
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
	for c, parent := range map[*Checkpoint]Ref{parent: {}, c: parent.Ref()} {
		if err := sameAs(c, goldenState(version, c.State().Step, parent)); err != nil {
			t.Error(err)
		}
	}
	// Independent of the code: what docs/format/checkpoint.md says.
	index, err := os.ReadFile(filepath.Join(c.Dir(), "data-00000.index"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(index[:16]); got != "herdindx"+string(version)+"\x00\x00\x00\x04\x00\x00\x00" {
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

// goldenState is what a checkpoint of that version says.
func goldenState(version byte, step int64, parent Ref) State {
	st := sampleState(step, parent)
	if version == 1 {
		st.ValidationLoss = 0 // there was none
	}
	return st
}

// The same state, each tensor cut over three writers: see deal.
func TestGoldenSlices(t *testing.T) {
	for v := uint32(1); v <= 2; v++ {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { testGoldenSlices(t, v) })
	}
}

func testGoldenSlices(t *testing.T, version uint32) {
	root := filepath.Join("testdata", fmt.Sprintf("v%d-slices", version))
	if *storagetest.Rewrite && version == indexForm.version {
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
	if err := sameAs(c, goldenState(byte(version), 20, Ref{})); err != nil {
		t.Error(err)
	}
	if err := c.Verify(ctx, nil); err != nil {
		t.Error(err)
	}
	embed, _ := c.Info("model.embed.weight")
	slice := func(i, writer int, row, column, columns, begin int64) Slice {
		chunk := int64(chunkSize)
		if version == 1 {
			chunk = 4 * columns
		}
		return Slice{writer, Box{[]int64{row, column}, []int64{1, columns}}, begin, 4 * columns, chunk, embed.Slices[i].CRC32C}
	}
	want := []Slice{
		slice(0, 0, 0, 0, 5, 0), slice(1, 0, 1, 0, 1, 4096),
		slice(2, 1, 1, 1, 4, 0), slice(3, 1, 2, 0, 3, 4096),
		slice(4, 2, 2, 3, 2, 0), slice(5, 2, 3, 0, 5, 4096),
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

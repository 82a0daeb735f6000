package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"

	"github.com/herdtrain/herd/storage"
)

// The files of a checkpoint directory.
const (
	manifestName = "manifest"
	dataName     = "data-%05d.bin"   // of a writer
	indexName    = "data-%05d.index" // of a writer
	maxWriters   = 100_000
)

// latestName is the file beside the checkpoint directories that names the committed one.
const latestName = "latest"

// tmpSuffix is what storage.WriteFileFS appends while it writes.
const tmpSuffix = ".tmp"

// id is the identity of a checkpoint, and its directory's name.
type id struct{ step, generation, attempt int64 }

func (i id) String() string {
	return fmt.Sprintf("step-%08d.gen-%d.a-%d", i.step, i.generation, i.attempt)
}

// compare orders saves in time: a later generation is later, whatever its step.
func (i id) compare(o id) int {
	return cmp.Or(cmp.Compare(i.generation, o.generation), cmp.Compare(i.step, o.step),
		cmp.Compare(i.attempt, o.attempt))
}

func (i id) valid() bool { return i.step >= 0 && i.generation >= 1 && i.attempt >= 1 }

// parseID is the inverse of String, and nothing more lenient.
func parseID(name string) (id, bool) {
	var i id
	n, err := fmt.Sscanf(name, "step-%d.gen-%d.a-%d", &i.step, &i.generation, &i.attempt)
	return i, err == nil && n == 3 && i.valid() && i.String() == name
}

// directories lists the checkpoint directories of root in the order of names. A root that is not there has none.
func directories(fsys storage.FS, root string) ([]id, error) {
	entries, err := fsys.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []id
	for _, e := range entries {
		if i, ok := parseID(e.Name()); ok && e.IsDir() {
			list = append(list, i)
		}
	}
	return list, nil
}

// NextGeneration is one more than the highest generation of which root holds any trace, or of the checkpoints elsewhere; 1
// if there is none.
func NextGeneration(fsys storage.FS, root string, elsewhere ...string) (int64, error) {
	list, err := directories(fsys, root)
	if err != nil {
		return 0, fmt.Errorf("next generation: %w", err)
	}
	highest := int64(0)
	for _, i := range list {
		highest = max(highest, i.generation)
	}
	for _, name := range elsewhere {
		i, _ := parseID(name)
		highest = max(highest, i.generation)
	}
	return highest + 1, nil
}

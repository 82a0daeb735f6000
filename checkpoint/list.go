package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/herdtrain/herd/storage"
)

// Status is how far a checkpoint directory has come.
type Status string

const (
	Committed  Status = "committed"  // latest names it or a descendant
	Sealed     Status = "sealed"     // whole, but not committed
	Unfinished Status = "unfinished" // no manifest: being written, or abandoned
	Damaged    Status = "damaged"    // Err says how
)

// Entry is a checkpoint directory in a List.
type Entry struct {
	Name       string    `json:"name"`
	Step       int64     `json:"step"`
	Generation int64     `json:"generation"`
	Attempt    int64     `json:"attempt"`
	Status     Status    `json:"status"`
	Latest     bool      `json:"latest"` // the committed one
	Bytes      int64     `json:"bytes"`  // 0 unless the manifest can be read, as with the fields below
	Created    time.Time `json:"created,omitzero"`
	Parent     string    `json:"parent,omitempty"`

	ValidationLoss float64 `json:"validation_loss,omitzero"` // 0: not measured
	Err            error   `json:"-"`                        // why it is Damaged or Unfinished
}

// List describes the checkpoint directories of root in the order of names, as Open sees them: tensors are not read.
// head is what is committed, or zero.
func List(ctx context.Context, fsys storage.FS, root string, head Ref) ([]Entry, error) {
	committed := map[string]bool{}
	for l := range lineage(ctx, fsys, root, head) {
		committed[l.name] = true
	}
	ids, err := directories(fsys, root)
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var list []Entry
	for _, i := range ids {
		e := Entry{Name: i.String(), Step: i.step, Generation: i.generation, Attempt: i.attempt, Status: Sealed}
		e.Latest = e.Name == head.Name
		c, err := Open(ctx, fsys, filepath.Join(root, e.Name))
		switch {
		case err == nil:
			e.Bytes, e.Created, e.Parent = c.Bytes(), c.state.Created, c.state.Parent.Name
			e.ValidationLoss = c.state.ValidationLoss
			if committed[e.Name] {
				e.Status = Committed
			}
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, ErrNotFound):
			e.Status, e.Err = Unfinished, err
		default:
			e.Status, e.Err = Damaged, err
		}
		if e.Latest && e.Err == nil && c.digest != head.Manifest {
			e.Status, e.Err = Damaged, damaged(c.dir, "its manifest is %v, want %v", c.digest, head.Manifest)
		}
		list = append(list, e)
	}
	return list, nil
}

// Locate finds what a person means by a path: a run's output directory, its folder of checkpoints, or one checkpoint.
// It returns the folder of checkpoints, and for one checkpoint also its directory.
func Locate(fsys storage.FS, path string) (root, dir string, err error) {
	is := func(elem ...string) bool {
		_, err := fsys.Stat(filepath.Join(append([]string{path}, elem...)...))
		return err == nil
	}
	if !is() {
		return "", "", fmt.Errorf("%s %w", path, ErrNotFound)
	}
	ids, err := directories(fsys, path)
	if err != nil {
		return "", "", err
	}
	_, named := parseID(filepath.Base(path))
	switch {
	case named || is(manifestName):
		return filepath.Dir(path), path, nil
	case is(Folder):
		return filepath.Join(path, Folder), "", nil
	case len(ids) > 0 || is(latestName) || filepath.Base(path) == Folder:
		return path, "", nil
	}
	return "", "", fmt.Errorf("checkpoints in %s %w: name a run's output directory or one checkpoint", path, ErrNotFound)
}

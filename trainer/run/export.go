package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
)

// Exporting is what Export writes and how.
type Exporting struct {
	Format    llama.Format
	DType     string // F32, BF16, F16
	ShardSize int64  // bytes of a file of tensors, at most; 0: no limit
	// Files is a directory from which tokenizer and generation files are carried along; "": of init.from, and of an
	// import, what is there.
	Files    string
	Progress func(done, total int64) // of bytes, or nil
}

// carried are the files of a model's directory that go along with its weights, by the beginnings of their names.
var carried = []string{
	"tokenizer", "special_tokens_map.json", "added_tokens.json", "vocab.", "merges.txt", "chat_template", "generation_config.json",
}

// Export writes the weights of a checkpoint into dir, which is made or empty, in a foreign format, and what belongs to
// them: the configuration last, so that what a crash leaves is never taken for a model.
func Export(ctx context.Context, c *checkpoint.Checkpoint, dir string, e Exporting) error {
	job, err := config.Parse(c.Dir()+" (its job file)", []byte(c.State().Config), nil)
	if err != nil {
		return err
	}
	model := job.Model.Config()
	tokens := llama.Tokens{BOS: -1, EOS: -1}
	if tok, err := openTokenizer(job); err == nil { // it may be on another machine
		tokens = llama.Tokens{BOS: tok.BOS(), EOS: tok.EOS()}
	}
	name, about := hubConfigName, model.HubConfig(e.DType, tokens)
	if e.Format == llama.Meta {
		name = metaParamsName
		if about, err = model.MetaParams(); err != nil {
			return err
		}
	}
	if err := emptyDir(dir); err != nil {
		return err
	}
	if err := carry(job, c, dir, e.Files, tokens); err != nil {
		return err
	}
	list, params := []checkpoint.SafeTensor{}, map[string]llama.Foreign{}
	for _, f := range model.In(e.Format) {
		list = append(list, checkpoint.SafeTensor{Name: f.Foreign, Shape: f.Shape})
		params[f.Foreign] = f
	}
	err = checkpoint.WriteSafeTensors(ctx, storage.OS, dir, list, checkpoint.SafeOptions{
		Stem: e.Format.Stem(), DType: e.DType, ShardSize: e.ShardSize, Progress: e.Progress,
		Read: func(ctx context.Context, t checkpoint.SafeTensor, first int64, dst []byte) error {
			f := params[t.Name]
			return c.ReadParts(ctx, f.Name, foreignParts(f, first, dst)...)
		},
	})
	if err != nil {
		return err
	}
	return storage.WriteFile(filepath.Join(dir, name), about)
}

// foreignParts are the parts of a parameter, in fp32, that elements of its foreign form from first on are, as many as dst
// has room for.
func foreignParts(f llama.Foreign, first int64, dst []byte) (parts []checkpoint.Part) {
	n := int64(len(dst) / 4)
	if f.HeadDim == 0 {
		return checkpoint.Whole(f.Shape).Parts(first, first+n, dst)
	}
	for cols := f.Shape[1]; n > 0; {
		row, col := first/cols, first%cols
		width := min(cols-col, n)
		parts = append(parts, checkpoint.Part{
			Box: checkpoint.Box{Offset: []int64{f.Row(row), col}, Extent: []int64{1, width}}, Data: dst[:4*width],
		})
		dst, first, n = dst[4*width:], first+width, n-width
	}
	return parts
}

// emptyDir makes dir, or wants it to be empty.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return storage.MkdirAll(storage.OS, dir)
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s holds %s: want an empty directory, or none", dir, entries[0].Name())
	}
	return nil
}

// carry copies the files that belong to a model's weights, and writes a generation configuration if none is among them.
func carry(job *config.Job, c *checkpoint.Checkpoint, dir, from string, t llama.Tokens) error {
	sources := []string{from}
	if from == "" {
		sources = []string{filepath.Join(c.Dir(), "..", "..", HubFolder), job.Init.From}
	} else if _, err := os.Stat(from); err != nil {
		return err
	}
	var copied []string
	for _, source := range sources {
		if source == "" || len(copied) > 0 {
			continue
		}
		var err error
		if copied, err = copyBelonging(source, dir); err != nil {
			return err
		}
	}
	if path := job.Tokenizer.Path; path != "" && !slices.ContainsFunc(copied, func(s string) bool { return strings.HasPrefix(s, "tokenizer.") }) {
		if err := copyFile(path, filepath.Join(dir, "tokenizer.model")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if name := "generation_config.json"; !slices.Contains(copied, name) {
		return storage.WriteFile(filepath.Join(dir, name), t.GenerationConfig())
	}
	return nil
}

// HubFolder is the name, in the output directory of an import, of the folder with the files that were carried along.
const HubFolder = "hub"

func belongs(e fs.DirEntry) bool {
	for _, prefix := range carried {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			return true
		}
	}
	return false
}

// maxCarried bounds a file that is carried along, in bytes.
const maxCarried = 256 << 20

func copyFile(from, to string) error {
	b, err := storage.ReadFile(storage.OS, from, maxCarried)
	if err != nil {
		return err
	}
	return storage.WriteFile(to, b)
}

// copyBelonging copies the files that belong to a model's weights and returns their names. A directory that is not there
// has none.
func copyBelonging(from, to string) (names []string, err error) {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if err != nil || !belongs(e) {
			continue
		}
		names = append(names, e.Name())
		if err = storage.MkdirAll(storage.OS, to); err == nil {
			err = copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		}
	}
	return names, err
}

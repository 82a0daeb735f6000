package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
)

// tensors is where a model's tensors are read from: a checkpoint, or a hub.
type tensors interface {
	Info(name string) (checkpoint.Info, bool)
	ReadParts(ctx context.Context, name string, parts ...checkpoint.Part) error
}

// Hub is a directory of a model in a foreign format, opened for reading: its tensors are there under the names and in the
// order of parameters, in fp32.
type Hub struct {
	Dir    string
	Format llama.Format
	Model  llama.Config

	files *checkpoint.SafeTensors
	names map[string]llama.Foreign // by parameter
}

// What describes a model in each format.
const hubConfigName, metaParamsName = "config.json", "params.json"

// IsHub says whether a directory holds a model in a foreign format.
func IsHub(dir string) bool {
	for _, name := range []string{hubConfigName, metaParamsName} {
		if _, err := storage.OS.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// OpenHub opens a directory of Hugging Face's format, with a config.json, or of Meta's, with a params.json. Every
// parameter must be there with its shape, and nothing else.
func OpenHub(dir string) (*Hub, error) {
	h := &Hub{Dir: dir, Format: llama.HuggingFace}
	name, parse := hubConfigName, llama.ParseHubConfig
	if _, err := storage.OS.Stat(filepath.Join(dir, name)); err != nil {
		h.Format, name, parse = llama.Meta, metaParamsName, llama.ParseMetaParams
	}
	const most = 1 << 20
	text, err := storage.ReadFile(storage.OS, filepath.Join(dir, name), most)
	if err != nil {
		return nil, fmt.Errorf("a model of Hugging Face has a %s, one of Meta a %s: %w", hubConfigName, metaParamsName, err)
	}
	if h.Model, err = parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	if _, err := importJob(h.Model, "out", dataset.KindByte, ""); err != nil {
		return nil, fmt.Errorf("%s describes no model that can be trained: %w", filepath.Join(dir, name), err)
	}
	if h.files, err = checkpoint.OpenSafeTensors(storage.OS, dir, h.Format.Stem()); err != nil {
		return nil, err
	}
	if err := h.match(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), h.Close())
	}
	return h, nil
}

// Close closes the files.
func (h *Hub) Close() error { return h.files.Close() }

// match finds each parameter's tensor.
func (h *Hub) match() error {
	_, head := h.files.Info(h.Format.Head())
	if h.Format == llama.Meta {
		h.Model.Tied = !head // params.json does not say
	}
	h.names = map[string]llama.Foreign{}
	known := map[string]bool{}
	var wrong []string
	for _, f := range h.Model.In(h.Format) {
		h.names[f.Name], known[f.Foreign] = f, true
		switch t, ok := h.files.Info(f.Foreign); {
		case !ok:
			wrong = append(wrong, f.Foreign+" is missing")
		case !slices.Equal(t.Shape, f.Shape):
			wrong = append(wrong, fmt.Sprintf("%s has shape %v, want %v", f.Foreign, t.Shape, f.Shape))
		}
	}
	for _, t := range h.files.Tensors() {
		again := h.Model.Tied && t.Name == h.Format.Head()
		if !known[t.Name] && !again && !h.Format.Ignored(t.Name) {
			wrong = append(wrong, t.Name+" is no tensor of this model")
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("its tensors are not those of its configuration: %s", firstFew(wrong))
	}
	return nil
}

// Info implements tensors.
func (h *Hub) Info(name string) (checkpoint.Info, bool) {
	f, ok := h.names[name]
	return checkpoint.Info{Name: name, DType: tensor.F32, Shape: f.Shape}, ok
}

// ReadParts implements tensors.
func (h *Hub) ReadParts(ctx context.Context, name string, parts ...checkpoint.Part) error {
	f := h.names[name]
	for _, p := range parts {
		cols, at, width := f.Shape[len(f.Shape)-1], p.Box.Offset[len(f.Shape)-1], p.Box.Extent[len(f.Shape)-1]
		first, rows := int64(0), int64(1)
		if len(f.Shape) == 2 {
			first, rows = p.Box.Offset[0], p.Box.Extent[0]
		}
		if width == cols && f.HeadDim == 0 { // consecutive
			first, at, rows, width = 0, first*cols+at, 1, rows*cols
		}
		for i := range rows {
			from := f.ForeignRow(first+i)*cols + at
			if err := h.files.ReadF32(ctx, f.Foreign, from, p.Data[4*width*i:][:4*width]); err != nil {
				return err
			}
		}
	}
	return nil
}

// weights opens what init.from names: a hub, a checkpoint, or a run's newest checkpoint. The caller closes it.
func weights(ctx context.Context, fsys storage.FS, path string) (t tensors, model llama.Config, close func() error, err error) {
	if IsHub(path) {
		h, err := OpenHub(path)
		if err != nil {
			return nil, model, nil, err
		}
		return h, h.Model, h.Close, nil
	}
	none := func() error { return nil }
	root, dir, err := checkpoint.Locate(fsys, filepath.Clean(path))
	if err != nil {
		return nil, model, nil, err
	}
	if dir == "" {
		head, err := checkpoint.FileCommitter{FS: fsys, Root: root}.Latest(ctx)
		if err != nil {
			return nil, model, nil, err
		}
		dir = filepath.Join(root, head.Name)
	}
	c, err := checkpoint.Open(ctx, fsys, dir)
	if err != nil {
		return nil, model, nil, err
	}
	job, err := config.Parse(dir+" (its job file)", []byte(c.State().Config), nil)
	if err != nil {
		return nil, model, nil, err
	}
	return c, job.Model.Config(), none, nil
}

// initFrom begins with the weights that job.init names.
func (w *worker) initFrom(ctx context.Context) (err error) {
	from := w.job.Init.From
	t, model, close, err := weights(ctx, w.o.FS, from)
	if err != nil {
		return fmt.Errorf("init.from: %w", err)
	}
	defer func() { err = errors.Join(err, close()) }()
	mine := w.job.Model.Config()
	model.MaxLength = mine.MaxLength // another length is no other model
	if changes := config.DiffModels(config.ModelOf(model), config.ModelOf(mine)); len(changes) > 0 {
		var list []string
		for _, c := range changes {
			list = append(list, fmt.Sprintf("%s is %s there, %s in the job file", c.Path, c.Old, c.New))
		}
		return fmt.Errorf("init.from: %s is another model: %s", from, firstFew(list))
	}
	masters := slices.DeleteFunc(state(w.stage.Params, w.opt), func(p stored) bool { return p.name != p.param.Name })
	if err := loadTensors(ctx, t, w.dev, w.q, masters); err != nil {
		return fmt.Errorf("init.from: %w", err)
	}
	return nil
}

package run

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/llama"
)

// importPiece is how many bytes of a tensor are read and written at a time, or one row.
const importPiece = 32 << 20

// importedJob is the job file of an imported checkpoint, but for its model: what a run needs and an import does not know.
const importedJob = `version: 1
job: {name: %q, output: %q}
model: {preset: llama3-debug}
tokenizer: {kind: %s, path: %q}
data: {sequence_length: 1, train: [{path: none}]}
train: {steps: 1, global_batch: 1, micro_batch: 1, precision: fp32}
`

// importedLength bounds the sequence_length of an imported job file.
const importedLength = 2048

// importJob is the job file of an imported model, whose sizes are within the bounds of a job file.
func importJob(model llama.Config, out, kind, tokenizer string) (*config.Job, error) {
	job, err := config.Parse("its job file", fmt.Appendf(nil, importedJob, "imported", out, kind, tokenizer), nil)
	if err != nil {
		return nil, err
	}
	job.Model = config.ModelOf(model)
	job.Data.SequenceLength = min(model.MaxLength, importedLength)
	return config.Parse("its job file", job.YAML(), nil)
}

// Import writes the weights of a hub as a checkpoint of step 0, without moments, below the output directory out, and
// commits it. tokenizer is the path of its rank file, "" for bytes. It calls progress, if not nil, with bytes.
func Import(ctx context.Context, h *Hub, out, tokenizer, version string, progress func(done, total int64)) (
	dir string, err error) {
	kind := dataset.KindByte
	if tokenizer != "" {
		kind = dataset.KindBPE
	}
	tok, err := dataset.OpenTokenizer(kind, tokenizer)
	if err != nil {
		return "", err
	}
	if tok.Vocab() > h.Model.Vocab {
		return "", fmt.Errorf("tokenizer %s has %d tokens, the model of %s has %d", tokenizer, tok.Vocab(), h.Dir, h.Model.Vocab)
	}
	job, err := importJob(h.Model, out, kind, tokenizer)
	if err != nil {
		return "", fmt.Errorf("%s: %w", h.Dir, err)
	}
	st := checkpoint.State{
		Generation: 1, Incarnation: incarnation(), JobName: job.Job.Name, JobDigest: identity(job), Config: string(job.YAML()),
		TokenizerDigest: tok.Digest(), Seed: job.Job.Seed, RNGPolicy: rngPolicy, CodeVersion: version,
		DTypePolicy: "fp32 weights from " + string(h.Format) + " format, no moments",
		Layout:      checkpoint.Layout{Data: 1, Tensor: 1, Pipeline: 1, Context: 1},
	}
	root := filepath.Join(out, checkpoint.Folder)
	if dir, err = checkpoint.Create(storage.OS, root, st); err != nil {
		return "", err
	}
	var ref checkpoint.Ref
	files, err := checkpoint.WriteStream(ctx, storage.OS, dir, 0, h.pieces(ctx, progress))
	if err == nil {
		ref, err = checkpoint.Seal(ctx, storage.OS, dir, st, []checkpoint.Files{files})
	}
	if err != nil {
		checkpoint.Abandon(storage.OS, dir)
		return "", err
	}
	if _, err := copyBelonging(h.Dir, filepath.Join(out, HubFolder)); err != nil {
		return "", err
	}
	return dir, checkpoint.FileCommitter{FS: storage.OS, Root: root}.Commit(ctx, ref)
}

// pieces reads all parameters, some rows at a time.
func (h *Hub) pieces(ctx context.Context, progress func(done, total int64)) iter.Seq2[checkpoint.Tensor, error] {
	return func(yield func(checkpoint.Tensor, error) bool) {
		done, total := int64(0), 4*h.Model.Parameters()
		var buf []byte
		for _, f := range h.Model.In(h.Format) {
			row := 4 * f.Shape[len(f.Shape)-1]
			rows := 4 * int64(f.Len()) / row
			for lo, n := int64(0), max(1, importPiece/row); lo < rows; lo += n {
				box := checkpoint.Whole(f.Shape)
				if len(f.Shape) == 2 {
					box = checkpoint.Box{Offset: []int64{lo, 0}, Extent: []int64{min(n, rows-lo), f.Shape[1]}}
				}
				if size := int(4 * box.Elements()); cap(buf) < size {
					buf = make([]byte, size)
				}
				t := checkpoint.Tensor{Name: f.Name, DType: tensor.F32, Shape: f.Shape, Box: box, Data: buf[:4*box.Elements()]}
				err := h.ReadParts(ctx, f.Name, checkpoint.Part{Box: box, Data: t.Data})
				if err == nil {
					err = h.sameHead(ctx, f.Name, box, t.Data)
				}
				if !yield(t, err) || err != nil {
					return
				}
				done += int64(len(t.Data))
				if progress != nil {
					progress(done, total)
				}
			}
		}
	}
}

// sameHead refuses a tied model whose files hold another head than the embedding, of which data is the rows of a box.
func (h *Hub) sameHead(ctx context.Context, name string, box checkpoint.Box, data []byte) error {
	if _, second := h.files.Info(h.Format.Head()); !second || !h.Model.Tied || name != embedding {
		return nil
	}
	again := make([]byte, len(data))
	if err := h.files.ReadF32(ctx, h.Format.Head(), box.Offset[0]*box.Extent[1], again); err != nil {
		return err
	}
	if string(again) != string(data) {
		return errors.New(h.Format.Head() + " is not the embedding, though the model is tied")
	}
	return nil
}

const embedding = "model.embed_tokens.weight"

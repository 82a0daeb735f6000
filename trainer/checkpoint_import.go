package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/run"
)

// logitsTolerance is how far logits in fp32 may be from those of another implementation that sums in another order.
const logitsTolerance = 1e-4

func newCheckpointImportCommand() *cobra.Command {
	var asJSON bool
	var tokenizer, logits string
	cmd := &cobra.Command{
		Use:   "import DIR OUT",
		Short: "Make a checkpoint of a model in Hugging Face's or Meta's format",
		Long: `Make a checkpoint of step 0, without optimizer state, of a Llama 2, 3, 3.1, 3.2 or Mistral model, below the output
directory OUT, for eval, generate, export, and init.from. DIR holds a config.json and model.safetensors, or several with an
index, as transformers writes them; or Meta's params.json and names in consolidated.safetensors. Weights are bf16, fp16 or
fp32, and become fp32. No pickle is ever opened. Tokenizer files are kept for an export. A run can also begin with DIR
itself: init: {from: DIR} in its job file.`,
		Example: `  trainer checkpoint import models/Llama-3.2-1B runs/llama --tokenizer models/Llama-3.2-1B/original/tokenizer.model
  trainer checkpoint import models/tiny runs/tiny --check-logits models/tiny/logits.safetensors`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			h, err := run.OpenHub(args[0])
			if err != nil {
				return err
			}
			defer h.Close()
			lock, _, err := claimOutput(ctx, args[1])
			if err != nil {
				return err
			}
			defer lock.Unlock()
			progress, end := progressLine(cmd.ErrOrStderr(), filepath.Base(filepath.Clean(args[0])))
			dir, err := run.Import(ctx, h, args[1], tokenizer, version, progress)
			end()
			if err != nil {
				return err
			}
			report := imported{Directory: dir, Format: string(h.Format), Parameters: h.Model.Parameters()}
			if logits != "" {
				if err := report.check(ctx, logits); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), report)
			}
			return report.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&tokenizer, "tokenizer", "", "tiktoken rank `FILE` of the model (default: bytes are tokens)")
	cmd.Flags().StringVar(&logits, "check-logits", "",
		"compare with the logits in a safetensors `FILE`: input_ids [S, T], logits [S, T, vocab]")
	return cmd
}

// imported is what an import did.
type imported struct {
	Directory  string   `json:"directory"`
	Format     string   `json:"format"`
	Parameters int64    `json:"parameters"`
	Difference *float64 `json:"logits_difference,omitempty"` // the largest
}

func (r *imported) check(ctx context.Context, path string) error {
	m, _, err := run.OpenModel(ctx, r.Directory, 1)
	if err != nil {
		return err
	}
	defer m.Close()
	d, err := m.CompareLogits(ctx, path)
	r.Difference = &d
	if err == nil && !(d <= logitsTolerance) {
		err = fmt.Errorf("logits differ by up to %.3g from those of %s, want at most %.0e", d, path, logitsTolerance)
	}
	return err
}

func (r *imported) print(out io.Writer) error {
	_, err := fmt.Fprintf(out, "%s is committed: %d parameters from %s format\n", r.Directory, r.Parameters, r.Format)
	if r.Difference != nil {
		_, err = fmt.Fprintf(out, "logits differ by %.3g at most\n", *r.Difference)
	}
	return err
}

// claimOutput makes an output directory, locks it, and wants it to hold no run yet.
func claimOutput(ctx context.Context, out string) (*storage.FileLock, checkpoint.FileCommitter, error) {
	committer := checkpoint.FileCommitter{FS: storage.OS, Root: filepath.Join(out, checkpoint.Folder)}
	if err := storage.MkdirAll(storage.OS, out); err != nil {
		return nil, committer, err
	}
	lock, err := storage.Lock(filepath.Join(out, "lock"))
	if err != nil {
		return nil, committer, err
	}
	head, err := committer.Latest(ctx)
	switch {
	case errors.Is(err, checkpoint.ErrNone):
		return lock, committer, nil
	case err == nil:
		err = fmt.Errorf("%s holds a run already (%s); choose another directory", out, head.Name)
	}
	return nil, committer, errors.Join(err, lock.Unlock())
}

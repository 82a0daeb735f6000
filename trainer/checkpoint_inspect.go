package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
)

// description is a checkpoint as inspect prints it.
type description struct {
	Directory string         `json:"directory"`
	Ref       checkpoint.Ref `json:"ref"`
	checkpoint.State
	Config  string       `json:"config"`
	Bytes   int64        `json:"bytes"`
	Tensors []tensorInfo `json:"tensors"`
}

type tensorInfo struct {
	Name   string  `json:"name"`
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape"`
	Bytes  int64   `json:"bytes"`
	Slices int     `json:"slices"` // that it is stored in
}

func newCheckpointInspectCommand() *cobra.Command {
	var asJSON, config bool
	cmd := &cobra.Command{
		Use:   "inspect DIR",
		Short: "Describe a checkpoint and its tensors",
		Long: `Describe a checkpoint, its manifest and its tensors. DIR is its directory, or the output directory of a run,
whose latest checkpoint it is then.`,
		Example: `  trainer checkpoint inspect runs/llama3-debug
  trainer checkpoint inspect --config runs/llama3-debug/checkpoints/step-00000100.gen-1.a-1 > job.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && config {
				return usageErrorf("--json and --config exclude each other")
			}
			c, err := openAt(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			switch {
			case config:
				_, err = io.WriteString(cmd.OutOrStdout(), c.State().Config)
			case asJSON:
				err = printJSON(cmd.OutOrStdout(), describe(c))
			default:
				err = describe(c).print(cmd.OutOrStdout())
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&config, "config", false, "print the job file that it was saved under, nothing else")
	return cmd
}

// openAt opens the checkpoint that path is, or the latest of the run that path is.
func openAt(ctx context.Context, path string) (*checkpoint.Checkpoint, error) {
	root, dir, err := locate(path)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		head, err := checkpoint.FileCommitter{FS: storage.OS, Root: root}.Latest(ctx)
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(root, head.Name)
	}
	return checkpoint.Open(ctx, storage.OS, dir)
}

func describe(c *checkpoint.Checkpoint) description {
	d := description{Directory: c.Dir(), Ref: c.Ref(), State: c.State(), Config: c.State().Config, Bytes: c.Bytes()}
	for _, t := range c.Tensors() {
		d.Tensors = append(d.Tensors, tensorInfo{t.Name, t.DType.String(), t.Shape, t.Bytes, len(t.Slices)})
	}
	return d
}

func (d description) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(key string, value any) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%v\n", key, value)
		}
	}
	line("directory", d.Directory)
	line("manifest", d.Ref.Manifest)
	line("step", d.Step)
	line("generation", fmt.Sprintf("%d, attempt %d", d.Generation, d.Attempt))
	line("incarnation", d.Incarnation)
	line("parent", d.Parent.Name)
	line("created", d.Created.Local().Format(time.RFC3339))
	line("code version", d.CodeVersion)
	line("job", d.JobName)
	line("job digest", d.JobDigest)
	line("config digest", d.ConfigDigest)
	line("tokenizer digest", d.TokenizerDigest)
	line("dataset digest", d.DatasetDigest)
	line("next sample", d.Samples)
	line("tokens seen", d.Tokens)
	line("seed", d.Seed)
	line("random numbers", d.RNGPolicy)
	line("optimizer step", d.OptimizerStep)
	if d.ValidationLoss != 0 {
		line("validation loss", d.ValidationLoss)
	}
	line("types", d.DTypePolicy)
	l := d.Layout
	line("saved with", fmt.Sprintf("data %d, tensor %d, pipeline %d, context %d, zero %d", l.Data, l.Tensor, l.Pipeline,
		l.Context, l.Zero))
	line("size", fmt.Sprintf("%s in %d tensors", megabytes(d.Bytes), len(d.Tensors)))
	fmt.Fprintf(w, "\nTENSOR\tTYPE\tSHAPE\tBYTES\tSLICES\n")
	for _, t := range d.Tensors {
		fmt.Fprintf(w, "%s\t%s\t%v\t%d\t%d\n", t.Name, t.DType, t.Shape, t.Bytes, t.Slices)
	}
	return w.Flush()
}

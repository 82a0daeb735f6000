package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/trainer/llama"
	"github.com/herdtrain/herd/trainer/run"
)

func newCheckpointExportCommand() *cobra.Command {
	var asJSON bool
	var format, dtype, files string
	var shard int64
	cmd := &cobra.Command{
		Use:   "export SRC DIR",
		Short: "Write a checkpoint's weights in Hugging Face's or Meta's format",
		Long: `Write the weights of a checkpoint as safetensors with their config.json, which transformers loads, or under Meta's
names with params.json. SRC is a checkpoint, or a run, whose latest it is then; DIR is made, or empty. Tokenizer and
generation files are carried along: of --files, or of the model that was imported or that init.from names; else the job's
tokenizer. Tensors are read and written in pieces, whatever the model's size. config.json comes last: a directory without
it is not whole.`,
		Example: `  trainer checkpoint export runs/llama3-124m models/mine
  trainer checkpoint export runs/llama models/mine-meta --format meta --dtype f32 --shard-size 0`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != string(llama.HuggingFace) && format != string(llama.Meta) {
				return usageErrorf("--format is %q, want hf or meta", format)
			}
			if !slices.Contains([]string{"bf16", "f16", "f32"}, dtype) {
				return usageErrorf("--dtype is %q, want bf16, f16 or f32", dtype)
			}
			if shard < 0 || shard > 1<<30 {
				return usageErrorf("--shard-size is %d, want from 0 to %d MB", shard, 1<<30)
			}
			c, err := openAt(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			progress, end := progressLine(cmd.ErrOrStderr(), filepath.Base(c.Dir()))
			err = run.Export(cmd.Context(), c, args[1], run.Exporting{
				Format: llama.Format(format), DType: strings.ToUpper(dtype), ShardSize: shard * 1e6, Files: files, Progress: progress,
			})
			end()
			switch {
			case err != nil:
				return err
			case asJSON:
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"checkpoint": c.Dir(), "directory": args[1], "format": format, "dtype": dtype,
				})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s holds the weights of %s, in %s and %s format\n", args[1], c.Dir(), dtype, format)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&format, "format", "hf", "names and order of weights: hf or meta")
	cmd.Flags().StringVar(&dtype, "dtype", "bf16", "of the weights: bf16, f16 or f32")
	cmd.Flags().StringVar(&files, "files", "", "`DIR` whose tokenizer and generation files go along")
	cmd.Flags().Int64Var(&shard, "shard-size", 5000, "largest file of weights, in `MB`; 0: one file")
	return cmd
}

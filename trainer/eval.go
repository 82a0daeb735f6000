package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/trainer/run"
)

func newEvalCommand() *cobra.Command {
	var from modelFlags
	var data string
	var sequences, size int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "eval (--config FILE | --checkpoint DIR) [--data DIR]",
		Short: "Measure loss and perplexity of a checkpoint on a dataset",
		Example: `  trainer eval --config configs/llama3-debug.yaml
  trainer eval --checkpoint runs/llama3-debug --data runs/data/go-src-val --sequences 1000 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := from.open(cmd, size)
			if err != nil {
				return err
			}
			defer m.Close()
			if data == "" {
				if m.Job.Data.Validation == nil {
					return usageErrorf("the job has no data.validation: name a dataset with --data")
				}
				data = m.Job.Data.Validation.Path
			}
			got, err := m.Evaluate(cmd.Context(), data, sequences, size)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), struct {
					Checkpoint string `json:"checkpoint"`
					Step       int64  `json:"step"`
					Data       string `json:"data"`
					run.Measure
				}{m.Checkpoint, m.Step, data, got})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "step %d on %s: loss %.4f, perplexity %.2f, over %d targets in %d sequences\n",
				m.Step, data, got.Loss, got.Perplexity, got.Targets, got.Sequences)
			return err
		},
	}
	from.add(cmd)
	cmd.Flags().StringVar(&data, "data", "", "dataset directory (default: the job's data.validation)")
	cmd.Flags().IntVar(&sequences, "sequences", 0, "at most so many sequences; 0: all")
	cmd.Flags().IntVar(&size, "micro-batch", 8, "sequences at once")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

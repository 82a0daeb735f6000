package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/run"
)

func newGenerateCommand() *cobra.Command {
	var from modelFlags
	var prompt string
	s := run.Sampling{}
	cmd := &cobra.Command{
		Use:   "generate (--config FILE | --checkpoint DIR) [--prompt TEXT]",
		Short: "Let a checkpoint write text",
		Example: `  trainer generate --config configs/llama3-debug.yaml --prompt 'func main() {'
  trainer generate --checkpoint runs/llama3-debug/checkpoints/step-00000400.gen-1.a-1 --temperature 0 --max-tokens 50`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case !(s.Temperature >= 0):
				return usageErrorf("--temperature is %v, want 0 or more", s.Temperature)
			case !(s.TopP > 0 && s.TopP <= 1):
				return usageErrorf("--top-p is %v, want more than 0 and at most 1", s.TopP)
			case s.TopK < 0 || s.MaxTokens < 1:
				return usageErrorf("--top-k is %d and --max-tokens %d, want at least 0 and 1", s.TopK, s.MaxTokens)
			}
			m, err := from.open(cmd, 1)
			if err != nil {
				return err
			}
			defer m.Close()
			ids := m.Tokenizer.Encode(nil, []byte(prompt))
			if bos := m.Tokenizer.BOS(); bos >= 0 {
				ids = append([]int32{bos}, ids...)
			}
			if len(ids) == 0 {
				return usageErrorf("the tokenizer has no token that begins a text: give a --prompt")
			}
			out := cmd.OutOrStdout()
			fmt.Fprint(out, prompt)
			err = m.Generate(cmd.Context(), ids, s, func(id int32) bool {
				_, err := out.Write(m.Tokenizer.Decode(nil, []int32{id}))
				return err == nil
			})
			fmt.Fprintln(out)
			return err
		},
	}
	from.add(cmd)
	cmd.Flags().StringVar(&prompt, "prompt", "", "text to go on from")
	cmd.Flags().IntVar(&s.MaxTokens, "max-tokens", 200, "end after so many tokens")
	cmd.Flags().Float64Var(&s.Temperature, "temperature", 0.8, "flattens (> 1) or sharpens (< 1) the choice; 0: the likeliest token")
	cmd.Flags().IntVar(&s.TopK, "top-k", 0, "choose among the k likeliest tokens; 0: all")
	cmd.Flags().Float64Var(&s.TopP, "top-p", 0.95, "choose among the likeliest tokens that together have this probability")
	cmd.Flags().Uint64Var(&s.Seed, "seed", 1, "of the choices")
	return cmd
}

// modelFlags choose the checkpoint of eval and generate.
type modelFlags struct {
	config, checkpoint string
	sets               []string
}

func (f *modelFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", "", "job file: the newest checkpoint of its job.output")
	cmd.Flags().StringArrayVar(&f.sets, "set", nil, "override a value of the job file: path=value")
	cmd.Flags().StringVar(&f.checkpoint, "checkpoint", "", "checkpoint, or a run's output directory for its newest")
	cmd.MarkFlagsOneRequired("config", "checkpoint")
	cmd.MarkFlagsMutuallyExclusive("config", "checkpoint")
}

// open loads the model, size sequences at a time, and says on standard error what was passed over.
func (f *modelFlags) open(cmd *cobra.Command, size int) (*run.Model, error) {
	if size < 1 {
		return nil, usageErrorf("--micro-batch is %d, want at least 1", size)
	}
	path := f.checkpoint
	if f.config != "" {
		job, err := config.Load(f.config, f.sets)
		if err != nil {
			return nil, err
		}
		path = job.Job.Output
	}
	m, rejected, err := run.OpenModel(cmd.Context(), path, size)
	for _, r := range rejected {
		fmt.Fprintf(cmd.ErrOrStderr(), "trainer: checkpoint %s was passed over: %v\n", r.Name, r.Err)
	}
	return m, err
}

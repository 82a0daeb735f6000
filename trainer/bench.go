package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/tensor/cpu"
	"github.com/herdtrain/herd/trainer/bench"
	"github.com/herdtrain/herd/trainer/config"
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the speed of this machine: products, attention, training steps",
		Long: `Bench measures what a step is made of, and whole steps, each beside the processor's peak just before and after.
Rates are medians of several repetitions, with their minimum and maximum.`,
		Example: `  trainer bench gemm --precision bf16
  trainer bench attention --threads 1
  trainer bench step --config configs/llama3-26m.yaml --json`,
	}
	cmd.AddCommand(newBenchGemmCommand(), newBenchAttentionCommand(), newBenchStepCommand(),
		newBenchCheckpointCommand())
	return cmd
}

// benchFlags are the flags of every measurement.
type benchFlags struct {
	bench.Options
	precision string
	asJSON    bool
}

func (f *benchFlags) add(cmd *cobra.Command, duration time.Duration, precision string) {
	cmd.Flags().IntVar(&f.Threads, "threads", 0, "threads that compute; 0: all")
	cmd.Flags().StringVar(&f.Kernels, "kernels", "", "as "+cpu.KernelsEnv+" (default: what that says, else the fastest)")
	cmd.Flags().DurationVar(&f.Duration, "duration", duration, "time of each measurement, about")
	cmd.Flags().StringVar(&f.precision, "precision", "fp32", precision)
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
}

func (f *benchFlags) check() error {
	switch {
	case f.Threads < 0:
		return usageErrorf("--threads is %d, want 0 or more", f.Threads)
	case f.Duration <= 0:
		return usageErrorf("--duration is %v, want more than 0", f.Duration)
	case f.precision != "fp32" && f.precision != "bf16":
		return usageErrorf("--precision is %q, want fp32 or bf16", f.precision)
	}
	return nil
}

func (f *benchFlags) dtype() tensor.DType {
	if f.precision == "bf16" {
		return tensor.BF16
	}
	return tensor.F32
}

// print writes the report of a measurement that ended with err.
func (f *benchFlags) print(cmd *cobra.Command, report interface{ Print(io.Writer) error }, err error) error {
	switch {
	case err != nil:
		return err
	case f.asJSON:
		return printJSON(cmd.OutOrStdout(), report)
	}
	return report.Print(cmd.OutOrStdout())
}

func newBenchGemmCommand() *cobra.Command {
	var flags benchFlags
	var sizes []string
	cmd := &cobra.Command{
		Use:   "gemm",
		Short: "Measure matrix products in the three forms of training",
		Example: `  trainer bench gemm
  trainer bench gemm --precision bf16 --sizes 512,4096,1024x3072x512 --threads 1 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			var shapes []bench.Shape
			for _, text := range sizes {
				s, err := bench.ParseShape(text)
				if err != nil {
					return usageErrorf("--sizes: %w", err)
				}
				shapes = append(shapes, s)
			}
			report, err := bench.Gemm(cmd.Context(), flags.Options, flags.dtype(), shapes)
			return flags.print(cmd, report, err)
		},
	}
	flags.add(cmd, time.Second, "type of the matrices: fp32 or bf16")
	cmd.Flags().StringSliceVar(&sizes, "sizes", []string{"512", "1024", "2048"},
		"of linear layers: `N` for a cube, or TOKENSxOUTxIN")
	return cmd
}

func newBenchAttentionCommand() *cobra.Command {
	var flags benchFlags
	var shape bench.AttentionShape
	cmd := &cobra.Command{
		Use:   "attention",
		Short: "Measure causal attention, forward and backward, beside a matrix product",
		Long: `Attention is measured over causal sequences. Its operations are those of the causal half: 2·T²·D a head forward
(two products), 5·T²·D backward (five). It is compared with the FMA peak and with a forward product of the same type.`,
		Example: `  trainer bench attention
  trainer bench attention --precision bf16 --length 4096 --head-dims 128 --heads 32 --kv-heads 8`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			if err := shape.Validate(); err != nil {
				return usageErrorf("%w", err)
			}
			report, err := bench.Attention(cmd.Context(), flags.Options, flags.dtype(), shape)
			return flags.print(cmd, report, err)
		},
	}
	flags.add(cmd, time.Second, "type of the matrices: fp32 or bf16")
	cmd.Flags().IntVar(&shape.Batch, "batch", 1, "sequences")
	cmd.Flags().IntVar(&shape.Length, "length", 2048, "tokens of a sequence")
	cmd.Flags().IntVar(&shape.Heads, "heads", 8, "query heads")
	cmd.Flags().IntVar(&shape.KVHeads, "kv-heads", 2, "key and value heads")
	cmd.Flags().IntSliceVar(&shape.HeadDims, "head-dims", []int{64, 128}, "widths of a head")
	cmd.Flags().IntVar(&shape.GemmSize, "gemm-size", 1024, "side of the product to compare with")
	return cmd
}

func newBenchStepCommand() *cobra.Command {
	var flags benchFlags
	var job stepFlags
	cmd := &cobra.Command{
		Use:   "step [--config FILE | --preset NAME]",
		Short: "Measure whole training steps: forward, loss, backward, AdamW",
		Long: `Step trains a model on random tokens and prints tokens/s, the share of each phase, MFU, and the memory. A step is
one micro-batch. --config takes model, micro-batch, length, precision and optimizer from a job file, whose data is not
opened; --preset takes a model alone. The other flags override both.`,
		Example: `  trainer bench step --preset llama3-26m --micro-batch 4 --length 256 --precision bf16
  trainer bench step --config configs/llama3-124m.yaml --set model.layers=4 --threads 1 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			if cmd.Flags().Changed("precision") {
				job.sets = append(job.sets, "train.precision="+flags.precision)
			}
			j, err := job.load()
			if err != nil {
				return err
			}
			report, err := bench.Step(cmd.Context(), flags.Options, j)
			return flags.print(cmd, report, err)
		},
	}
	flags.add(cmd, 5*time.Second, "of weights and activations: fp32 or bf16; the job's with --config")
	cmd.Flags().StringVar(&job.file, "config", "", "job `FILE`; - reads standard input")
	cmd.Flags().StringVar(&job.preset, "preset", "llama3-debug", "model, without --config")
	cmd.Flags().IntVar(&job.microBatch, "micro-batch", 0, "sequences of a step (default: the job's, or 4)")
	cmd.Flags().IntVar(&job.length, "length", 0, "tokens of a sequence (default: the job's, or 256)")
	cmd.Flags().StringArrayVar(&job.sets, "set", nil, "override a value of the job: path=value")
	cmd.MarkFlagsMutuallyExclusive("config", "preset")
	return cmd
}

// stepFlags choose what a step trains.
type stepFlags struct {
	file, preset       string
	microBatch, length int // 0: the job's
	sets               []string
}

// presetJob is a job around a preset; its data does not exist.
const presetJob = `version: 1
job: {name: bench, output: bench}
model: {preset: %q}
tokenizer: {kind: byte}
data: {sequence_length: 256, train: [{path: none}]}
train: {steps: 1, global_batch: 4, micro_batch: 4, precision: fp32}
`

func (f *stepFlags) load() (*config.Job, error) {
	sets := f.sets
	if f.microBatch != 0 {
		n := strconv.Itoa(f.microBatch)
		sets = append(sets, "train.micro_batch="+n, "train.global_batch="+n)
	}
	if f.length != 0 {
		sets = append(sets, "data.sequence_length="+strconv.Itoa(f.length))
	}
	if f.file != "" {
		return config.Load(f.file, sets)
	}
	return config.Parse("--preset", fmt.Appendf(nil, presetJob, f.preset), sets)
}

package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/parallel"
	"github.com/herdtrain/herd/trainer/parallel/draw"
	"github.com/herdtrain/herd/trainer/run"
)

func newConfigExplainCommand() *cobra.Command {
	var flags configFlags
	var ranks int
	var drawn bool
	var svg string
	cmd := &cobra.Command{
		Use:   "explain --config FILE",
		Short: "Print every value in force and where it came from, the model's size, the layout and the memory plan",
		Long: `Print every value in force and where it came from, the model's size, and the memory plan of the ranks of a pipeline.
With --draw, print the mesh of ranks and a timeline of the pipeline schedule instead; --svg draws them into a file. Times
are simulated: a forward pass through a stage takes 1, a backward pass 2, a transfer nothing. Of many micro-batches the
first are drawn.`,
		Example: `  trainer config explain --config configs/llama3-debug.yaml
  trainer config explain --config configs/llama3-8b.yaml --set data.sequence_length=4096 --json
  trainer config explain --config configs/llama3-124m.yaml --set parallel.pipeline=4 --ranks 8 --draw --svg layout.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			job, err := config.Load(flags.path, flags.sets)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("ranks") && ranks < 1 {
				return usageErrorf("--ranks is %d, want at least 1", ranks)
			}
			layout, err := run.Layout(job, ranks)
			if err != nil {
				return err
			}
			if svg != "" {
				if err := drawSVG(svg, layout); err != nil {
					return err
				}
			}
			out := cmd.OutOrStdout()
			if drawn {
				return drawText(out, layout)
			}
			e := explain(job, layout)
			if flags.asJSON {
				return printJSON(out, e)
			}
			return e.print(out)
		},
	}
	flags.add(cmd)
	cmd.Flags().IntVar(&ranks, "ranks", 0, "lay the job out on `N` ranks (default: the fewest that it asks for)")
	cmd.Flags().BoolVar(&drawn, "draw", false, "print the mesh and the pipeline schedule")
	cmd.Flags().StringVar(&svg, "svg", "", "draw them into `FILE`")
	cmd.MarkFlagsMutuallyExclusive("draw", "json")
	return cmd
}

// drawable is l with no more micro-batches than can be looked at.
func drawable(l parallel.Layout) parallel.Layout {
	most := max(8, 3*l.Pipeline.Stages)
	l.Pipeline.MicroBatches = min(l.Pipeline.MicroBatches, most)
	return l
}

func drawText(out io.Writer, l parallel.Layout) error {
	width, isTerminal := terminal(out)
	if !isTerminal {
		width = 120
	}
	l = drawable(l)
	return draw.Text(out, l, l.Timeline(), width, nil)
}

func drawSVG(path string, l parallel.Layout) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	l = drawable(l)
	if err := draw.SVG(f, l, l.Timeline()); err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", path, err)
	}
	return f.Close()
}

// explanation is what explain prints.
type explanation struct {
	Values        []config.Value `json:"values"`
	Parameters    int64          `json:"parameters"`
	TokensPerStep int64          `json:"tokens_per_step"`
	Tokens        int64          `json:"tokens"` // of the whole job
	FLOPs         struct {
		Causal float64 `json:"causal"`
		Full   float64 `json:"full"`
	} `json:"flops_per_token"` // to train on it, without recomputation
	Ranks    int        `json:"ranks"`
	Layout   string     `json:"layout"`
	Warnings []string   `json:"warnings"`
	Memory   []rankPlan `json:"memory"` // of the first rank of each stage of a pipeline
}

// rankPlan is the memory plan of a rank.
type rankPlan struct {
	Rank  int         `json:"rank"`
	Uses  []memoryUse `json:"uses"`
	Bytes int64       `json:"bytes"` // of all
}

type memoryUse struct {
	Use   string `json:"use"`
	Bytes int64  `json:"bytes"`
}

func explain(job *config.Job, l parallel.Layout) explanation {
	model := job.Model.Config()
	e := explanation{
		Values:        job.Explain(),
		Parameters:    model.Parameters(),
		TokensPerStep: int64(job.Train.GlobalBatch) * int64(job.Data.SequenceLength),
		Ranks:         l.Mesh.World(),
		Layout:        l.Mesh.String(),
		Warnings:      append([]string{}, l.Warnings...),
	}
	e.Tokens = job.Train.Steps * e.TokensPerStep
	e.FLOPs.Full, e.FLOPs.Causal = model.FLOPs(job.Data.SequenceLength)
	for _, rank := range l.Mesh.Group(0, parallel.PP) {
		plan := run.Plan(job, l, rank)
		r := rankPlan{Rank: rank, Bytes: plan.Bytes()}
		uses, bytes := plan.Uses()
		for _, use := range uses {
			r.Uses = append(r.Uses, memoryUse{use, bytes[use]})
		}
		e.Memory = append(e.Memory, r)
	}
	return e
}

func (e explanation) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, v := range e.Values {
		fmt.Fprintf(w, "%s\t%s\t%s\n", v.Path, v.Value, v.From)
	}
	fmt.Fprintf(w, "\nparameters\t%d\n", e.Parameters)
	fmt.Fprintf(w, "tokens per step\t%d\n", e.TokensPerStep)
	fmt.Fprintf(w, "tokens of the job\t%d\n", e.Tokens)
	fmt.Fprintf(w, "FLOPs per token, causal\t%.0f\n", e.FLOPs.Causal)
	fmt.Fprintf(w, "FLOPs per token, full attention\t%.0f\n", e.FLOPs.Full)
	fmt.Fprintf(w, "ranks\t%d: %s\n", e.Ranks, e.Layout)
	for _, warning := range e.Warnings {
		fmt.Fprintf(w, "warning\t%s\n", warning)
	}
	for _, r := range e.Memory {
		fmt.Fprintf(w, "\nmemory of rank %d\tbytes\tMiB\n", r.Rank)
		for _, m := range append(r.Uses, memoryUse{"all", r.Bytes}) {
			fmt.Fprintf(w, "%s\t%d\t%.1f\n", m.Use, m.Bytes, float64(m.Bytes)/(1<<20))
		}
	}
	return w.Flush()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/trainer/config"
)

// differences are what diff found.
type differences struct {
	A       string                  `json:"a"` // directories
	B       string                  `json:"b"`
	Job     []config.Change         `json:"job"`
	Tensors []checkpoint.Difference `json:"tensors"`
	Equal   int                     `json:"equal_tensors"`
}

// errDiffers ends diff with exit code 1; what differs was printed.
var errDiffers = errors.New("the checkpoints differ")

func newCheckpointDiffCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare the tensors and job files of two checkpoints",
		Long: `Compare two checkpoints, whatever layouts they were saved at: every tensor bit for bit, and every value of the job
file. A and B are directories of checkpoints, or of runs, whose latest ones they are then. For a tensor that differs it
prints how many elements do, the largest difference, and the norm of the difference beside that of A's tensor. The exit
code is 1 if a tensor differs.`,
		Example: `  trainer checkpoint diff runs/a runs/b
  trainer checkpoint diff runs/a/checkpoints/step-00000100.gen-1.a-1 runs/a --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := diffCheckpoints(cmd.Context(), args[0], args[1], cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), d)
			} else {
				err = d.print(cmd.OutOrStdout())
			}
			if err == nil && len(d.Tensors) > 0 {
				err = errDiffers
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func diffCheckpoints(ctx context.Context, a, b string, log io.Writer) (d differences, err error) {
	ca, err := openAt(ctx, a)
	if err != nil {
		return d, err
	}
	cb, err := openAt(ctx, b)
	if err != nil {
		return d, err
	}
	d.A, d.B = ca.Dir(), cb.Dir()
	var jobs [2]*config.Job
	for i, c := range []*checkpoint.Checkpoint{ca, cb} {
		if jobs[i], err = config.Parse(c.Dir()+" (its job file)", []byte(c.State().Config), nil); err != nil {
			return d, err
		}
	}
	d.Job = config.Diff(jobs[0], jobs[1])
	progress, end := progressLine(log, "comparing")
	defer end()
	if d.Tensors, err = checkpoint.Compare(ctx, ca, cb, progress); err != nil {
		return d, err
	}
	d.Equal = len(ca.Tensors())
	for _, t := range d.Tensors {
		if _, ok := ca.Info(t.Name); ok {
			d.Equal--
		}
	}
	return d, nil
}

func (d differences) print(out io.Writer) error {
	fmt.Fprintf(out, "A  %s\nB  %s\n", d.A, d.B)
	for _, c := range d.Job {
		fmt.Fprintf(out, "job file: %v\n", c)
	}
	if len(d.Tensors) == 0 {
		_, err := fmt.Fprintf(out, "all %d tensors are equal, bit for bit\n", d.Equal)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TENSOR\tDIFFER\tOF\tMAX |A−B|\t‖A−B‖/‖A‖")
	for _, t := range d.Tensors {
		if t.Elements == 0 {
			fmt.Fprintf(w, "%s\t%s\n", t.Name, t.Reason)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3g\t%.3g", t.Name, t.Differ, t.Elements, t.MaxAbs, t.Relative)
		if t.NotFinite > 0 {
			fmt.Fprintf(w, "\t%d not finite", t.NotFinite)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d tensors differ, %d are equal\n", len(d.Tensors), d.Equal)
	return err
}

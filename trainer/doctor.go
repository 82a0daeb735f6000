package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// finding is what one check of doctor saw.
type finding struct {
	Check  string `json:"check"`
	Status status `json:"status"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what to do about it
}

type status string

const (
	statusOK      status = "ok"
	statusWarning status = "warning" // training works, worse than it could
	statusFailed  status = "failed"
)

func (s status) mark() string {
	return map[status]string{statusOK: "✓", statusWarning: "!", statusFailed: "✗"}[s]
}

// check looks at one thing of the machine or of a job.
type check struct {
	name string
	run  func(ctx context.Context) []finding
}

// checkPatience is how long a check may take: a network file system that hangs must not hang doctor.
const checkPatience = 30 * time.Second

func newDoctorCommand() *cobra.Command {
	var dir string
	var configs []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether this machine, and a job, are fit for training",
		Long: `Doctor looks at the processor, the kernels in use and their peak, memory, the disk under --dir, limits, and at the
files of each --config. A line starts with ✓, with ! where training works but worse than it could, or with ✗ where it
cannot work; then the exit code is 1. It writes nothing but a temporary file in --dir and each output directory.`,
		Example: `  trainer doctor
  trainer doctor --config configs/llama3-debug.yaml --dir runs --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := machineChecks(dir)
			for _, file := range configs {
				checks = append(checks, jobCheck(file))
			}
			return examine(cmd.Context(), cmd.OutOrStdout(), checks, asJSON)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "`DIR`ectory on the disk to measure")
	cmd.Flags().StringArrayVar(&configs, "config", nil, "job `FILE` to look at too; may repeat")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// examine runs the checks and prints what they find, each as soon as it is known unless asJSON. It is an error if one
// failed.
func examine(ctx context.Context, out io.Writer, checks []check, asJSON bool) error {
	findings, failed := []finding{}, 0
	for _, c := range checks {
		for _, f := range runCheck(ctx, c) {
			findings = append(findings, f)
			if f.Status == statusFailed {
				failed++
			}
			if asJSON {
				continue
			}
			fmt.Fprintf(out, "%s %-12s %s\n", f.Status.mark(), f.Check, f.Found)
			if f.Advice != "" {
				fmt.Fprintf(out, "  %-12s → %s\n", "", f.Advice)
			}
		}
	}
	if asJSON {
		if err := printJSON(out, findings); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(findings))
	}
	return nil
}

// runCheck gives c checkPatience. A check that does not end in time, stuck in a system call, is left behind.
func runCheck(ctx context.Context, c check) []finding {
	ctx, cancel := context.WithTimeoutCause(ctx, checkPatience, errors.New("no answer within "+checkPatience.String()))
	defer cancel()
	done := make(chan []finding, 1)
	go func() { done <- c.run(ctx) }()
	select {
	case findings := <-done:
		return findings
	case <-ctx.Done():
		return []finding{{Check: c.name, Status: statusFailed, Found: context.Cause(ctx).Error()}}
	}
}

// judge is a finding that is good, or else bad with the advice.
func judge(name string, good bool, bad status, found, advice string) []finding {
	if good {
		return []finding{{Check: name, Status: statusOK, Found: found}}
	}
	return []finding{{Check: name, Status: bad, Found: found, Advice: advice}}
}

func failure(name string, err error, advice string) []finding {
	return []finding{{Check: name, Status: statusFailed, Found: err.Error(), Advice: advice}}
}

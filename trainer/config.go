package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/trainer/config"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, explain and compare job files",
		Example: `  trainer config validate --config configs/llama3-8b.yaml
  trainer config explain --config configs/llama3-debug.yaml --set train.steps=1000
  trainer config diff configs/llama3-8b.yaml configs/llama3.1-8b.yaml`,
	}
	cmd.AddCommand(newConfigValidateCommand(), newConfigExplainCommand(), newConfigDiffCommand())
	return cmd
}

// configFlags are the flags of a command that reads one job.
type configFlags struct {
	path   string
	sets   []string
	asJSON bool
}

func (f *configFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.path, "config", "", "job `FILE`; - reads standard input")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err)
	}
	cmd.Flags().StringArrayVar(&f.sets, "set", nil, "lay `PATH=VALUE` over the file, as data.train.0.path=DIR; may repeat")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
}

func newConfigValidateCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "validate --config FILE",
		Short: "Check a job file and show every fault at its place",
		Long: `Check a job file and show every fault at its place. The files and directories that it names are not opened.
Exit code 0: the file is good; 2: it is not.`,
		Example: `  trainer config validate --config configs/llama3-debug.yaml
  trainer config validate --config - --json < job.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			job, err := config.Load(flags.path, flags.sets)
			if flags.asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), newConfigVerdict(flags.path, job, err)), err)
			}
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: good, job %s, digest %.16s\n", flags.path, job.Job.Name, job.Digest())
			}
			return err
		},
	}
	flags.add(cmd)
	return cmd
}

// configVerdict is what validate prints as JSON.
type configVerdict struct {
	File   string          `json:"file"`
	Digest string          `json:"digest,omitempty"` // of the resolved job
	Faults []*config.Error `json:"faults"`
}

func newConfigVerdict(path string, job *config.Job, err error) configVerdict {
	v := configVerdict{File: path, Faults: []*config.Error{}}
	var faults *config.Errors
	switch {
	case err == nil:
		v.Digest = job.Digest()
	case errors.As(err, &faults):
		v.Faults = faults.List
	}
	return v
}

func newConfigDiffCommand() *cobra.Command {
	var sets []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Print the values that differ between two job files",
		Long: `Print the values that differ between two job files, with presets and defaults filled in.
A or B may be -, standard input.`,
		Example: `  trainer config diff configs/llama3-8b.yaml configs/llama3.1-8b.yaml
  trainer config diff job.yaml job.yaml --set optimizer.lr=1e-4`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" && args[1] == "-" {
				return usageErrorf("only one of the two jobs can come from standard input")
			}
			a, errA := config.Load(args[0], nil)
			b, errB := config.Load(args[1], sets)
			if err := errors.Join(errA, errB); err != nil {
				return err
			}
			changes := config.Diff(a, b)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), changes)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, c := range changes {
				fmt.Fprintf(w, "%s\t%s\t%s\n", c.Path, c.Old, c.New)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringArrayVar(&sets, "set", nil, "lay `PATH=VALUE` over B; may repeat")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

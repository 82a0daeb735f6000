// Trainer pretrains models of the Llama 3 family, on a laptop's CPU or on many GPUs, from one job file.
//
// This package is the command line only: one file per subcommand, which reads flags and calls a package that does the
// work. Start at trainer/run for the training itself.
//
// Exit codes: 0 done; 1 failed; 2 wrong usage or a bad job file; 75 stopped before its last step, start it again;
// 93 failed in a way that a retry cannot mend.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns the process's exit code.
func execute(args []string, stdout, stderr io.Writer) int {
	started := false
	root := newRootCommand()
	beforeRun(root, func() { started = true })
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	if !started { // flags, arguments or the command's name
		err = usageErrorf("%w\nrun '%s --help' for its usage", err, cmd.CommandPath())
	}
	if _, printed := err.(reported); !printed {
		fmt.Fprintf(stderr, "trainer: %v\n", err)
	}
	return exitCode(err)
}

// newRootCommand is the whole command tree.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "trainer",
		Short: "Pretrain Llama models, from one CPU to many GPUs, with one job file",
		Example: `  trainer run --config configs/llama3-debug.yaml
  trainer generate --config configs/llama3-debug.yaml --prompt 'func main() {'`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newRunCommand(),
		newRankCommand(),
		newEvalCommand(),
		newGenerateCommand(),
		newDataCommand(),
		newCheckpointCommand(),
		newConfigCommand(),
		newDoctorCommand(),
		newBenchCommand(),
		newVersionCommand(),
	)
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			for _, shell := range c.Commands() {
				shell.Example = "  trainer completion " + shell.Name()
			}
		}
	}
	refuseUnknown(root)
	return root
}

// refuseUnknown makes each command that only holds others refuse a name that none of them has.
func refuseUnknown(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		refuseUnknown(c)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			msg += "; did you mean " + strings.Join(near, " or ") + "?"
		}
		return errors.New(msg)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// beforeRun has f called once a command's flags and arguments have been accepted and the command itself starts.
func beforeRun(cmd *cobra.Command, f func()) {
	for _, c := range cmd.Commands() {
		beforeRun(c, f)
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			f()
			return run(cmd, args)
		}
	}
}

// The exit codes that an error may ask for with a method ExitCode() int; any other error is exitFailed.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitStopped = 75
	exitFatal   = 93
)

func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		switch code := coded.ExitCode(); code {
		case exitUsage, exitStopped, exitFatal:
			return code
		}
	}
	return exitFailed
}

// usageErrorf is an error of the command line: wrong flags or arguments, exit code 2.
func usageErrorf(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

type usageError struct{ error }

func (e usageError) ExitCode() int { return exitUsage }
func (e usageError) Unwrap() error { return e.error }

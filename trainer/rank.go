package main

import (
	"context"
	"fmt"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/trainer/run"
)

// rankCommand is how 'trainer run --nproc' starts its ranks.
const rankCommand = "rank"

// newRankCommand is a process of a run. Nobody types it: what it is to do comes from the process that started it.
func newRankCommand() *cobra.Command {
	return &cobra.Command{
		Use:     rankCommand + " NUMBER",
		Short:   "Be a rank of a run; 'trainer run --nproc' starts this",
		Example: "  trainer rank 3",
		Hidden:  true,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := strconv.Atoi(args[0])
			if err != nil {
				return usageErrorf("rank %q, want a number", args[0])
			}
			// Whoever signals all processes of a run, as a batch system does, wants it to stop: once or more often.
			asked, end := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			defer end()
			o := run.Options{Stop: asked.Done(), Out: cmd.OutOrStdout(), Version: readBuildInfo().Version}
			code, err := run.Rank(cmd.Context(), number, cmd.InOrStdin(), o)
			if err == nil && code != 0 {
				err = reported(code)
			}
			return err
		},
	}
}

// reported is the exit code of a process whose error is printed by another one.
type reported int

func (r reported) Error() string { return fmt.Sprintf("exit code %d", int(r)) }
func (r reported) ExitCode() int { return int(r) }

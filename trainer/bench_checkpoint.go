package main

import (
	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/trainer/bench"
)

func newBenchCheckpointCommand() *cobra.Command {
	var flags benchFlags
	var megabytes int64
	var dir string
	var rounds int
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Measure saving and loading on a disk, beside a plain file",
		Long: `Checkpoint saves and loads checkpoints of random tensors below a directory, and writes and reads a plain file of as
many bytes, by turns. Writing ends with a sync; what is read was dropped from the page cache. It needs twice --size on the
disk and once in memory, and removes what it wrote.`,
		Example: `  trainer bench checkpoint --dir runs
  trainer bench checkpoint --dir /mnt/shared --size 8192 --rounds 5 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case megabytes < 1 || megabytes > 1<<20:
				return usageErrorf("--size is %d, want from 1 to %d MiB", megabytes, 1<<20)
			case rounds < 1:
				return usageErrorf("--rounds is %d, want at least 1", rounds)
			}
			report, err := bench.Checkpoint(cmd.Context(), dir, megabytes<<20, rounds)
			return flags.print(cmd, report, err)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "directory on the `DISK` to measure")
	cmd.Flags().Int64Var(&megabytes, "size", 2048, "of the state, in `MIB`")
	cmd.Flags().IntVar(&rounds, "rounds", 5, "repetitions")
	cmd.Flags().BoolVar(&flags.asJSON, "json", false, "print JSON")
	return cmd
}

package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/run"
)

func newCheckpointPruneCommand() *cobra.Command {
	var asJSON, dry bool
	var keep checkpoint.Keep
	cmd := &cobra.Command{
		Use:   "prune DIR",
		Short: "Delete checkpoints of a run that are no longer needed",
		Long: `Delete what a run would delete after its next save: checkpoints older than the ones to keep, saves that were rolled
back or never committed, and unfinished ones older than the latest. DIR is the run's output directory. What is to be kept
is what the latest checkpoint's job file says; the flags override it. The newest two that can be verified stay in any
case, and so does what is damaged, of another job, or newer than the latest. A run that is under way is left alone.`,
		Example: `  trainer checkpoint prune runs/llama3-debug --dry-run
  trainer checkpoint prune runs/llama3-debug --keep 2 --keep-every 1000 --keep-best 1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, dir, err := locate(args[0])
			if err != nil {
				return err
			}
			if dir != "" {
				return usageErrorf("%s is a checkpoint; name the run's output directory", args[0])
			}
			lock, err := storage.Lock(filepath.Join(filepath.Dir(root), "lock"))
			if err != nil {
				return fmt.Errorf("%w: a run prunes its own checkpoints", err)
			}
			defer lock.Unlock()
			ctx := cmd.Context()
			head, err := checkpoint.FileCommitter{FS: storage.OS, Root: root}.Latest(ctx)
			if err != nil {
				return err
			}
			p := checkpoint.Pruner{FS: storage.OS, Root: root}
			if p.Keep, err = recordedKeep(cmd, filepath.Join(root, head.Name), keep); err != nil {
				return err
			}
			do, verb := p.Prune, "removed"
			if dry {
				do, verb = p.Stale, "would remove"
			}
			names, err := do(ctx, head)
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				if e := printJSON(out, append([]string{}, names...)); err == nil {
					err = e
				}
			case len(names) == 0 && err == nil:
				fmt.Fprintln(out, "nothing to remove")
			default:
				for _, name := range names {
					fmt.Fprintln(out, verb, name)
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be removed, remove nothing")
	cmd.Flags().IntVar(&keep.Last, "keep", 0, "the newest `N` stay (default: the job's checkpoint.keep)")
	cmd.Flags().Int64Var(&keep.Every, "keep-every", 0, "and steps that are multiples of `N` (default: the job's)")
	cmd.Flags().IntVar(&keep.Best, "keep-best", 0, "and the `N` of the lowest validation loss (default: the job's)")
	return cmd
}

// recordedKeep is what the flags of cmd say to keep, and where they say nothing, the job file of the checkpoint in dir.
func recordedKeep(cmd *cobra.Command, dir string, flags checkpoint.Keep) (checkpoint.Keep, error) {
	if flags.Last < 0 || flags.Every < 0 || flags.Best < 0 {
		return flags, usageErrorf("--keep, --keep-every and --keep-best are %d, %d and %d, want at least 0", flags.Last,
			flags.Every, flags.Best)
	}
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	if given("keep") && given("keep-every") && given("keep-best") {
		return flags, nil
	}
	c, err := checkpoint.Open(cmd.Context(), storage.OS, dir)
	if err != nil {
		return flags, err
	}
	job, err := config.Parse(dir+" (its job file)", []byte(c.State().Config), nil)
	if err != nil {
		return flags, err
	}
	keep := run.Keep(job)
	if given("keep") {
		keep.Last = flags.Last
	}
	if given("keep-every") {
		keep.Every = flags.Every
	}
	if given("keep-best") {
		keep.Best = flags.Best
	}
	return keep, nil
}

package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/run"
)

func newCheckpointReshardCommand() *cobra.Command {
	var asJSON bool
	var ranks int
	var sets []string
	cmd := &cobra.Command{
		Use:   "reshard SRC OUT",
		Short: "Write a checkpoint again, cut for another layout",
		Long: `Write a checkpoint again as the ranks of another layout would have saved it, into the output directory of a run that
has none yet. No run needs that: each loads a checkpoint of any layout. It makes loads by many ranks read their files from
end to end. SRC is a checkpoint, or a run, whose latest it is then; the layout is that of the job file in it, changed by
--set parallel.…, on --ranks ranks. Everything is verified as it is read; memory stays small whatever the model's size.`,
		Example: `  trainer checkpoint reshard runs/big /mnt/fast/big --ranks 64 --set parallel.tensor=8
  trainer checkpoint reshard runs/big/checkpoints/step-00001000.gen-1.a-1 runs/one --ranks 1`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := openAt(ctx, args[0])
			if err != nil {
				return err
			}
			job, err := config.Parse(c.Dir()+" (its job file)", []byte(c.State().Config), sets)
			if err != nil {
				return err
			}
			l, err := run.Layout(job, ranks)
			if err != nil {
				return err
			}
			lock, committer, err := claimOutput(ctx, args[1])
			if err != nil {
				return err
			}
			defer lock.Unlock()
			root := committer.Root
			progress, end := progressLine(cmd.ErrOrStderr(), filepath.Base(c.Dir()))
			ref, err := run.Reshard(ctx, storage.OS, root, c, job, l, progress)
			end()
			if err == nil {
				err = committer.Commit(ctx, ref)
			}
			switch {
			case err != nil:
				return err
			case asJSON:
				return printJSON(cmd.OutOrStdout(), ref)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is committed, for %d ranks (%v, zero %d)\n",
				filepath.Join(root, ref.Name), l.Mesh.World(), l.Mesh, l.Zero)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&ranks, "ranks", 0, "in all (default: the fewest that the job file asks for)")
	cmd.Flags().StringArrayVar(&sets, "set", nil, "override a value of the job file: `PATH=VALUE`")
	return cmd
}

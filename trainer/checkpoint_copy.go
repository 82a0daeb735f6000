package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
)

func newCheckpointCopyCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy checkpoints to another directory or bucket, and back",
		Long: `Copy a checkpoint, or the latest of a run, or all of them, to the output directory of a run, or to a bucket. Both
SRC and DST may be s3://BUCKET/PREFIX, with the credentials and the server of AWS's own tools (AWS_ACCESS_KEY_ID …, ~/.aws,
AWS_ENDPOINT_URL, AWS_REGION); SRC may name one checkpoint there. Every byte is compared with its digest on the way. The
manifest of a copy comes last and then latest, which is never moved back: a copy that was interrupted is no checkpoint, and
the same command completes it, without what is there already.`,
		Example: `  trainer checkpoint copy runs/llama3-124m s3://models/llama3-124m
  trainer checkpoint copy s3://models/llama3-124m/step-00001000.gen-1.a-1 runs/again
  trainer checkpoint copy --all runs/llama3-124m /mnt/archive/llama3-124m --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			from, names, err := copySource(ctx, args[0], all)
			if err != nil {
				return err
			}
			to, unlock, err := copyTarget(args[1])
			if err != nil {
				return err
			}
			defer unlock()
			refs := []checkpoint.Ref{}
			for _, name := range names {
				progress, end := progressLine(cmd.ErrOrStderr(), name)
				ref, err := checkpoint.Copy(ctx, to, from, name, progress)
				end()
				if err != nil {
					return err
				}
				err = checkpoint.StoreCommitter{Store: to}.Commit(ctx, ref)
				if err != nil && !errors.Is(err, checkpoint.ErrFenced) { // an older one is copied, too
					return err
				}
				refs = append(refs, ref)
				if !asJSON {
					fmt.Fprintf(cmd.OutOrStdout(), "%s is in %s\n", name, args[1])
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), refs)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&all, "all", false, "all checkpoints of SRC, not the latest alone")
	return cmd
}

// copySource is the store of what a path or URL means, and the names of the checkpoints to copy.
func copySource(ctx context.Context, at string, all bool) (from storage.Store, names []string, err error) {
	dir := ""
	if strings.HasPrefix(at, storage.S3Scheme) {
		if base := path.Base(at); strings.HasPrefix(base, "step-") {
			at, dir = strings.TrimSuffix(strings.TrimRight(at, "/"), base), base
		}
		from, err = storage.OpenS3(at)
	} else {
		var root string
		if root, dir, err = locate(at); dir != "" {
			dir = filepath.Base(dir)
		}
		from = storage.Folder{FS: storage.OS, Root: root}
	}
	switch {
	case err != nil:
		return nil, nil, err
	case dir != "" && all:
		return nil, nil, usageErrorf("--all, but %s is one checkpoint", at)
	case dir != "":
		return from, []string{dir}, nil
	case all:
		names, err = checkpoint.Names(ctx, from)
		if err == nil && len(names) == 0 {
			err = fmt.Errorf("no checkpoint in %s", at)
		}
		return from, names, err
	}
	head, err := checkpoint.StoreCommitter{Store: from}.Latest(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", at, err)
	}
	return from, []string{head.Name}, nil
}

// copyTarget is the store of a path or URL, the run's lock taken if it is a directory.
func copyTarget(at string) (to storage.Store, unlock func(), err error) {
	if to, err = checkpoint.OpenStore(at); err != nil || strings.HasPrefix(at, storage.S3Scheme) {
		return to, func() {}, err
	}
	if err := storage.MkdirAll(storage.OS, at); err != nil {
		return nil, nil, err
	}
	lock, err := storage.Lock(filepath.Join(at, "lock"))
	if err != nil {
		return nil, nil, err
	}
	return to, func() { _ = lock.Unlock() }, nil
}

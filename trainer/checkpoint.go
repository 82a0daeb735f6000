package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
)

func newCheckpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "List, describe, verify, compare, convert and tidy up checkpoints",
		Example: `  trainer checkpoint ls runs/llama3-debug
  trainer checkpoint verify runs/llama3-debug`,
	}
	cmd.AddCommand(newCheckpointLsCommand(), newCheckpointInspectCommand(), newCheckpointVerifyCommand(),
		newCheckpointDiffCommand(), newCheckpointReshardCommand(), newCheckpointPruneCommand(),
		newCheckpointCopyCommand(), newCheckpointImportCommand(), newCheckpointExportCommand())
	return cmd
}

// entryRow is one checkpoint directory as ls prints it.
type entryRow struct {
	checkpoint.Entry
	Problem string `json:"problem,omitempty"`
}

func newCheckpointLsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls DIR",
		Short: "List the checkpoints of a run",
		Long: `List the checkpoints of a run, given its output directory. A committed checkpoint is one to resume from; the
latest is marked, and the loss is that of the validation of these weights, if there was one. A sealed one is whole but was never committed; an unfinished one is being written, or was abandoned.
Tensors are not read: see verify.`,
		Example: `  trainer checkpoint ls runs/llama3-debug
  trainer checkpoint ls --json runs/llama3-debug`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, _, headErr := entriesOf(cmd.Context(), args[0])
			if entries == nil && headErr != nil {
				return headErr
			}
			rows := make([]entryRow, len(entries))
			for i, e := range entries {
				rows[i].Entry = e
				if e.Err != nil {
					rows[i].Problem = e.Err.Error()
				}
			}
			var err error
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), rows)
			} else {
				err = printEntries(cmd.OutOrStdout(), rows)
			}
			return errors.Join(err, headErr)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// entriesOf lists the checkpoints that path means, those of a run or one alone, below root. If what is committed
// cannot be told, the error says why, and the entries are given all the same.
func entriesOf(ctx context.Context, path string) (entries []checkpoint.Entry, root string, err error) {
	root, dir, err := locate(path)
	if err != nil {
		return nil, "", err
	}
	head, headErr := checkpoint.FileCommitter{FS: storage.OS, Root: root}.Latest(ctx)
	if errors.Is(headErr, checkpoint.ErrNone) {
		headErr = nil
	}
	entries, err = checkpoint.List(ctx, storage.OS, root, head)
	if err != nil {
		return nil, "", err
	}
	if dir != "" {
		for _, e := range entries {
			if e.Name == filepath.Base(dir) {
				return []checkpoint.Entry{e}, root, headErr
			}
		}
		return nil, "", fmt.Errorf("%s does not have the name of a checkpoint; see inspect", dir)
	}
	return entries, root, headErr
}

// locate is checkpoint.Locate of a path as typed, which may be "." or end in "..".
func locate(path string) (root, dir string, err error) {
	if base := filepath.Base(path); base == "." || base == ".." {
		if path, err = filepath.Abs(path); err != nil {
			return "", "", err
		}
	}
	return checkpoint.Locate(storage.OS, path)
}

func printEntries(out io.Writer, rows []entryRow) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tGENERATION\tSTATE\tLOSS\tSIZE\tCREATED\tNAME\tPARENT")
	for _, r := range rows {
		state, loss, created, parent := string(r.Status), "-", "-", "-"
		if r.ValidationLoss != 0 {
			loss = fmt.Sprintf("%.4f", r.ValidationLoss)
		}
		if r.Latest {
			state += ", latest"
		}
		if !r.Created.IsZero() {
			created = r.Created.Local().Format(time.DateTime)
		}
		if r.Parent != "" {
			parent = r.Parent
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Step, r.Generation, state, loss, megabytes(r.Bytes), created, r.Name,
			parent)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Status == checkpoint.Damaged {
			fmt.Fprintf(out, "%s: %s\n", r.Name, r.Problem)
		}
	}
	return nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

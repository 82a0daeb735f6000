package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
)

// verdict is what verify found of one checkpoint.
type verdict struct {
	Directory string  `json:"directory"`
	OK        bool    `json:"ok"`
	Problem   string  `json:"problem,omitempty"`
	Bytes     int64   `json:"bytes"`
	Seconds   float64 `json:"seconds"`
}

func newCheckpointVerifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Read every byte of checkpoints and check it",
		Long: `Read every byte of a checkpoint, or of all checkpoints of a run, and check it. The exit code is 1 if anything
is damaged; the file and the tensor are named. Unfinished checkpoints are not looked at, unless DIR is one.`,
		Example: `  trainer checkpoint verify runs/llama3-debug
  trainer checkpoint verify runs/llama3-debug/checkpoints/step-00000100.gen-1.a-1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dirs, headErr := checkpointDirs(cmd.Context(), args[0])
			if len(dirs) == 0 {
				return cmp.Or(headErr, fmt.Errorf("no checkpoint in %s", args[0]))
			}
			var verdicts []verdict
			errs := []error{headErr}
			for _, dir := range dirs {
				v, err := verify(cmd.Context(), dir, cmd.ErrOrStderr())
				verdicts, errs = append(verdicts, v), append(errs, err)
				if err == nil && !asJSON {
					fmt.Fprintf(cmd.OutOrStdout(), "%s is undamaged: %s read in %.1f s\n", dir, megabytes(v.Bytes),
						v.Seconds)
				}
			}
			if asJSON {
				errs = append(errs, printJSON(cmd.OutOrStdout(), verdicts))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// checkpointDirs is the directories that path means: that of one checkpoint, or those of a run that are finished. It
// may give both directories and an error, if only the committed one cannot be told.
func checkpointDirs(ctx context.Context, path string) ([]string, error) {
	_, dir, err := locate(path)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		return []string{dir}, nil
	}
	entries, root, err := entriesOf(ctx, path)
	var dirs []string
	for _, e := range entries {
		if e.Status != checkpoint.Unfinished {
			dirs = append(dirs, filepath.Join(root, e.Name))
		}
	}
	return dirs, err
}

// verify reads a checkpoint, with a progress line if log is a terminal.
func verify(ctx context.Context, dir string, log io.Writer) (verdict, error) {
	begin := time.Now()
	c, err := checkpoint.Open(ctx, storage.OS, dir)
	v := verdict{Directory: dir}
	if err == nil {
		v.Bytes = c.Bytes()
		progress, end := progressLine(log, filepath.Base(dir))
		err = c.Verify(ctx, progress)
		end()
	}
	v.OK, v.Seconds = err == nil, time.Since(begin).Seconds()
	if err != nil {
		v.Problem = err.Error()
	}
	return v, err
}

// progressLine draws bytes, rate and time left over and over on one line of a terminal; end wipes it. Where log is no
// terminal it draws nothing.
func progressLine(log io.Writer, name string) (progress func(done, total int64), end func()) {
	if _, ok := terminal(log); !ok {
		return nil, func() {}
	}
	begin := time.Now()
	drawn := begin
	progress = func(done, total int64) {
		now := time.Now()
		if now.Sub(drawn) < 100*time.Millisecond {
			return
		}
		drawn = now
		rate := float64(done) / now.Sub(begin).Seconds()
		left := time.Duration(float64(total-done) / rate * float64(time.Second))
		fmt.Fprintf(log, "\r\x1b[K%s: %s of %s, %s/s, %v left", name, megabytes(done), megabytes(total),
			megabytes(int64(rate)), left.Round(time.Second))
	}
	return progress, func() { fmt.Fprint(log, "\r\x1b[K") }
}

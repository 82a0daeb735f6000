package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/parallel"
	"github.com/herdtrain/herd/trainer/run"
)

func newRunCommand() *cobra.Command {
	var file, resume string
	var sets []string
	var simulate, processes int
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Train a job, from the start or from its newest good checkpoint",
		Long: `Run trains the job of a job file up to its last step. If the job's output directory holds checkpoints it goes on
from the newest one that is undamaged, and gives the same bits as a run that was never interrupted.

With --nproc or --simulate several ranks train together, as the job's parallel section says. When one of them fails the
run ends, and says which and why.

Interrupt it with Ctrl-C or SIGTERM: it finishes the step, saves, and ends with exit code 75; the same command goes on
from there. A second signal ends it at once.`,
		Example: `  trainer run --config configs/llama3-debug.yaml
  trainer run --config job.yaml --set train.steps=1000 --set data.train.0.path=runs/data/books
  trainer run --config job.yaml --nproc 4 --set parallel.tensor=2
  trainer run --config job.yaml --simulate 4 --set parallel.zero=1
  trainer run --config - < job.yaml
  trainer run --config job.yaml --resume runs/other/checkpoints/step-00000100.gen-1.a-1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			job, err := config.Load(file, sets)
			if err != nil {
				return err
			}
			o := run.Options{Resume: resume, Version: readBuildInfo().Version, Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr()}
			o.Width, o.Terminal = terminal(o.Out)
			again := []string{os.Args[0], "run", "--config", file}
			for _, f := range []struct {
				name  string
				ranks int
			}{{"simulate", simulate}, {"nproc", processes}} {
				switch {
				case !cmd.Flags().Changed(f.name):
				case f.ranks < 1:
					return usageErrorf("--%s is %d, want at least 1 rank", f.name, f.ranks)
				default:
					o.Ranks, again = f.ranks, append(again, "--"+f.name, fmt.Sprint(f.ranks))
				}
			}
			if processes > 0 {
				exe, err := os.Executable()
				if err != nil {
					return err
				}
				o.Command = []string{exe, rankCommand}
			}
			stop, end := stopOnSignal(cmd.ErrOrStderr())
			defer end()
			o.Stop = stop
			err = run.Run(cmd.Context(), job, o)
			if o.Ranks == 0 && errors.Is(err, parallel.ErrLayout) {
				err = fmt.Errorf("%w (--simulate N or --nproc N trains with N ranks)", err)
			}
			if exitCode(err) == exitStopped {
				for _, s := range sets {
					again = append(again, "--set", s)
				}
				err = fmt.Errorf("%w; go on with:\n  %s", err, commandLine(again))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "job file; - reads standard input")
	cmd.Flags().StringArrayVar(&sets, "set", nil, "override a value of the job file: path=value, list items by index")
	cmd.Flags().StringVar(&resume, "resume", "auto", "where to start: auto, none, or a checkpoint directory")
	cmd.Flags().IntVar(&simulate, "simulate", 0, "train with `N` ranks that are goroutines of this process, a core each")
	cmd.Flags().IntVar(&processes, "nproc", 0, "train with `N` ranks that are processes of this machine, which share its cores")
	cmd.MarkFlagsMutuallyExclusive("simulate", "nproc")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err)
	}
	return cmd
}

// stopOnSignal closes stop at the first SIGINT or SIGTERM, and ends the process at the second.
func stopOnSignal(log io.Writer) (stop <-chan struct{}, end func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	asked, done := make(chan struct{}), make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case s := <-signals:
				if n > 0 {
					fmt.Fprintf(log, "trainer: %v again: ending at once, without a checkpoint\n", s)
					os.Exit(exitStopped)
				}
				fmt.Fprintf(log, "trainer: %v: finishing the step and saving; once more ends at once\n", s)
				close(asked)
			case <-done:
				return
			}
		}
	}()
	return asked, func() {
		signal.Stop(signals)
		close(done)
	}
}

// terminal says whether out is one, and how wide.
func terminal(out io.Writer) (width int, ok bool) {
	f, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	return width, err == nil
}

// commandLine is args as one would type them.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if a == "" || strings.ContainsAny(a, " \t\n'\"\\$&|;<>()*?[]{}~#`!") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted[i] = a
	}
	return strings.Join(quoted, " ")
}

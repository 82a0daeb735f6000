package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/herdtrain/herd/dataset"
)

func newDataCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Prepare, inspect and verify datasets of token shards",
		Example: `  trainer data prepare --output runs/data/text --sequence-length 128 --tokenizer byte book.txt
  trainer data inspect runs/data/text
  trainer data verify runs/data/text`,
	}
	cmd.AddCommand(newDataPrepareCommand(), newDataInspectCommand(), newDataVerifyCommand())
	return cmd
}

func newDataPrepareCommand() *cobra.Command {
	var o dataset.PrepareOptions
	cmd := &cobra.Command{
		Use:   "prepare [flags] INPUT ...",
		Short: "Tokenize text into a dataset",
		Long: `Prepare reads documents, tokenizes them and writes a dataset for one sequence length. An INPUT is a text
file (one document), a directory (every text file below it, names that begin with a dot excepted) or - (standard input,
one document). Files of a directory that are empty, binary or unreadable are counted and skipped; named ones are an error.

With --tokenizer bpe the rank file --tokenizer-path is used; if it does not exist, it is trained on the documents, to
--vocab-size tokens. With --validation a fraction of the documents goes to a second dataset. The result depends on the
documents and the settings only. A dataset that is there already, with the same settings, is left as it is.`,
		Example: `  trainer data prepare --output runs/data/go-src --sequence-length 128 --include '*.go' --max-bytes 16MiB \
    --tokenizer bpe --tokenizer-path runs/data/tokenizer.model --vocab-size 1024 \
    --validation 0.05 --validation-output runs/data/go-src-val "$(go env GOROOT)/src"
  cat *.txt | trainer data prepare --output runs/data/text --sequence-length 128 --tokenizer byte -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Inputs = args
			if err := o.Validate(); err != nil {
				return usageErrorf("%w", err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			o.Stdin = cmd.InOrStdin()
			o.Progress = dataProgress(cmd)
			made, err := dataset.Prepare(ctx, o)
			if err != nil {
				return err
			}
			return made.Print(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Output, "output", "", "directory of the dataset (required)")
	f.StringArrayVar(&o.Include, "include", nil, "pattern of the file names to take, repeatable (default all)")
	f.Var((*byteSize)(&o.MaxBytes), "max-bytes", "most text to take, as 1000000, 16MiB or 2GB (default all)")
	f.Float64Var(&o.Validation, "validation", 0, "fraction of the documents to set apart for validation")
	f.StringVar(&o.ValidationOutput, "validation-output", "", "directory of the validation dataset")
	f.StringVar(&o.TokenizerKind, "tokenizer", dataset.KindBPE, "kind of tokenizer: bpe or byte")
	f.StringVar(&o.TokenizerPath, "tokenizer-path", "", "rank file of the bpe tokenizer, made if it does not exist")
	f.IntVar(&o.VocabSize, "vocab-size", 0, "vocabulary to train, special tokens included (default: the file's)")
	f.IntVar(&o.SequenceLength, "sequence-length", 0, "tokens in a training sequence (required)")
	f.IntVar(&o.ShardWindows, "shard-windows", 0, "sequences in a shard (default: about 128 MiB)")
	f.IntVar(&o.Workers, "workers", 0, "documents to tokenize at once (default: the number of CPUs)")
	f.BoolVar(&o.Force, "force", false, "replace a dataset that has other settings or is damaged")
	return cmd
}

func newDataInspectCommand() *cobra.Command {
	var window int64
	var tokenizerPath string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect [flags] DIR",
		Short: "Describe a dataset, and decode one of its windows",
		Example: `  trainer data inspect runs/data/go-src
  trainer data inspect --window 7 --json runs/data/go-src`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := dataset.Inspect(args[0], window, tokenizerPath)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), in)
			}
			return in.Print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().Int64Var(&window, "window", -1, "number of a window to decode (default none)")
	cmd.Flags().StringVar(&tokenizerPath, "tokenizer-path", "", "rank file to decode with (default: the manifest's)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newDataVerifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [flags] DIR",
		Short: "Read every byte of a dataset and name all that is damaged",
		Example: `  trainer data verify runs/data/go-src
  trainer data verify --json runs/data/go-src`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := dataset.Verify(cmd.Context(), args[0], dataProgress(cmd))
			if report == nil {
				return err
			}
			if asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), report), err)
			}
			return errors.Join(report.Print(cmd.OutOrStdout()), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// dataProgress shows progress on the command's standard error, live if that is a terminal.
func dataProgress(cmd *cobra.Command) *dataset.Progress {
	w := cmd.ErrOrStderr()
	f, ok := w.(*os.File)
	return dataset.NewProgress(w, ok && term.IsTerminal(int(f.Fd())))
}

// byteSize is a flag for a number of bytes: a whole number, with one of the units of sizeUnits or without.
type byteSize int64

var sizeUnits = []struct {
	name string
	size int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
}

func (b *byteSize) Set(s string) error {
	digits, size := s, int64(1)
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(s, u.name); ok {
			digits, size = d, u.size
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n < 0 || n > (1<<62)/size {
		return fmt.Errorf("want a number of bytes such as 1000000, 16MiB or 2GB")
	}
	*b = byteSize(n * size)
	return nil
}

func (b *byteSize) String() string { return strconv.FormatInt(int64(*b), 10) }
func (b *byteSize) Type() string   { return "size" }

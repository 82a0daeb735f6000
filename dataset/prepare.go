package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/herdtrain/herd/storage"
)

// PrepareOptions are the settings of Prepare. Validate fills in defaults.
type PrepareOptions struct {
	Inputs           []string // files (a document each), directories (walked), "-" (standard input, one document)
	Include          []string // patterns of path.Match for the files of directories, such as *.go; empty: all
	MaxBytes         int64    // of text, chosen by a hash of the names; 0: all
	Output           string   // directory of the dataset
	Validation       float64  // fraction of documents set apart, chosen by a hash of the text; 0: none
	ValidationOutput string   // directory of the dataset of those
	TokenizerKind    string   // KindByte or KindBPE
	TokenizerPath    string   // rank file of KindBPE; made from the training documents if it is not there
	VocabSize        int      // special tokens included; 0: as the tokenizer file has it
	SequenceLength   int      // L: a window is L+1 tokens
	ShardWindows     int      // windows in a shard; 0: about 128 MiB
	Workers          int      // documents tokenized at once; 0: as many as CPUs
	Force            bool     // replace a dataset that was made with other settings

	Stdin    io.Reader
	Progress *Progress
}

// defaultShardTokens is about the number of tokens in a shard: 128 MiB.
const defaultShardTokens = 32 << 20

// Prepared is what Prepare made or found.
type Prepared struct {
	Train      *Manifest
	Validation *Manifest // nil without a validation split
	Found      bool      // both were there already, with the same settings
}

// Print writes a line for each dataset.
func (p *Prepared) Print(w io.Writer) error {
	state := "ready"
	if p.Found {
		state = "already there"
	}
	for _, m := range []*Manifest{p.Train, p.Validation} {
		if m == nil {
			continue
		}
		dir := m.Origin.Output
		if m.Origin.Split == SplitValidation {
			dir = m.Origin.ValidationOutput
		}
		if _, err := fmt.Fprintf(w, "%s: %s: %d documents, %d tokens, %d windows of %d + 1\n",
			dir, state, m.Documents, m.Tokens, m.Windows, m.SequenceLength); err != nil {
			return err
		}
	}
	return nil
}

// Validate fills in defaults and reports all settings that make no sense, before anything is read.
func (o *PrepareOptions) Validate() error {
	var errs []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(len(o.Inputs) == 0, "no input: name files, directories or - for standard input")
	stdins := 0
	for _, in := range o.Inputs {
		if in == stdinName {
			stdins++
		}
	}
	bad(stdins > 1, "standard input is named %d times, it can be read once", stdins)
	bad(o.Output == "", "no output directory")
	for _, glob := range o.Include {
		_, err := path.Match(glob, "")
		bad(err != nil, "include pattern %q: %w", glob, err)
	}
	bad(o.MaxBytes < 0, "max-bytes %d, want 0 (all) or a positive number", o.MaxBytes)
	bad(!(o.Validation >= 0 && o.Validation < 1), "validation %v, want a fraction from 0 up to but not 1", o.Validation)
	bad(o.Validation > 0 && o.ValidationOutput == "", "validation %v needs a validation-output directory", o.Validation)
	bad(o.Validation == 0 && o.ValidationOutput != "", "validation-output needs a validation fraction above 0")
	bad(o.Output != "" && o.Output == o.ValidationOutput, "output and validation-output are both %s", o.Output)
	bad(o.SequenceLength < 1 || o.SequenceLength > maxSequence,
		"sequence-length %d, want 1 to %d", o.SequenceLength, maxSequence)
	bad(o.Workers < 0, "workers %d, want 0 (all CPUs) or a positive number", o.Workers)
	switch o.TokenizerKind {
	case KindByte:
		bad(o.TokenizerPath != "", "the byte tokenizer has no tokenizer-path, found %s", o.TokenizerPath)
		vocab := byteTokenizer{}.Vocab()
		bad(o.VocabSize != 0 && o.VocabSize != vocab, "vocab-size %d, the byte tokenizer has %d", o.VocabSize, vocab)
	case KindBPE:
		bad(o.TokenizerPath == "", "the bpe tokenizer needs a tokenizer-path: a rank file to use or to make")
		low := minRanks + 2
		bad(o.VocabSize != 0 && (o.VocabSize < low || o.VocabSize > maxRanks),
			"vocab-size %d, want %d to %d", o.VocabSize, low, maxRanks)
	default:
		bad(true, "unknown tokenizer %q, want %q or %q", o.TokenizerKind, KindByte, KindBPE)
	}
	row := max(2, o.SequenceLength+1)
	bad(o.ShardWindows < 0 || o.ShardWindows > maxShardTokens/row,
		"shard-windows %d, want 0 (about 128 MiB) to %d", o.ShardWindows, maxShardTokens/row)
	if o.ShardWindows == 0 {
		o.ShardWindows = max(1, defaultShardTokens/row)
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	return errors.Join(errs...)
}

// Prepare reads documents, tokenizes them and writes a dataset, and a second one for validation if asked to. The result
// depends on the documents and the settings alone, not on Workers. A dataset becomes visible when its manifest is
// written, at the very end; after an error there is none. If the datasets are there already, made with the same settings,
// nothing is done; if the settings differ, the error wraps ErrMismatch and says in what, unless Force is set.
func Prepare(ctx context.Context, o PrepareOptions) (*Prepared, error) {
	p := &preparer{o: o, write: storage.WriteFile}
	if err := p.o.Validate(); err != nil {
		return nil, err
	}
	defer o.Progress.Clear()
	return p.run(ctx)
}

type preparer struct {
	o     PrepareOptions
	write func(path string, data []byte) error
	tok   Tokenizer // nil until the tokenizer file is there
}

func (p *preparer) run(ctx context.Context) (*Prepared, error) {
	if err := p.openTokenizer(); err != nil {
		return nil, err
	}
	if found, err := p.existing(); found != nil || err != nil {
		return found, err
	}
	docs, skipped, err := scan(ctx, &p.o)
	if err != nil {
		return nil, err
	}
	if skipped.empty+skipped.binary+skipped.unreadable > 0 {
		p.o.Progress.Note("skipped files: %v", skipped)
	}
	for _, out := range p.outputs() {
		if err := os.MkdirAll(out.dir, 0o755); err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
	}
	if p.tok == nil {
		if err := p.trainTokenizer(ctx, docs); err != nil {
			return nil, err
		}
	}
	made, err := p.writeAll(ctx, docs)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", errors.Join(err, p.discard()))
	}
	return made, nil
}

// openTokenizer opens the tokenizer, unless it is one that is still to be trained.
func (p *preparer) openTokenizer() error {
	tok, err := OpenTokenizer(p.o.TokenizerKind, p.o.TokenizerPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case p.o.VocabSize != 0 && tok.Vocab() != p.o.VocabSize:
		return fmt.Errorf("tokenizer %s has a vocabulary of %d, vocab-size asks for %d: remove the file to train "+
			"another, or leave vocab-size out", p.o.TokenizerPath, tok.Vocab(), p.o.VocabSize)
	}
	p.tok = tok
	return nil
}

func (p *preparer) trainTokenizer(ctx context.Context, docs []document) error {
	if p.o.VocabSize == 0 {
		return fmt.Errorf("tokenizer %s does not exist: give a vocab-size to train it", p.o.TokenizerPath)
	}
	var total int64
	for _, d := range docs {
		if !d.validation {
			total += d.size
		}
	}
	p.o.Progress.Start("train tokenizer", total)
	tok, err := TrainBPE(ctx, trainingTexts(docs), p.o.VocabSize, p.o.Progress)
	if err != nil {
		return fmt.Errorf("train tokenizer: %w", err)
	}
	p.o.Progress.Finish()
	if err := os.MkdirAll(filepath.Dir(p.o.TokenizerPath), 0o755); err != nil {
		return err
	}
	if err := p.write(p.o.TokenizerPath, tok.File()); err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	p.tok = tok
	return nil
}

// output is one of the datasets to make.
type output struct {
	dir   string
	split string
}

func (p *preparer) outputs() []output {
	outs := []output{{p.o.Output, SplitTrain}}
	if p.o.Validation > 0 {
		outs = append(outs, output{p.o.ValidationOutput, SplitValidation})
	}
	return outs
}

// writeAll tokenizes docs into the outputs and commits them, validation last.
func (p *preparer) writeAll(ctx context.Context, docs []document) (*Prepared, error) {
	writers := map[string]*writer{}
	for _, out := range p.outputs() {
		w, err := newWriter(out.dir, p.manifest(out.split), p.o.ShardWindows, p.write)
		if err != nil {
			return nil, err
		}
		writers[out.split] = w
	}
	var total int64
	for _, d := range docs {
		total += d.size
	}
	p.o.Progress.Start("tokenize", total)
	err := tokenize(ctx, docs, p.tok, p.o.Workers, func(e encoded) error {
		w := writers[SplitTrain]
		if e.doc.validation {
			w = writers[SplitValidation]
		}
		w.manifest.Origin.Bytes += e.bytes
		p.o.Progress.Add(1, e.bytes, int64(len(e.ids)))
		return w.add(e.ids)
	})
	if err != nil {
		return nil, err
	}
	for _, w := range writers {
		if err := w.finish(); err != nil {
			return nil, err
		}
	}
	made := new(Prepared)
	if made.Train, err = writers[SplitTrain].commit(); err != nil {
		return nil, err
	}
	if w := writers[SplitValidation]; w != nil {
		if made.Validation, err = w.commit(); err != nil {
			return nil, err
		}
	}
	p.o.Progress.Finish()
	return made, nil
}

// manifest is what is known of the dataset of a split before its tokens are.
func (p *preparer) manifest(split string) Manifest {
	return Manifest{
		SequenceLength: p.o.SequenceLength,
		Tokenizer:      describe(p.o.TokenizerKind, p.tok),
		Origin: Origin{
			Inputs: p.o.Inputs, Include: p.o.Include, MaxBytes: p.o.MaxBytes, Output: p.o.Output,
			Validation: p.o.Validation, ValidationOutput: p.o.ValidationOutput, TokenizerPath: p.o.TokenizerPath,
			ShardWindows: p.o.ShardWindows, Split: split,
		},
	}
}

func describe(kind string, tok Tokenizer) TokenizerInfo {
	return TokenizerInfo{Kind: kind, Digest: tok.Digest(), Vocab: tok.Vocab(), BOS: tok.BOS(), EOS: tok.EOS()}
}

// discard removes what a failed prepare has written.
func (p *preparer) discard() error {
	var errs []error
	for _, out := range p.outputs() {
		err := os.Remove(filepath.Join(out.dir, manifestName))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		errs = append(errs, err, removeShards(out.dir))
	}
	return errors.Join(errs...)
}

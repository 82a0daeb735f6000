package dataset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Tokens is a part of a global batch: Seqs sequences of Length tokens. Position i of sequence s is element s·Length + i.
// The owner is whoever passes it to Batch, which reuses its memory.
type Tokens struct {
	Seqs, Length int
	Input        []int32 // the token at each position
	Target       []int32 // the token that follows; −1 where it does not count: in padding, or in another document
	First        []int32 // the position in its own sequence where the document of each position begins (0: no mask)
	Ordinal      []int64 // the global sample ordinal of each sequence
}

// reset makes room for seqs sequences of length tokens. It allocates only when they have never been that many.
func (t *Tokens) reset(seqs, length int) {
	n := seqs * length
	t.Seqs, t.Length = seqs, length
	t.Input, t.Target, t.First = resize(t.Input, n), resize(t.Target, n), resize(t.First, n)
	t.Ordinal = resize(t.Ordinal, seqs)
}

func resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

// Part is sequences First … First+Count−1 of the global batch.
type Part struct{ First, Count int }

// Stream gives the batches of a job. It has no state: a batch depends on the options and the content of the datasets
// alone and is the same bits on every rank and in every run. Methods may be called from several goroutines.
//
// Step s ≥ 0 takes the sample ordinals s·B … (s+1)·B − 1, for a global batch of B sequences. The mixture deals each
// ordinal to a source; a source deals out its windows in a keyed order, every window once an epoch, another order every
// epoch. See docs/format/dataset.md for the exact rule.
type Stream interface {
	// Batch sets into to a part of the global batch of a step. Errors that wrap ErrCorrupt name the file and the part.
	Batch(ctx context.Context, step int64, p Part, into *Tokens) error
	// Targets is the number of targets other than −1 in the whole global batch of a step. It reads only indexes.
	Targets(ctx context.Context, step int64) (int64, error)
	// Digest covers all that a batch depends on: the datasets, the mixture, the order, the seed, the batch size, the
	// length and the document mask.
	Digest() Digest
	// Close unmaps the shards, once calls in progress have returned; later calls return ErrClosed.
	Close() error
}

// Options are the settings of a stream.
type Options struct {
	Sources         []Source
	Length          int    // tokens in a sequence; the datasets must have been prepared for it
	GlobalBatch     int    // sequences in a step
	Seed            uint64 // of the order
	Order           Order
	Vocab           int    // of the model; 0: not checked
	TokenizerDigest string // of the job; "": not checked
	DocumentMask    bool   // documents in one window do not see each other
}

// Source is a dataset in a mixture.
type Source struct {
	Path   string
	Weight float64 // relative share of the samples; positive
}

// Order is how a source deals out its windows.
type Order int

// The orders.
const (
	Shuffled   Order = iota // in a keyed random order, another one each epoch
	Sequential              // 0, 1, 2, …, and from the start again: for evaluation
)

type stream struct {
	o       Options
	mix     *mixture
	sources []*source
	digest  Digest

	mu     sync.RWMutex // held for reading during Batch and Targets, for writing during Close
	closed bool
}

// Open opens datasets as one stream. It reads the manifests and the sizes of the files; everything else is checked when
// it is first used. Datasets that do not fit the options give an error that wraps ErrMismatch.
func Open(o Options) (Stream, error) {
	if o.Length < 1 || o.GlobalBatch < 1 {
		return nil, fmt.Errorf("dataset: length %d and global batch %d, want at least 1", o.Length, o.GlobalBatch)
	}
	if o.Order != Shuffled && o.Order != Sequential {
		return nil, fmt.Errorf("dataset: unknown order %d", o.Order)
	}
	s := &stream{o: o}
	weights := make([]float64, len(o.Sources))
	for i, src := range o.Sources {
		weights[i] = src.Weight
	}
	var err error
	if s.mix, err = newMixture(weights); err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	var errs []error
	for i, src := range o.Sources {
		source, err := openSource(src.Path, i, o)
		errs = append(errs, err)
		s.sources = append(s.sources, source)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.digest = s.makeDigest()
	return s, nil
}

func (s *stream) makeDigest() Digest {
	text := fmt.Sprintf("herd stream 1\nlength %d\nglobal_batch %d\nseed %d\norder %d\ndocument_mask %t\n",
		s.o.Length, s.o.GlobalBatch, s.o.Seed, s.o.Order, s.o.DocumentMask)
	for i, src := range s.sources {
		text += fmt.Sprintf("source %x %s\n", s.o.Sources[i].Weight, src.manifest.Digest())
	}
	return digestOf([]byte(text))
}

func (s *stream) Digest() Digest { return s.digest }

func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, src := range s.sources {
		errs = append(errs, src.close())
	}
	return errors.Join(errs...)
}

func (s *stream) Batch(ctx context.Context, step int64, p Part, into *Tokens) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(step, p); err != nil {
		return err
	}
	into.reset(p.Count, s.o.Length)
	for i := range p.Count {
		if err := ctx.Err(); err != nil {
			return err
		}
		ordinal := step*int64(s.o.GlobalBatch) + int64(p.First+i)
		into.Ordinal[i] = ordinal
		src, window := s.locate(ordinal)
		from, to := i*s.o.Length, (i+1)*s.o.Length
		row := sequence{into.Input[from:to], into.Target[from:to], into.First[from:to]}
		if err := src.read(window, row, s.o.DocumentMask); err != nil {
			return fmt.Errorf("step %d, sample %d: %w", step, ordinal, err)
		}
	}
	return nil
}

func (s *stream) Targets(ctx context.Context, step int64) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.check(step, Part{}); err != nil {
		return 0, err
	}
	var sum int64
	for i := range s.o.GlobalBatch {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		ordinal := step*int64(s.o.GlobalBatch) + int64(i)
		src, window := s.locate(ordinal)
		n, err := src.targets(window, s.o.DocumentMask)
		if err != nil {
			return 0, fmt.Errorf("step %d, sample %d: %w", step, ordinal, err)
		}
		sum += int64(n)
	}
	return sum, nil
}

func (s *stream) check(step int64, p Part) error {
	b := s.o.GlobalBatch
	switch {
	case s.closed:
		return ErrClosed
	case step < 0 || step >= int64(1)<<62/int64(b):
		return fmt.Errorf("dataset: step %d, want 0 to %d", step, int64(1)<<62/int64(b)-1)
	case p.First < 0 || p.Count < 0 || p.Count > b-p.First:
		return fmt.Errorf("dataset: %d sequences from %d, the global batch has %d", p.Count, p.First, b)
	}
	return nil
}

// locate is the window of a sample ordinal.
func (s *stream) locate(ordinal int64) (*source, int64) {
	j, n := s.mix.at(ordinal)
	src := s.sources[j]
	epoch, at := n/src.manifest.Windows, n%src.manifest.Windows
	if s.o.Order == Shuffled {
		at = src.order.at(at, epoch)
	}
	return src, at
}

package dataset

import (
	"errors"
	"fmt"
	"sort"
)

// source is one dataset of a stream.
type source struct {
	manifest *Manifest
	shards   []*shard
	first    []int64 // the first window of each shard
	order    permutation
}

// openSource opens dataset number i of a mixture.
func openSource(path string, i int, o Options) (*source, error) {
	m, err := ReadManifest(path)
	if err != nil {
		return nil, err
	}
	if err := m.fits(path, o); err != nil {
		return nil, err
	}
	s := &source{manifest: m}
	s.order = newPermutation(m.Windows, o.Seed, fmt.Sprintf("dataset/order/%d/%s", i, m.Digest()))
	var windows int64
	for n := range m.Shards {
		sh := &shard{dir: path, number: n, manifest: m, vocab: uint32(m.Tokenizer.Vocab)}
		if err := sh.checkSizes(); err != nil {
			return nil, err
		}
		s.shards = append(s.shards, sh)
		s.first = append(s.first, windows)
		windows += m.Shards[n].Windows
	}
	return s, nil
}

// fits reports all that makes the dataset at path unfit for a stream.
func (m *Manifest) fits(path string, o Options) error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w: "+format, append([]any{path, ErrMismatch}, args...)...))
	}
	if m.SequenceLength != o.Length {
		bad("it was prepared for sequence_length %d, the job has %d; prepare it again: %s",
			m.SequenceLength, o.Length, m.command(o.Length))
	}
	if o.TokenizerDigest != "" && m.Tokenizer.Digest != o.TokenizerDigest {
		bad("it was made with tokenizer %s, the job has %s", m.Tokenizer.Digest, o.TokenizerDigest)
	}
	if o.Vocab > 0 && m.Tokenizer.Vocab > o.Vocab {
		bad("its tokenizer has %d tokens, the model's vocabulary %d", m.Tokenizer.Vocab, o.Vocab)
	}
	return errors.Join(errs...)
}

func (s *source) close() error {
	var errs []error
	for _, sh := range s.shards {
		errs = append(errs, sh.close())
	}
	return errors.Join(errs...)
}

// shardOf is the shard of window w, and the number of w in it.
func (s *source) shardOf(w int64) (*shard, int) {
	i := sort.Search(len(s.first), func(i int) bool { return s.first[i] > w }) - 1
	return s.shards[i], int(w - s.first[i])
}

// sequence is one row of Tokens.
type sequence struct{ input, target, first []int32 }

func (s *source) read(w int64, to sequence, documentMask bool) error {
	sh, local := s.shardOf(w)
	return sh.window(local, func(x *shardIndex, tokens []uint32) int {
		if bad := to.setTokens(tokens, sh.vocab); bad >= 0 {
			return bad
		}
		at := local * (x.length + 1)
		real := min(len(tokens), x.tokens-at)
		to.maskPadding(real)
		clear(to.first)
		if documentMask {
			to.maskDocuments(x.within(at+1, at+real), at, real)
		}
		return -1
	})
}

// setTokens sets input and target from the L+1 tokens of a window. It returns the position of a token that is not below
// vocab, −1 if there is none.
func (q sequence) setTokens(tokens []uint32, vocab uint32) (badToken int) {
	previous := tokens[0]
	if previous >= vocab {
		return 0
	}
	for i, t := range tokens[1:] {
		if t >= vocab {
			return i + 1
		}
		q.input[i], q.target[i] = int32(previous), int32(t)
		previous = t
	}
	return -1
}

// maskPadding takes away the targets that lie behind the first real tokens of the window.
func (q sequence) maskPadding(real int) {
	for i := real - 1; i < len(q.target); i++ {
		q.target[i] = -1
	}
}

// maskDocuments takes away the targets in another document than their input, and sets first. starts are the documents
// that begin inside the window, which begins at position at of the shard; padding from position real of the window
// counts as one more.
func (q sequence) maskDocuments(starts []uint32, at, real int) {
	for _, s := range starts {
		q.target[int(s)-at-1] = -1
		if i := int(s) - at; i < len(q.first) {
			q.first[i] = int32(i)
		}
	}
	if real < len(q.first) {
		q.first[real] = int32(real)
	}
	for i := 1; i < len(q.first); i++ {
		q.first[i] = max(q.first[i], q.first[i-1])
	}
}

func (s *source) targets(w int64, documentMask bool) (int, error) {
	sh, local := s.shardOf(w)
	o, err := sh.open()
	if err != nil {
		return 0, err
	}
	return o.index.validTargets(local, documentMask), nil
}

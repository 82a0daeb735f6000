package dataset

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
)

// Inspection describes a dataset.
type Inspection struct {
	Dir      string      `json:"dir"`
	Digest   string      `json:"digest"`
	Manifest *Manifest   `json:"manifest"`
	Lengths  Lengths     `json:"document_lengths"`
	Window   *WindowView `json:"window,omitempty"`
}

// Lengths summarises the lengths of documents in tokens, BOS and EOS included.
type Lengths struct {
	Min     int64          `json:"min"`
	Mean    float64        `json:"mean"`
	Max     int64          `json:"max"`
	Buckets []LengthBucket `json:"buckets"` // ascending, without gaps
}

// LengthBucket counts the documents of From … To−1 tokens.
type LengthBucket struct {
	From  int64 `json:"from"`
	To    int64 `json:"to"`
	Count int64 `json:"count"`
}

// WindowView is one window.
type WindowView struct {
	Number    int64   `json:"number"`
	Tokens    []int32 `json:"tokens"`    // L+1, padding included
	Documents []int   `json:"documents"` // positions in Tokens where documents begin
	Real      int     `json:"real"`      // tokens that are not padding
	Text      string  `json:"text"`      // of the real ones, invalid UTF-8 replaced
}

// Inspect describes the dataset in dir. With window ≥ 0 it also decodes that window, with the tokenizer whose file is
// tokenizerPath, or "" for the one that the manifest names.
func Inspect(dir string, window int64, tokenizerPath string) (in *Inspection, err error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	s, err := openSource(dir, 0, Options{Length: m.SequenceLength})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	in = &Inspection{Dir: dir, Digest: m.Digest().String(), Manifest: m}
	if in.Lengths, err = s.lengths(); err != nil {
		return nil, err
	}
	if window < 0 {
		return in, nil
	}
	if window >= m.Windows {
		return nil, fmt.Errorf("%s: window %d, it has windows 0 to %d", dir, window, m.Windows-1)
	}
	if in.Window, err = s.view(window, tokenizerPath); err != nil {
		return nil, err
	}
	return in, nil
}

// lengths reads all indexes.
func (s *source) lengths() (Lengths, error) {
	var counts [65]int64 // by bits of the length
	var l Lengths
	var base, start int64 // of the shard and of the document that is open; there is none before the first
	first := true
	add := func(end int64) {
		n := end - start
		counts[bits.Len64(uint64(n))]++
		if l.Min == 0 || n < l.Min {
			l.Min = n
		}
		l.Max = max(l.Max, n)
	}
	for i, sh := range s.shards {
		x, err := sh.readIndex()
		if err != nil {
			return Lengths{}, inFile(sh.indexPath(), err)
		}
		for _, at := range x.starts {
			if !first {
				add(base + int64(at))
			}
			first, start = false, base+int64(at)
		}
		base += s.manifest.shardTokens(i)
	}
	add(base)
	l.Mean = float64(s.manifest.Tokens) / float64(s.manifest.Documents)
	for n := bits.Len64(uint64(l.Min)); n <= bits.Len64(uint64(l.Max)); n++ {
		l.Buckets = append(l.Buckets, LengthBucket{int64(1) << n / 2, int64(1) << n, counts[n]})
	}
	return l, nil
}

func (s *source) view(window int64, tokenizerPath string) (*WindowView, error) {
	info := s.manifest.Tokenizer
	if tokenizerPath == "" {
		tokenizerPath = s.manifest.Origin.TokenizerPath
	}
	tok, err := OpenTokenizer(info.Kind, tokenizerPath)
	if err != nil {
		return nil, err
	}
	if tok.Digest() != info.Digest {
		return nil, fmt.Errorf("tokenizer %s: %w: its digest is %s, the dataset was made with %s",
			tokenizerPath, ErrMismatch, tok.Digest(), info.Digest)
	}
	v := &WindowView{Number: window, Documents: []int{}}
	sh, local := s.shardOf(window)
	err = sh.window(local, func(x *shardIndex, tokens []uint32) int {
		at := local * len(tokens)
		v.Real = min(len(tokens), x.tokens-at)
		for i, t := range tokens {
			if t >= sh.vocab {
				return i
			}
			v.Tokens = append(v.Tokens, int32(t))
		}
		for _, start := range x.within(at, at+v.Real) {
			v.Documents = append(v.Documents, int(start)-at)
		}
		return -1
	})
	if err != nil {
		return nil, err
	}
	v.Text = strings.ToValidUTF8(string(tok.Decode(nil, v.Tokens[:v.Real])), "\uFFFD")
	return v, nil
}

// Print writes the inspection for people.
func (in *Inspection) Print(w io.Writer) error {
	m, o := in.Manifest, in.Manifest.Origin
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-16s"+format+"\n", append([]any{name}, args...)...)
	}
	row("dataset", "%s", in.Dir)
	row("digest", "%s", in.Digest)
	row("split", "%s", o.Split)
	row("inputs", "%s", strings.Join(o.Inputs, " "))
	row("text", "%d bytes, %.2f bytes a token", o.Bytes, float64(o.Bytes)/float64(m.Tokens))
	row("tokenizer", "%s, vocabulary %d, %s", m.Tokenizer.Kind, m.Tokenizer.Vocab, m.Tokenizer.Digest)
	row("windows", "%d of %d + 1 tokens", m.Windows, m.SequenceLength)
	row("tokens", "%d", m.Tokens)
	row("shards", "%d", len(m.Shards))
	row("documents", "%d of %d to %d tokens, mean %.1f", m.Documents, in.Lengths.Min, in.Lengths.Max, in.Lengths.Mean)
	for _, c := range in.Lengths.Buckets {
		bar := strings.Repeat("#", int((c.Count*40+m.Documents-1)/m.Documents))
		row("", "%10d – %-10d %10d %s", c.From, c.To-1, c.Count, bar)
	}
	if v := in.Window; v != nil {
		row("window", "%d: %d tokens, documents begin at %v", v.Number, v.Real, v.Documents)
		fmt.Fprintf(&b, "%s\n", v.Text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

package dataset

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"sync"
)

// BPE is a byte-level byte-pair encoding in the manner of tiktoken: text is split into pieces (see splitPiece); a piece
// that is a token is that token, any other is merged from its bytes, always the adjacent pair whose bytes form the
// token of lowest rank, the leftmost of equals, until no pair forms a token. (A piece above a megabyte is merged in
// parts.) The ids are the ranks, then BOS and EOS.
type BPE struct {
	ranks   map[string]int32
	tokens  []string // by rank
	longest int      // of tokens, in bytes
	digest  Digest
	merges  sync.Pool // of *merger
}

const (
	minRanks = 256     // every byte is a token, so that all text can be encoded
	maxRanks = 1 << 24 // far above any vocabulary in use
)

// ParseBPE reads a rank file in the text format of tiktoken: a line for each token, its bytes in standard base64, a
// space and its rank in decimal; ranks run from 0 in steps of 1. All 256 single bytes must be there. An error names the
// line and wraps ErrCorrupt.
func ParseBPE(data []byte) (*BPE, error) {
	tokens := make([]string, 0, bytes.Count(data, []byte{'\n'})+1)
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		token, err := parseRank(line, len(tokens))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", len(tokens)+1, ErrCorrupt, err)
		}
		tokens, data = append(tokens, token), rest
	}
	return newBPE(tokens)
}

func parseRank(line []byte, want int) (string, error) {
	text, rank, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return "", fmt.Errorf("%.80q, want base64, a space and a rank", line)
	}
	token, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return "", fmt.Errorf("token %.80q: %w", text, err)
	}
	switch {
	case len(token) == 0:
		return "", fmt.Errorf("an empty token")
	case string(rank) != strconv.Itoa(want):
		return "", fmt.Errorf("rank %.80q, want %d (ranks are contiguous from 0)", rank, want)
	case want == maxRanks:
		return "", fmt.Errorf("more than %d ranks", maxRanks)
	}
	return string(token), nil
}

// newBPE indexes tokens, listed by rank.
func newBPE(tokens []string) (*BPE, error) {
	t := &BPE{ranks: make(map[string]int32, len(tokens)), tokens: tokens}
	for i, token := range tokens {
		if first, dup := t.ranks[token]; dup {
			return nil, fmt.Errorf("line %d: %w: token %.80q has rank %d already", i+1, ErrCorrupt, token, first)
		}
		t.ranks[token] = int32(i)
		t.longest = max(t.longest, len(token))
	}
	for b := range 256 {
		if _, ok := t.ranks[string([]byte{byte(b)})]; !ok {
			return nil, fmt.Errorf("line %d: %w: the file ends and byte 0x%02x is no token; all 256 must be",
				len(tokens)+1, ErrCorrupt, b)
		}
	}
	t.digest = digestOf(append([]byte("herd tokenizer 1: bpe, llama 3 split, ranks + bos + eos\n"), t.File()...))
	t.merges.New = func() any { return &merger{bpe: t, cache: make(map[string][]int32)} }
	return t, nil
}

// File is the rank file of t; ParseBPE reads it back.
func (t *BPE) File() []byte {
	var out []byte
	for rank, token := range t.tokens {
		out = base64.StdEncoding.AppendEncode(out, []byte(token))
		out = append(out, ' ')
		out = strconv.AppendInt(out, int64(rank), 10)
		out = append(out, '\n')
	}
	return out
}

// Encode implements Tokenizer.
func (t *BPE) Encode(dst []int32, text []byte) []int32 {
	m := t.merges.Get().(*merger)
	defer t.merges.Put(m)
	for len(text) > 0 {
		n := splitPiece(text)
		if id, ok := t.ranks[string(text[:n])]; ok {
			dst = append(dst, id)
		} else {
			dst = m.encode(dst, text[:n])
		}
		text = text[n:]
	}
	return dst
}

// Decode implements Tokenizer.
func (t *BPE) Decode(dst []byte, ids []int32) []byte {
	for _, id := range ids {
		if id >= 0 && int(id) < len(t.tokens) {
			dst = append(dst, t.tokens[id]...)
		} else {
			dst = appendSpecial(dst, t, id)
		}
	}
	return dst
}

// Vocab implements Tokenizer: the ranks, BOS and EOS.
func (t *BPE) Vocab() int { return len(t.tokens) + 2 }

// BOS implements Tokenizer: "<|begin_of_text|>", the first id after the ranks.
func (t *BPE) BOS() int32 { return int32(len(t.tokens)) }

// EOS implements Tokenizer: "<|end_of_text|>", the second id after the ranks.
func (t *BPE) EOS() int32 { return int32(len(t.tokens) + 1) }

// Digest implements Tokenizer.
func (t *BPE) Digest() string { return t.digest.String() }

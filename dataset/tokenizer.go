package dataset

import (
	"fmt"
	"os"
)

// Tokenizer maps text, which is any bytes, to token ids and back. Decode(Encode(text)) is text, byte for byte, also
// when text is not valid UTF-8. Special tokens never come out of text: Encode spells "<|end_of_text|>" like any other
// string. Methods may be called from several goroutines.
type Tokenizer interface {
	// Encode appends the ids of text to dst, without BOS and EOS.
	Encode(dst []int32, text []byte) []int32
	// Decode appends the bytes of ids to dst. A special token gives its name; an id outside the vocabulary gives
	// U+FFFD.
	Decode(dst []byte, ids []int32) []byte
	// Vocab is the number of ids, special tokens included: ids are 0 … Vocab−1.
	Vocab() int
	// BOS and EOS are the ids that open and close a document, −1 if there is none.
	BOS() int32
	EOS() int32
	// Digest names the tokenizer by content: equal digests give equal ids for every text.
	Digest() string
}

// Kinds of tokenizers.
const (
	KindByte = "byte" // one token a byte, no file
	KindBPE  = "bpe"  // byte-level BPE, from a tiktoken rank file
)

const (
	bosName = "<|begin_of_text|>"
	eosName = "<|end_of_text|>"
)

// OpenTokenizer makes the tokenizer of a kind. KindByte has no file: path must be empty. KindBPE reads path.
func OpenTokenizer(kind, path string) (Tokenizer, error) {
	switch kind {
	case KindByte:
		if path != "" {
			return nil, fmt.Errorf("tokenizer of kind %q has no file, found path %q", kind, path)
		}
		return byteTokenizer{}, nil
	case KindBPE:
		if path == "" {
			return nil, fmt.Errorf("tokenizer of kind %q needs the path of its rank file", kind)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
		t, err := ParseBPE(data)
		if err != nil {
			return nil, fmt.Errorf("tokenizer %s: %w", path, err)
		}
		return t, nil
	}
	return nil, fmt.Errorf("unknown tokenizer kind %q, want %q or %q", kind, KindByte, KindBPE)
}

// byteTokenizer is ids 0–255 for the bytes, then BOS and EOS.
type byteTokenizer struct{}

func (byteTokenizer) Encode(dst []int32, text []byte) []int32 {
	for _, b := range text {
		dst = append(dst, int32(b))
	}
	return dst
}

func (t byteTokenizer) Decode(dst []byte, ids []int32) []byte {
	for _, id := range ids {
		if id >= 0 && id < 256 {
			dst = append(dst, byte(id))
		} else {
			dst = appendSpecial(dst, t, id)
		}
	}
	return dst
}

func (byteTokenizer) Vocab() int     { return 258 }
func (byteTokenizer) BOS() int32     { return 256 }
func (byteTokenizer) EOS() int32     { return 257 }
func (byteTokenizer) Digest() string { return digestOf([]byte("herd tokenizer 1: byte\n")).String() }

// appendSpecial appends what Decode writes for an id that is no text.
func appendSpecial(dst []byte, t Tokenizer, id int32) []byte {
	switch id {
	case t.BOS():
		return append(dst, bosName...)
	case t.EOS():
		return append(dst, eosName...)
	}
	return append(dst, "\uFFFD"...)
}

// Package dataset turns text into tokens and tokens into training batches.
//
// A Tokenizer maps bytes to token ids and back. Prepare reads documents, tokenizes them and writes a dataset: a
// directory of Arrow shards with checksummed indexes and a manifest, cut into windows of L+1 tokens
// (docs/format/dataset.md). Open gives the Stream of one or several datasets: batch s of a job, as a pure function of the
// datasets, the mixture and the seed. Verify reads every byte of a dataset and names what is damaged.
package dataset

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"
)

// Errors that callers can tell apart with errors.Is.
var (
	// ErrCorrupt is bytes that are not what was written: the message names the file and the part. A retry cannot help.
	ErrCorrupt = errors.New("corrupt data")
	// ErrUnfinished is a directory without a manifest: never prepared, or prepared only in part.
	ErrUnfinished = errors.New("not a finished dataset")
	// ErrVersion is a file of a format version that this build does not read.
	ErrVersion = errors.New("unsupported format version")
	// ErrMismatch is a sound dataset that does not fit what it is used for: another sequence length, tokenizer or
	// vocabulary, or other settings than those it was prepared with.
	ErrMismatch = errors.New("dataset does not fit")
	// ErrClosed is a use of a stream after Close.
	ErrClosed = errors.New("dataset stream is closed")
)

// Digest is a BLAKE3-256 hash.
type Digest [32]byte

const digestPrefix = "blake3:"

// String is "blake3:" and 64 hexadecimal digits, the form that manifests and job files use.
func (d Digest) String() string { return digestPrefix + hex.EncodeToString(d[:]) }

// MarshalText is String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the form of String.
func (d *Digest) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), digestPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(d) || digits != strings.ToLower(digits) {
		return fmt.Errorf("digest %.80q: want %q and 64 lower-case hexadecimal digits", text, digestPrefix)
	}
	copy(d[:], b)
	return nil
}

func digestOf(data []byte) Digest { return blake3.Sum256(data) }

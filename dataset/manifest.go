package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	manifestName    = "manifest.json"
	formatName      = "herd-dataset"
	formatVersion   = 1
	maxManifest     = 1 << 28 // bytes; a shard takes about 250
	maxShardTokens  = 1 << 28 // 1 GiB: a shard is put together in memory
	maxSequence     = 1 << 24 // tokens
	checksumKey     = "\n  \"checksum\": \""
	checksumEnd     = "\"\n}\n"
	checksumLineLen = len(checksumKey) + len(digestPrefix) + 64 + len(checksumEnd)
)

// Manifest describes a dataset: what it holds, the digests of its files, and what it was made from. It is the file
// manifest.json, written last.
type Manifest struct {
	Format         string        `json:"format"`
	Version        int           `json:"version"`
	SequenceLength int           `json:"sequence_length"` // L: a window is L+1 tokens
	Windows        int64         `json:"windows"`
	Tokens         int64         `json:"tokens"` // BOS and EOS included, the padding of the last window not
	Documents      int64         `json:"documents"`
	Tokenizer      TokenizerInfo `json:"tokenizer"`
	Shards         []ShardInfo   `json:"shards"` // shard i is the files shard-<i, five digits>.arrow and .index
	Origin         Origin        `json:"origin"`
}

// TokenizerInfo is the tokenizer that made the tokens.
type TokenizerInfo struct {
	Kind   string `json:"kind"`
	Digest string `json:"digest"`
	Vocab  int    `json:"vocab"`
	BOS    int32  `json:"bos"` // −1: none
	EOS    int32  `json:"eos"`
}

// ShardInfo is the two files of a shard.
type ShardInfo struct {
	Windows     int64  `json:"windows"`
	Bytes       int64  `json:"bytes"` // of the Arrow file
	Blake3      Digest `json:"blake3"`
	IndexBytes  int64  `json:"index_bytes"`
	IndexBlake3 Digest `json:"index_blake3"`
}

// Origin is what a dataset was made from and how. It is a record for people and for Prepare, which compares it with new
// settings; the digest of the dataset leaves it out. The fields are those of PrepareOptions unless said.
type Origin struct {
	Inputs           []string `json:"inputs"`
	Include          []string `json:"include,omitempty"`
	MaxBytes         int64    `json:"max_bytes,omitempty"`
	Output           string   `json:"output"`
	Validation       float64  `json:"validation,omitempty"`
	ValidationOutput string   `json:"validation_output,omitempty"`
	TokenizerPath    string   `json:"tokenizer_path,omitempty"`
	ShardWindows     int      `json:"shard_windows"`
	Split            string   `json:"split"` // SplitTrain or SplitValidation
	Bytes            int64    `json:"bytes"` // of text in the documents
}

// Values of Origin.Split.
const (
	SplitTrain      = "train"
	SplitValidation = "validation"
)

// ReadManifest reads and checks the manifest of the dataset in dir. The error is ErrUnfinished if there is none,
// ErrVersion if it is of another version, ErrCorrupt if it is damaged.
func ReadManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, manifestName)
	data, err := readLimited(path, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(dir); statErr != nil {
			return nil, fmt.Errorf("dataset: %w", statErr)
		}
		return nil, fmt.Errorf("%s: %w: it has no %s, so 'trainer data prepare' did not finish; run it again",
			dir, ErrUnfinished, manifestName)
	}
	var m *Manifest
	if err == nil {
		m, err = parseManifest(data)
	}
	if err != nil {
		return nil, inFile(path, err)
	}
	return m, nil
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: longer than %d bytes", ErrCorrupt, limit)
	}
	return data, err
}

func parseManifest(data []byte) (*Manifest, error) {
	n := len(data) - checksumLineLen
	if n < 1 {
		return nil, fmt.Errorf("%w: %d bytes are too few for a manifest", ErrCorrupt, len(data))
	}
	if want := checksumLine(data[:n]); string(data[n:]) != want {
		return nil, fmt.Errorf("%w: the checksum at the end is not that of the bytes before it", ErrCorrupt)
	}
	body, ok := bytes.CutSuffix(data[:n], []byte(","))
	if !ok {
		return nil, fmt.Errorf("%w: no comma before the checksum", ErrCorrupt)
	}
	data = append(bytes.Clone(body), "\n}"...)
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if head.Format != formatName {
		return nil, fmt.Errorf("%w: format %.80q, want %q", ErrCorrupt, head.Format, formatName)
	}
	if head.Version != formatVersion {
		return nil, fmt.Errorf("%w: version %d, this build reads version %d", ErrVersion, head.Version, formatVersion)
	}
	m := new(Manifest)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return m, nil
}

// encode is the file of m: indented JSON whose last key is the checksum of every byte before its line.
func (m *Manifest) encode() ([]byte, error) {
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	body = append(bytes.TrimSuffix(body, []byte("\n}")), ',')
	return append(body, checksumLine(body)...), nil
}

func checksumLine(body []byte) string { return checksumKey + digestOf(body).String() + checksumEnd }

// validate reports the first thing in m that contradicts the format.
func (m *Manifest) validate() error {
	row := int64(m.SequenceLength) + 1
	t := m.Tokenizer
	switch {
	case m.SequenceLength < 1 || m.SequenceLength > maxSequence:
		return fmt.Errorf("sequence_length %d, want 1 to %d", m.SequenceLength, maxSequence)
	case len(m.Shards) == 0:
		return errors.New("no shards")
	case t.Vocab < 1 || t.Vocab > maxRanks+2:
		return fmt.Errorf("tokenizer.vocab %d, want 1 to %d", t.Vocab, maxRanks+2)
	case t.BOS < -1 || int(t.BOS) >= t.Vocab || t.EOS < -1 || int(t.EOS) >= t.Vocab:
		return fmt.Errorf("tokenizer.bos %d and eos %d, want −1 or a token below %d", t.BOS, t.EOS, t.Vocab)
	}
	var windows int64
	for i, s := range m.Shards {
		if s.Windows < 1 || s.Windows > maxShardTokens/row {
			return fmt.Errorf("shards[%d].windows %d, want 1 to %d", i, s.Windows, maxShardTokens/row)
		}
		if s.Bytes < 1 || s.IndexBytes < 1 {
			return fmt.Errorf("shards[%d]: %d and %d bytes, want positive numbers", i, s.Bytes, s.IndexBytes)
		}
		windows += s.Windows
	}
	switch {
	case m.Windows != windows:
		return fmt.Errorf("windows %d, its shards have %d", m.Windows, windows)
	case m.Tokens <= (windows-1)*row || m.Tokens > windows*row:
		return fmt.Errorf("tokens %d, want %d to %d for %d windows", m.Tokens, (windows-1)*row+1, windows*row, windows)
	case m.Documents < 1 || m.Documents > m.Tokens:
		return fmt.Errorf("documents %d, want 1 to %d (tokens)", m.Documents, m.Tokens)
	}
	return nil
}

// Digest names the content of the dataset: equal digests mean equal windows. It covers everything but Origin.
func (m *Manifest) Digest() Digest {
	var b bytes.Buffer
	fmt.Fprintf(&b, "herd dataset 1\nsequence_length %d\nwindows %d\ntokens %d\ndocuments %d\n",
		m.SequenceLength, m.Windows, m.Tokens, m.Documents)
	t := m.Tokenizer
	fmt.Fprintf(&b, "tokenizer %s %s %d %d %d\n", t.Kind, t.Digest, t.Vocab, t.BOS, t.EOS)
	for _, s := range m.Shards {
		fmt.Fprintf(&b, "shard %d %d %s %d %s\n", s.Windows, s.Bytes, s.Blake3, s.IndexBytes, s.IndexBlake3)
	}
	return digestOf(b.Bytes())
}

// shardTokens is the number of tokens of shard i that are not padding.
func (m *Manifest) shardTokens(i int) int64 {
	row := int64(m.SequenceLength) + 1
	n := m.Shards[i].Windows * row
	if i == len(m.Shards)-1 {
		n -= m.Windows*row - m.Tokens
	}
	return n
}

func arrowName(i int) string { return fmt.Sprintf("shard-%05d.arrow", i) }
func indexName(i int) string { return fmt.Sprintf("shard-%05d.index", i) }

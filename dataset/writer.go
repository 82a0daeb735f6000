package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// writer writes a dataset: shard after shard, each with its index, and the manifest last. Until then the directory is
// no dataset. One goroutine uses it.
type writer struct {
	dir      string
	windows  int // in a shard
	perBatch int // windows in a record batch
	write    func(path string, data []byte) error
	shard    *shardWriter // nil between shards
	manifest Manifest
}

var shardFile = regexp.MustCompile(`^shard-\d{5,}\.(arrow|index)(\.tmp)?$`)

// newWriter starts a dataset in dir, which it makes if need be. A dataset that is there ends with this call.
func newWriter(dir string, m Manifest, shardWindows int, write func(string, []byte) error) (*writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(dir, manifestName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := removeShards(dir); err != nil {
		return nil, err
	}
	perBatch := windowsPerBatch(m.SequenceLength)
	return &writer{dir: dir, windows: shardWindows, perBatch: perBatch, write: write, manifest: m}, nil
}

// removeShards removes what an earlier prepare left in dir, and nothing else.
func removeShards(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if shardFile.MatchString(e.Name()) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// add appends one document: its tokens, BOS and EOS included.
func (w *writer) add(tokens []int32) error {
	first := true
	for len(tokens) > 0 {
		if w.shard == nil {
			var err error
			if w.shard, err = newShardWriter(w.manifest.SequenceLength, w.perBatch); err != nil {
				return err
			}
		}
		if first {
			w.shard.startDocument()
			first = false
		}
		room := w.windows*(w.manifest.SequenceLength+1) - w.shard.size()
		n := min(room, len(tokens))
		if err := w.shard.append(tokens[:n]); err != nil {
			return err
		}
		w.manifest.Tokens += int64(n)
		tokens = tokens[n:]
		if n == room {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	w.manifest.Documents++
	return nil
}

func (w *writer) flush() error {
	arrowFile, indexFile, info, err := w.shard.finish(max(0, w.manifest.Tokenizer.EOS))
	if err != nil {
		return err
	}
	w.shard = nil
	i := len(w.manifest.Shards)
	if err := w.write(filepath.Join(w.dir, arrowName(i)), arrowFile); err != nil {
		return err
	}
	if err := w.write(filepath.Join(w.dir, indexName(i)), indexFile); err != nil {
		return err
	}
	w.manifest.Shards = append(w.manifest.Shards, info)
	w.manifest.Windows += info.Windows
	return nil
}

// finish writes the last shard. The dataset is not there yet: commit makes it one.
func (w *writer) finish() error {
	if w.shard == nil {
		return nil
	}
	return w.flush()
}

// commit writes the manifest.
func (w *writer) commit() (*Manifest, error) {
	m := &w.manifest
	m.Format, m.Version = formatName, formatVersion
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	return m, w.write(filepath.Join(w.dir, manifestName), data)
}

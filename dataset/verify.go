package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"golang.org/x/sys/unix"
)

// Report is what Verify found.
type Report struct {
	Dir       string  `json:"dir"`
	Digest    string  `json:"digest,omitempty"` // of the content; empty if the manifest cannot be read
	Shards    int     `json:"shards"`
	Windows   int64   `json:"windows"`
	Documents int64   `json:"documents"`
	Tokens    int64   `json:"tokens"`
	Bytes     int64   `json:"bytes"` // read and checked
	Faults    []Fault `json:"faults"`
}

// Fault is one thing that is wrong.
type Fault struct {
	File    string `json:"file"`           // its name in the directory
	Part    string `json:"part,omitempty"` // such as "batch 3"; empty: the file as a whole
	Problem string `json:"problem"`
}

// String is the fault on one line.
func (f Fault) String() string {
	if f.Part == "" {
		return f.File + ": " + f.Problem
	}
	return f.File + ": " + f.Part + ": " + f.Problem
}

// maxTokenFaults bounds the faults reported for the tokens of one shard.
const maxTokenFaults = 20

// Verify reads every byte of the dataset in dir and compares it with all that is recorded about it: the checksums of
// manifest and indexes, the BLAKE3 of every file, the CRC of every batch, the range of the tokens, the marks of
// documents, and what Arrow's own reader makes of the shards. It goes on after a fault, to name them all. The error
// wraps ErrCorrupt if there is any fault; the report is nil only if the check could not be carried out: dir cannot
// be read or is no finished dataset, or ctx ended.
func Verify(ctx context.Context, dir string, p *Progress) (*Report, error) {
	defer p.Clear()
	r := &Report{Dir: dir, Faults: []Fault{}}
	m, err := ReadManifest(dir)
	if errors.Is(err, ErrCorrupt) {
		r.fault(manifestName, "", errors.Unwrap(err)) // the outer error names the file
		return r, err
	}
	if err != nil {
		return nil, err
	}
	r.Digest, r.Shards = m.Digest().String(), len(m.Shards)
	r.Windows, r.Documents, r.Tokens = m.Windows, m.Documents, m.Tokens
	var total int64
	for _, s := range m.Shards {
		total += s.Bytes
	}
	p.Start("verify", total)
	documents, indexes := int64(0), 0
	for i := range m.Shards {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v := shardVerifier{&shard{dir: dir, number: i, manifest: m, vocab: uint32(m.Tokenizer.Vocab)}, r}
		if x := v.verify(); x != nil {
			documents += int64(len(x.starts))
			indexes++
		}
		p.Add(0, m.Shards[i].Bytes, 0)
	}
	if indexes == len(m.Shards) && documents != m.Documents {
		r.fault(manifestName, "documents", fmt.Errorf("%d, the indexes have %d", m.Documents, documents))
	}
	if err := r.checkLeftovers(m); err != nil {
		return nil, err
	}
	p.Finish()
	return r, r.err()
}

func (r *Report) fault(file, part string, problem error) {
	r.Faults = append(r.Faults, Fault{file, part, problem.Error()})
}

func (r *Report) err() error {
	switch len(r.Faults) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s: %w: %v", r.Dir, ErrCorrupt, r.Faults[0])
	}
	return fmt.Errorf("%s: %w: %d faults, the first: %v", r.Dir, ErrCorrupt, len(r.Faults), r.Faults[0])
}

// checkLeftovers reports shard files that the manifest does not name.
func (r *Report) checkLeftovers(m *Manifest) error {
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for i := range m.Shards {
		named[arrowName(i)], named[indexName(i)] = true, true
	}
	for _, e := range entries {
		if name := e.Name(); shardFile.MatchString(name) && !named[name] {
			r.fault(name, "", fmt.Errorf("the manifest does not name this file (%d shards)", len(m.Shards)))
		}
	}
	return nil
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	var b bytes.Buffer
	for _, f := range r.Faults {
		fmt.Fprintln(&b, f)
	}
	if len(r.Faults) == 0 {
		fmt.Fprintf(&b, "%s: sound: %d shards, %d windows, %d documents, %d tokens, %d bytes read\n%s\n",
			r.Dir, r.Shards, r.Windows, r.Documents, r.Tokens, r.Bytes, r.Digest)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// shardVerifier checks one shard.
type shardVerifier struct {
	*shard
	r *Report
}

// verify reports the faults of the shard. It returns the index if that is sound.
func (v shardVerifier) verify() *shardIndex {
	arrowFile, indexFile := arrowName(v.number), indexName(v.number)
	info := v.manifest.Shards[v.number]
	index, err := v.readIndex()
	if err != nil {
		v.r.fault(indexFile, "", err)
	} else {
		v.r.Bytes += info.IndexBytes
	}
	file, mapping, err := mapFile(v.arrowPath(), info.Bytes)
	if err != nil {
		v.r.fault(arrowFile, "", err)
		return index
	}
	defer file.Close()
	defer unix.Munmap(mapping)
	faults := len(v.r.Faults)
	err = guard(mapping, func() error {
		if d := digestOf(mapping); d != info.Blake3 {
			v.r.fault(arrowFile, "", fmt.Errorf("its BLAKE3 is %v, the manifest says %v", d, info.Blake3))
		}
		if index == nil {
			return nil
		}
		o := newOpenShard(index, file, mapping)
		for b := range index.batches {
			if err := o.check(b); err != nil {
				v.r.fault(arrowFile, fmt.Sprintf("batch %d", b), err)
			}
		}
		v.tokens(o)
		if len(v.r.Faults) == faults { // Arrow's reader may crash or exhaust the memory on damaged files
			return v.compareWithArrow(o)
		}
		return nil
	})
	if err != nil {
		v.r.fault(arrowFile, "", err)
	} else {
		v.r.Bytes += info.Bytes
	}
	return index
}

// tokens checks the range of the tokens, and that BOS stands at the start of each document and nowhere else, EOS at its
// end, and nothing but padding behind the last.
func (v shardVerifier) tokens(o *openShard) {
	t, x, row := v.manifest.Tokenizer, o.index, o.index.length+1
	pad := uint32(max(0, t.EOS))
	next, found := 0, 0
	for b := range o.batches {
		values := o.batches[b].tokens.Uint32Values()
		for i, id := range values {
			position := b*x.perBatch*row + i
			starts := next < len(x.starts) && int(x.starts[next]) == position
			if starts {
				next++
			}
			problem := ""
			switch {
			case id >= v.vocab:
				problem = fmt.Sprintf("token %d, the vocabulary ends at %d", id, v.vocab)
			case position >= x.tokens:
				if id != pad {
					problem = fmt.Sprintf("token %d in the padding, want %d", id, pad)
				}
			case t.BOS >= 0 && starts != (id == uint32(t.BOS)):
				problem = fmt.Sprintf("token %d; the index says that a document starts here: %t", id, starts)
			case t.EOS >= 0 && id == uint32(t.EOS) && position+1 < x.tokens && !x.startsAt(next, position+1):
				problem = fmt.Sprintf("token %d ends a document, and the index starts none behind it", id)
			}
			if problem == "" {
				continue
			}
			if found++; found > maxTokenFaults {
				return
			}
			v.r.fault(arrowName(v.number), fmt.Sprintf("batch %d, position %d", b, i), errors.New(problem))
		}
	}
}

// startsAt tells whether document n starts at a position.
func (x *shardIndex) startsAt(n, position int) bool {
	return n < len(x.starts) && int(x.starts[n]) == position
}

// compareWithArrow reads the shard with Arrow's own reader and compares schema and tokens.
func (v shardVerifier) compareWithArrow(o *openShard) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: Arrow's reader panicked: %v", ErrCorrupt, r)
		}
	}()
	f, err := ipc.NewFileReader(bytes.NewReader(o.mapping))
	if err != nil {
		return fmt.Errorf("%w: Arrow's reader: %w", ErrCorrupt, err)
	}
	defer f.Close()
	if !f.Schema().Equal(tokenSchema) {
		return fmt.Errorf("%w: schema %v, want %v", ErrCorrupt, f.Schema(), tokenSchema)
	}
	if f.NumRecords() != len(o.batches) {
		return fmt.Errorf("%w: Arrow's reader finds %d batches, the index has %d",
			ErrCorrupt, f.NumRecords(), len(o.batches))
	}
	for b := range o.batches {
		rec, err := f.RecordAt(b)
		if err != nil {
			return fmt.Errorf("%w: batch %d: Arrow's reader: %w", ErrCorrupt, b, err)
		}
		column, ok := rec.Column(0).(*array.Uint32)
		if !ok || column.NullN() != 0 || !slices.Equal(column.Uint32Values(), o.batches[b].tokens.Uint32Values()) {
			err = fmt.Errorf("%w: batch %d: Arrow's reader finds other tokens than the index leads to", ErrCorrupt, b)
		}
		rec.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

package dataset

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"
)

// shardIndex says where the tokens of a shard's Arrow file are and where its documents begin. Positions count the
// tokens of the shard from 0.
type shardIndex struct {
	length    int // L: a window is L+1 tokens
	windows   int
	perBatch  int   // windows in each record batch, the last one may have fewer
	tokens    int   // that are not padding
	arrowSize int64 // bytes of the Arrow file
	batches   []batchIndex
	starts    []uint32 // positions of the first tokens of documents, ascending
}

// batchIndex is the token column of one record batch.
type batchIndex struct {
	offset int64  // of its bytes in the Arrow file
	size   uint32 // in bytes, 4 a token
	crc    uint32 // CRC-32C of its bytes
}

const (
	indexMagic   = "HERDIDX\n"
	indexVersion = 1
	indexHeader  = 48
	indexBatch   = 16
	indexMin     = indexHeader + len(Digest{})
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode is the index file (docs/format/dataset.md).
func (x *shardIndex) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, x.fileSize()), indexMagic...)
	for _, v := range []int{indexVersion, x.length, x.windows, x.perBatch, len(x.batches), len(x.starts)} {
		b = le.AppendUint32(b, uint32(v))
	}
	b = le.AppendUint64(b, uint64(x.tokens))
	b = le.AppendUint64(b, uint64(x.arrowSize))
	for _, c := range x.batches {
		b = le.AppendUint64(b, uint64(c.offset))
		b = le.AppendUint32(b, c.size)
		b = le.AppendUint32(b, c.crc)
	}
	for _, s := range x.starts {
		b = le.AppendUint32(b, s)
	}
	d := digestOf(b)
	return append(b, d[:]...)
}

func (x *shardIndex) fileSize() int {
	return indexHeader + indexBatch*len(x.batches) + 4*len(x.starts) + len(Digest{})
}

// parseIndex reads an index file; errors wrap ErrCorrupt or ErrVersion. It allocates no more than the file's size.
func parseIndex(data []byte) (*shardIndex, error) {
	le := binary.LittleEndian
	if len(data) < indexMin || string(data[:8]) != indexMagic {
		return nil, fmt.Errorf("%w: no shard index (%d bytes, starts with %.8q, want %q)",
			ErrCorrupt, len(data), data[:min(8, len(data))], indexMagic)
	}
	body := data[:len(data)-len(Digest{})]
	if d := digestOf(body); string(d[:]) != string(data[len(body):]) {
		return nil, fmt.Errorf("%w: the checksum at the end of the index is not that of the bytes before it", ErrCorrupt)
	}
	if v := le.Uint32(data[8:]); v != indexVersion {
		return nil, fmt.Errorf("%w: shard index version %d, this build reads version %d", ErrVersion, v, indexVersion)
	}
	batches, starts := int64(le.Uint32(data[24:])), int64(le.Uint32(data[28:]))
	if want := int64(indexMin) + indexBatch*batches + 4*starts; int64(len(data)) != want {
		return nil, fmt.Errorf("%w: an index of %d batches and %d documents has %d bytes, found %d",
			ErrCorrupt, batches, starts, want, len(data))
	}
	x := &shardIndex{
		length:    int(le.Uint32(data[12:])),
		windows:   int(le.Uint32(data[16:])),
		perBatch:  int(le.Uint32(data[20:])),
		tokens:    int(le.Uint64(data[32:])),
		arrowSize: int64(le.Uint64(data[40:])),
		batches:   make([]batchIndex, batches),
		starts:    make([]uint32, starts),
	}
	data = data[indexHeader:]
	for i := range x.batches {
		x.batches[i] = batchIndex{int64(le.Uint64(data)), le.Uint32(data[8:]), le.Uint32(data[12:])}
		data = data[indexBatch:]
	}
	for i := range x.starts {
		x.starts[i] = le.Uint32(data[4*i:])
	}
	if err := x.validate(); err != nil {
		return nil, fmt.Errorf("%w: shard index: %w", ErrCorrupt, err)
	}
	return x, nil
}

// validate reports the first thing in x that contradicts the format.
func (x *shardIndex) validate() error {
	row := x.length + 1
	switch {
	case x.length < 1 || x.length > maxSequence:
		return fmt.Errorf("sequence length %d, want 1 to %d", x.length, maxSequence)
	case x.windows < 1 || x.windows > maxShardTokens/row:
		return fmt.Errorf("%d windows, want 1 to %d", x.windows, maxShardTokens/row)
	case x.perBatch < 1 || x.perBatch > maxShardTokens/row:
		return fmt.Errorf("%d windows a batch, want 1 to %d", x.perBatch, maxShardTokens/row)
	case len(x.batches) != (x.windows+x.perBatch-1)/x.perBatch:
		return fmt.Errorf("%d batches for %d windows, %d in each", len(x.batches), x.windows, x.perBatch)
	case x.tokens <= (x.windows-1)*row || x.tokens > x.windows*row:
		return fmt.Errorf("%d tokens for %d windows of %d", x.tokens, x.windows, row)
	}
	end := int64(0)
	for i, b := range x.batches {
		if want := 4 * row * x.batchWindows(i); int(b.size) != want {
			return fmt.Errorf("batch %d has %d bytes, want %d", i, b.size, want)
		}
		if b.offset < end || b.offset%8 != 0 || b.offset > x.arrowSize-int64(b.size) {
			return fmt.Errorf("batch %d at offset %d (%d bytes), want a multiple of 8 from %d within the %d bytes of the "+
				"file", i, b.offset, b.size, end, x.arrowSize)
		}
		end = b.offset + int64(b.size)
	}
	for i, s := range x.starts {
		if int64(s) >= int64(x.tokens) || i > 0 && s <= x.starts[i-1] {
			return fmt.Errorf("document %d starts at %d, want ascending positions below %d", i, s, x.tokens)
		}
	}
	return nil
}

// batchWindows is the number of windows in batch i.
func (x *shardIndex) batchWindows(i int) int { return min(x.perBatch, x.windows-i*x.perBatch) }

// within is the document starts at positions from … to−1.
func (x *shardIndex) within(from, to int) []uint32 {
	i := sort.Search(len(x.starts), func(i int) bool { return int(x.starts[i]) >= from })
	n, _ := slices.BinarySearch(x.starts[i:], uint32(to))
	return x.starts[i : i+n]
}

// validTargets is the number of targets of window w that count in a loss: those that are not padding and, under the
// document mask, in the document of their input token.
func (x *shardIndex) validTargets(w int, documentMask bool) int {
	first := w * (x.length + 1)
	last := min(first+x.length, x.tokens-1) // the last real token of the window
	n := last - first
	if documentMask {
		n -= len(x.within(first+1, last+1))
	}
	return n
}

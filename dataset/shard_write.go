package dataset

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// tokenSchema is the schema of every shard: one column of token ids.
var tokenSchema = arrow.NewSchema([]arrow.Field{{Name: "token", Type: arrow.PrimitiveTypes.Uint32}}, nil)

// batchTokens is about the number of tokens in a record batch: the unit in which the reader checks the shard.
const batchTokens = 1 << 16

// windowsPerBatch is the number of windows in a record batch for sequence length length.
func windowsPerBatch(length int) int { return max(1, batchTokens/(length+1)) }

// shardWriter puts one shard together in memory.
type shardWriter struct {
	index   shardIndex
	file    memoryFile
	arrow   *ipc.FileWriter
	pending []uint32 // tokens of the batch being filled
	written int      // tokens given to Arrow
	crcs    []uint32 // of the batches given to Arrow
}

func newShardWriter(length, perBatch int) (*shardWriter, error) {
	s := &shardWriter{index: shardIndex{length: length, perBatch: perBatch}}
	s.pending = make([]uint32, 0, perBatch*(length+1))
	var err error
	s.arrow, err = ipc.NewFileWriter(&s.file, ipc.WithSchema(tokenSchema))
	return s, err
}

// size is the number of tokens so far.
func (s *shardWriter) size() int { return s.written + len(s.pending) }

// startDocument marks the next token as the first of a document.
func (s *shardWriter) startDocument() { s.index.starts = append(s.index.starts, uint32(s.size())) }

// append adds tokens.
func (s *shardWriter) append(tokens []int32) error {
	for _, t := range tokens {
		s.pending = append(s.pending, uint32(t))
		if len(s.pending) == cap(s.pending) {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shardWriter) flush() error {
	rec := array.NewRecord(tokenSchema, []arrow.Array{uint32Array(arrow.Uint32Traits.CastToBytes(s.pending))}, -1)
	if err := s.arrow.Write(rec); err != nil {
		return err
	}
	s.crcs = append(s.crcs, crc32.Checksum(arrow.Uint32Traits.CastToBytes(s.pending), castagnoli))
	s.written += len(s.pending)
	s.pending = s.pending[:0]
	return nil
}

// uint32Array is an Arrow array over the memory of data, 4 bytes an element.
func uint32Array(data []byte) *array.Uint32 {
	buffers := []*memory.Buffer{nil, memory.NewBufferBytes(data)} // no validity bitmap: no nulls
	return array.NewUint32Data(array.NewData(arrow.PrimitiveTypes.Uint32, len(data)/4, buffers, nil, 0, 0))
}

// finish fills the last window with padding and returns the Arrow file and the index file.
func (s *shardWriter) finish(padding int32) (arrowFile, indexFile []byte, info ShardInfo, err error) {
	x, row := &s.index, s.index.length+1
	x.tokens = s.size()
	x.windows = (x.tokens + row - 1) / row
	for s.size() < x.windows*row {
		if err := s.append([]int32{padding}); err != nil {
			return nil, nil, info, err
		}
	}
	if len(s.pending) > 0 {
		if err := s.flush(); err != nil {
			return nil, nil, info, err
		}
	}
	if err := s.arrow.Close(); err != nil {
		return nil, nil, info, err
	}
	arrowFile = s.file.data
	x.arrowSize = int64(len(arrowFile))
	if err := s.locate(arrowFile); err != nil {
		return nil, nil, info, err
	}
	if err := x.validate(); err != nil {
		return nil, nil, info, fmt.Errorf("shard index: %w", err)
	}
	indexFile = x.encode()
	return arrowFile, indexFile, ShardInfo{
		Windows: int64(x.windows),
		Bytes:   x.arrowSize, Blake3: digestOf(arrowFile),
		IndexBytes: int64(len(indexFile)), IndexBlake3: digestOf(indexFile),
	}, nil
}

// locate finds the token columns in the Arrow file, which is: magic and padding (8 bytes), the schema message, then a
// message for each record batch, whose body is the column padded to 8 bytes. The metadata of a message is preceded by
// a continuation mark (4 bytes) and its length (4 bytes).
func (s *shardWriter) locate(file []byte) error {
	const magic, prefix = 8, 8
	x := &s.index
	bodyAt := func(at int) int { return at + prefix + int(binary.LittleEndian.Uint32(file[at+4:])) }
	at := bodyAt(magic)
	for i, crc := range s.crcs {
		body, size := bodyAt(at), 4*(x.length+1)*x.batchWindows(i)
		if crc32.Checksum(file[body:body+size], castagnoli) != crc {
			return fmt.Errorf("record batch %d is not at offset %d of the Arrow file just written", i, body)
		}
		x.batches = append(x.batches, batchIndex{int64(body), uint32(size), crc})
		at = body + (size+7)/8*8
	}
	return nil
}

// memoryFile is an io.WriteSeeker that only ever appends.
type memoryFile struct{ data []byte }

func (f *memoryFile) Write(p []byte) (int, error) {
	f.data = append(f.data, p...)
	return len(p), nil
}

// Seek tells the size: Arrow's writer seeks only to learn where it is.
func (f *memoryFile) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, fmt.Errorf("seek to %d from %d in a file that is only appended to", offset, whence)
	}
	return int64(len(f.data)), nil
}

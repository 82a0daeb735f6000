package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"path/filepath"

	"github.com/zeebo/blake3"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
)

// Files describes the data and index file of one writer, as the manifest is to promise them.
type Files struct {
	Writer    int64 // its number
	DataSize  int64 // bytes
	IndexSize int64
	Data      Digest // of the data file
	Index     Digest
}

// FilesSize is the bytes of Files in binary form.
const FilesSize = 3*8 + 2*32

// MarshalBinary makes FilesSize bytes, to send to the process that seals.
func (f Files) MarshalBinary() ([]byte, error) { return binary.Append(nil, binary.LittleEndian, f) }

// UnmarshalBinary is the inverse. What the bytes say is checked by Seal.
func (f *Files) UnmarshalBinary(b []byte) error {
	if len(b) != FilesSize {
		return fmt.Errorf("the files of a checkpoint's writer: %d bytes, want %d", len(b), FilesSize)
	}
	return binary.Read(bytes.NewReader(b), binary.LittleEndian, f)
}

// Write writes the data and index file of one writer into the directory that Create made. After nil they are durable,
// names included. The tensors' data must not change until it returns. Each writer calls it once, in whatever process;
// after an error of any of them the directory cannot be sealed: see Abandon.
func Write(ctx context.Context, fsys storage.FS, dir string, writer int, tensors []Tensor) (Files, error) {
	return WriteStream(ctx, fsys, dir, writer, func(yield func(Tensor, error) bool) {
		for _, t := range tensors {
			if !yield(t, nil) {
				return
			}
		}
	})
}

// WriteStream is Write of tensors, or boxes of them, that come one after another. The data of one is read before the
// next is asked for, so that they may share memory. An error that comes instead of a tensor ends it.
func WriteStream(ctx context.Context, fsys storage.FS, dir string, writer int, tensors iter.Seq2[Tensor, error]) (Files,
	error) {
	w, err := writeFiles(ctx, fsys, dir, writer, tensors)
	if err != nil {
		return Files{}, fmt.Errorf("write to checkpoint %s as writer %d: %w", dir, writer, err)
	}
	return w, nil
}

func writeFiles(ctx context.Context, fsys storage.FS, dir string, writer int, tensors iter.Seq2[Tensor, error]) (Files,
	error) {
	if writer < 0 || writer >= maxWriters {
		return Files{}, fmt.Errorf("want a number from 0 to %d", maxWriters-1)
	}
	w := Files{Writer: int64(writer)}
	var records [][]byte
	err := create(fsys, filepath.Join(dir, fmt.Sprintf(dataName, writer)), func(f storage.File) (err error) {
		data := dataFile{ctx: ctx, f: f, hash: blake3.New()}
		for t, err := range tensors {
			if err == nil {
				err = t.check()
			}
			var rec []byte
			if err == nil {
				rec, err = data.append(t)
			}
			if err != nil {
				return err
			}
			records = append(records, rec)
		}
		w.DataSize = data.size
		data.hash.Sum(w.Data[:0])
		return nil
	})
	if err != nil {
		return Files{}, err
	}
	index, err := encodeRecords(indexForm, records)
	if err != nil {
		return Files{}, err
	}
	w.IndexSize, w.Index = int64(len(index)), blake3.Sum256(index)
	err = create(fsys, filepath.Join(dir, fmt.Sprintf(indexName, writer)), func(f storage.File) error {
		_, err := f.WriteAt(index, 0)
		return err
	})
	if err != nil {
		return Files{}, err
	}
	return w, fsys.SyncDir(dir)
}

// check says what is wrong with a tensor to save.
func (t Tensor) check() error {
	if err := checkName(t.Name); err != nil {
		return err
	}
	if _, ok := tensor.ParseDType(t.DType.String()); !ok {
		return fmt.Errorf("tensor %q has no dtype", t.Name)
	}
	if _, err := byteSize(t.DType, t.Shape); err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	box := t.Box.of(t.Shape)
	if err := box.check(t.Shape); err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	if n := int64(t.DType.Size()) * box.Elements(); int64(len(t.Data)) != n {
		return fmt.Errorf("tensor %q has %d bytes of data, want %d for box %v of shape %v of %v", t.Name, len(t.Data), n,
			box, t.Shape, t.DType)
	}
	return nil
}

// create makes a durable file of what fill writes.
func create(fsys storage.FS, path string, fill func(storage.File) error) error {
	f, err := fsys.Create(path)
	if err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// dataFile is a data file being written.
type dataFile struct {
	ctx  context.Context
	f    storage.File
	hash *blake3.Hasher
	size int64 // so far
}

var zeros [alignment]byte

// append writes a tensor at the next multiple of the alignment, with zeros between, and makes its record of the index. A
// crc is taken from memory, before the bytes are handed to the file system.
func (d *dataFile) append(t Tensor) ([]byte, error) {
	_, _ = d.hash.Write(zeros[:align(d.size)-d.size])
	d.size = align(d.size)
	s := Slice{Box: t.Box.of(t.Shape), Begin: d.size, Bytes: int64(len(t.Data)), Chunk: chunkSize}
	for rest := t.Data; len(rest) > 0; {
		if err := d.ctx.Err(); err != nil {
			return nil, err
		}
		b := rest[:min(len(rest), chunkSize)]
		rest = rest[len(b):]
		_, _ = d.hash.Write(b)
		s.CRC32C = append(s.CRC32C, crc32.Checksum(b, castagnoli))
		if _, err := d.f.WriteAt(b, d.size); err != nil {
			return nil, err
		}
		d.size += int64(len(b))
	}
	return s.record(t.Name, t.DType, t.Shape)
}

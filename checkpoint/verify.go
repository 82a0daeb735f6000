package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"hash/crc32"
	"slices"

	"github.com/zeebo/blake3"

	"github.com/herdtrain/herd/storage"
)

// Verify reads every byte and checks it, each chunk's crc and each data file's digest. The error joins one
// *DamageError for each damaged chunk, or for a file damaged outside of them. It calls progress, if not nil, after
// each piece with the bytes read and to read.
func (c *Checkpoint) Verify(ctx context.Context, progress func(done, total int64)) error {
	v := verifier{ctx: ctx, progress: progress}
	for _, w := range c.writers {
		v.total += w.DataSize
	}
	v.buf = make([]byte, min(ioSize, v.total))
	held := make([][]piece, len(c.writers))
	for _, t := range c.tensors {
		for _, s := range t.Slices {
			held[s.Writer] = append(held[s.Writer], piece{t.Name, s})
		}
	}
	for i, pieces := range held {
		slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.slice.Begin, b.slice.Begin) })
		if err := v.file(c, i, pieces); err != nil {
			return err
		}
	}
	return errors.Join(v.found...)
}

// piece is a slice of a tensor.
type piece struct {
	tensor string
	slice  Slice
}

type verifier struct {
	ctx         context.Context
	buf         []byte
	progress    func(done, total int64)
	done, total int64
	found       []error
}

// file checks the data file of a writer, given what it holds in the order of bytes. Damage goes to v.found; the error
// ends the verification.
func (v *verifier) file(c *Checkpoint, writer int, pieces []piece) error {
	want, path := c.writers[writer], c.dataPath(writer)
	f, err := c.open(path)
	if errors.Is(err, ErrCorrupt) {
		v.found = append(v.found, err)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := blake3.New()
	before, pos := len(v.found), int64(0)
	for _, p := range pieces {
		if _, err := v.read(f, path, h, pos, p.slice.Begin); err != nil {
			return v.note(err)
		}
		for i := range p.slice.CRC32C {
			lo, hi := p.slice.chunk(i)
			sum, err := v.read(f, path, h, p.slice.Begin+lo, p.slice.Begin+hi)
			if err != nil {
				return v.note(p.slice.damaged(p.tensor, path, i, err))
			}
			if err := p.slice.checkCRC(p.tensor, path, i, sum); err != nil {
				v.found = append(v.found, err)
			}
		}
		pos = p.slice.Begin + p.slice.Bytes
	}
	if _, err := v.read(f, path, h, pos, want.DataSize); err != nil {
		return v.note(err)
	}
	var digest Digest
	h.Sum(digest[:0])
	if digest != want.Data && len(v.found) == before {
		v.found = append(v.found, damaged(path, "its digest is %v, the manifest says %v, though every chunk's crc32c "+
			"holds", digest, want.Data))
	}
	return nil
}

// note keeps damage for the end; any other error ends the verification.
func (v *verifier) note(err error) error {
	if !errors.Is(err, ErrCorrupt) {
		return err
	}
	v.found = append(v.found, err)
	return nil
}

// read hashes bytes [from, to) and returns their crc32c.
func (v *verifier) read(f storage.Reader, path string, h *blake3.Hasher, from, to int64) (sum uint32, err error) {
	for from < to {
		if err := v.ctx.Err(); err != nil {
			return 0, err
		}
		b := v.buf[:min(int64(len(v.buf)), to-from)]
		if err := readFull(f, path, b, from); err != nil {
			return 0, err
		}
		h.Write(b)
		sum = crc32.Update(sum, castagnoli, b)
		from += int64(len(b))
		v.done += int64(len(b))
		if v.progress != nil {
			v.progress(v.done, v.total)
		}
	}
	return sum, nil
}

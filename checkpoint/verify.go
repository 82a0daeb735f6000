package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"

	"github.com/zeebo/blake3"

	"github.com/herdtrain/herd/storage"
)

// Verify reads every byte and checks it, each tensor's crc and each data file's digest. The error joins one
// *DamageError for each damaged tensor, or for a file damaged outside of them. It calls progress, if not nil, after
// each piece with the bytes read and to read.
func (c *Checkpoint) Verify(ctx context.Context, progress func(done, total int64)) error {
	v := verifier{ctx: ctx, progress: progress}
	for _, w := range c.writers {
		v.total += w.dataSize
	}
	v.buf = make([]byte, min(ioSize, v.total))
	rest := c.tensors
	for i, w := range c.writers {
		file := fmt.Sprintf(dataName, i)
		n := 0
		for n < len(rest) && rest[n].File == file {
			n++
		}
		if err := v.file(c, file, w, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return errors.Join(v.found...)
}

type verifier struct {
	ctx         context.Context
	buf         []byte
	progress    func(done, total int64)
	done, total int64
	found       []error
}

// file checks one data file. Damage goes to v.found; the error ends the verification.
func (v *verifier) file(c *Checkpoint, name string, want writerFiles, tensors []Info) error {
	path := filepath.Join(c.dir, name)
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
	for _, t := range tensors {
		if _, err := v.read(f, path, h, pos, t.Begin); err != nil {
			return v.note(err)
		}
		sum, err := v.read(f, path, h, t.Begin, t.Begin+t.Bytes)
		if err != nil {
			return v.note(t.damaged(path, err))
		}
		if err := t.checkCRC(path, sum); err != nil {
			v.found = append(v.found, err)
		}
		pos = t.Begin + t.Bytes
	}
	if _, err := v.read(f, path, h, pos, want.dataSize); err != nil {
		return v.note(err)
	}
	var digest Digest
	h.Sum(digest[:0])
	if digest != want.dataDigest && len(v.found) == before {
		v.found = append(v.found, damaged(path, "its digest is %v, the manifest says %v, though every tensor's crc32c "+
			"holds", digest, want.dataDigest))
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

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/herdtrain/herd/storage"
)

// Read fills dst, which must have exactly Info's Bytes, with the whole tensor. Otherwise it is like ReadParts.
func (c *Checkpoint) Read(ctx context.Context, name string, dst []byte) error {
	return c.ReadParts(ctx, name, Part{Data: dst})
}

// ReadParts fills the Data of each part, which must have the length of its box, from whatever slices of the tensor
// intersect it, and checks the crc of each of these. A slice is read once and to its end, however little of it the
// parts need; of memory besides theirs it takes at most a mebibyte. After an error they hold rubbish. Errors:
// ErrNotFound, ErrCorrupt.
func (c *Checkpoint) ReadParts(ctx context.Context, name string, parts ...Part) error {
	t, ok := c.Info(name)
	if !ok {
		return fmt.Errorf("tensor %q in %s %w", name, c.dir, ErrNotFound)
	}
	r := reader{ctx: ctx, c: c, name: name, size: int64(t.DType.Size())}
	for _, p := range parts {
		p.Box = p.Box.of(t.Shape)
		if err := p.Box.check(t.Shape); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		if n := p.Box.Elements() * r.size; int64(len(p.Data)) != n {
			return fmt.Errorf("tensor %q has %d bytes in box %v, not %d", name, n, p.Box, len(p.Data))
		}
		r.parts = append(r.parts, p)
	}
	defer r.close()
	for _, s := range t.Slices {
		if err := r.slice(s); err != nil {
			return err
		}
	}
	return nil
}

// reader reads the slices of one tensor.
type reader struct {
	ctx   context.Context
	c     *Checkpoint
	name  string
	size  int64 // bytes of an element
	parts []Part
	buf   []byte

	file   storage.Reader // the data file of writer, if not nil
	path   string
	writer int
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

func (r *reader) open(writer int) (err error) {
	if r.file != nil && r.writer == writer {
		return nil
	}
	r.close()
	r.writer, r.path = writer, r.c.dataPath(writer)
	r.file, err = r.c.open(r.path)
	return err
}

// slice copies what the parts need of a slice.
func (r *reader) slice(s Slice) error {
	var needed []Part
	for _, p := range r.parts {
		if _, ok := p.Box.intersect(s.Box); ok {
			needed = append(needed, p)
		}
	}
	if len(needed) == 0 {
		return nil
	}
	if err := r.open(s.Writer); err != nil {
		return err
	}
	var direct []byte // where the bytes of the slice belong, if that is one place
	if first, ok := s.Box.within(needed[0].Box); ok && len(needed) == 1 {
		direct = needed[0].Data[first*r.size:][:s.Bytes]
	} else if n := min(ioSize, s.Bytes); int64(len(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	sum := uint32(0)
	for pos := int64(0); pos < s.Bytes; {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		n := min(ioSize, s.Bytes-pos)
		b := r.buf
		if direct != nil {
			b = direct[pos:]
		}
		b = b[:n]
		if err := readFull(r.file, r.path, b, s.Begin+pos); err != nil {
			return s.damaged(r.name, r.path, err)
		}
		sum = crc32.Update(sum, castagnoli, b)
		if direct == nil {
			r.scatter(b, s.Box, pos, needed)
		}
		pos += n
	}
	return s.checkCRC(r.name, r.path, sum)
}

// scatter copies b, the bytes of box from pos on, to where the parts need them.
func (r *reader) scatter(b []byte, box Box, pos int64, parts []Part) {
	for _, src := range box.Parts(pos/r.size, (pos+int64(len(b)))/r.size, b) {
		for _, dst := range parts {
			if common, ok := src.Box.intersect(dst.Box); ok {
				copyBox(dst, src, common, r.size)
			}
		}
	}
}

// copyBox copies the elements of box, which is within both parts, from one to the other.
func copyBox(dst, src Part, box Box, size int64) {
	rank := len(box.Extent)
	row := rank // box has whole rows of dimensions row and following of both parts
	for row > 0 && box.Extent[row-1] == dst.Box.Extent[row-1] && box.Extent[row-1] == src.Box.Extent[row-1] {
		row--
	}
	run := size * product(box.Extent[max(0, row-1):])
	var rows func(d int, to, from int64) // numbers of elements
	rows = func(d int, to, from int64) {
		if d == rank {
			copy(dst.Data[to*size:][:run], src.Data[from*size:])
			return
		}
		to = to*dst.Box.Extent[d] + box.Offset[d] - dst.Box.Offset[d]
		from = from*src.Box.Extent[d] + box.Offset[d] - src.Box.Offset[d]
		n := box.Extent[d]
		if d >= row-1 {
			n = 1 // the run has the others
		}
		for i := range n {
			rows(d+1, to+i, from+i)
		}
	}
	rows(0, 0, 0)
}

func (s Slice) checkCRC(tensor, path string, sum uint32) error {
	if sum == s.CRC32C {
		return nil
	}
	return s.damaged(tensor, path, &DamageError{Reason: fmt.Sprintf("its crc32c is %08x, want %08x", sum, s.CRC32C)})
}

// damaged names the tensor in an error of readFull.
func (s Slice) damaged(tensor, path string, err error) error {
	var d *DamageError
	if !errors.As(err, &d) {
		return err
	}
	return &DamageError{File: path, Tensor: tensor, Begin: s.Begin, Length: s.Bytes, Reason: d.Reason, Err: d.Err}
}

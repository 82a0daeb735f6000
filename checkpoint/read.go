package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/herdtrain/herd/storage"
)

// ioSize is how many bytes are read at a time.
const ioSize = 1 << 20

// Read fills dst, which must have exactly Info's Bytes, with the whole tensor. Otherwise it is like ReadParts.
func (c *Checkpoint) Read(ctx context.Context, name string, dst []byte) error {
	return c.ReadParts(ctx, name, Part{Data: dst})
}

// ReadParts fills the Data of each part, which must have the length of its box, from whatever slices of the tensor
// intersect it. Of these it reads the chunks that hold anything of a part, each once and whole, and checks their crcs;
// of memory besides the parts' it takes at most a mebibyte. After an error they hold rubbish. Errors:
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
	for i := range s.CRC32C {
		lo, hi := s.chunk(i)
		if direct == nil && !r.needs(s.Box, lo, hi, needed) {
			continue
		}
		if err := r.chunk(s, i, direct, needed); err != nil {
			return err
		}
	}
	return nil
}

// needs says whether the parts need any of bytes lo to hi of a box.
func (r *reader) needs(box Box, lo, hi int64, parts []Part) bool {
	for _, b := range box.Cut(lo/r.size, hi/r.size) {
		for _, p := range parts {
			if _, ok := b.intersect(p.Box); ok {
				return true
			}
		}
	}
	return false
}

// chunk reads chunk i of a slice, into its place in direct if that is not nil, else to where the parts need it.
func (r *reader) chunk(s Slice, i int, direct []byte, parts []Part) error {
	sum := uint32(0)
	for pos, end := s.chunk(i); pos < end; {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		b := r.buf
		if direct != nil {
			b = direct[pos:]
		}
		b = b[:min(ioSize, end-pos)]
		if err := readFull(r.file, r.path, b, s.Begin+pos); err != nil {
			return s.damaged(r.name, r.path, i, err)
		}
		sum = crc32.Update(sum, castagnoli, b)
		if direct == nil {
			r.scatter(b, s.Box, pos, parts)
		}
		pos += int64(len(b))
	}
	return s.checkCRC(r.name, r.path, i, sum)
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

// chunk is the bytes of chunk i, from lo on and before hi, counted from the slice's first.
func (s Slice) chunk(i int) (lo, hi int64) {
	lo = int64(i) * s.Chunk
	return lo, min(lo+s.Chunk, s.Bytes)
}

func (s Slice) checkCRC(tensor, path string, chunk int, sum uint32) error {
	want := s.CRC32C[chunk]
	if sum == want {
		return nil
	}
	return s.damaged(tensor, path, chunk, &DamageError{Reason: fmt.Sprintf("their crc32c is %08x, want %08x", sum, want)})
}

// damaged names the tensor and the chunk in an error of readFull.
func (s Slice) damaged(tensor, path string, chunk int, err error) error {
	var d *DamageError
	if !errors.As(err, &d) {
		return err
	}
	lo, hi := s.chunk(chunk)
	return &DamageError{File: path, Tensor: tensor, Begin: s.Begin + lo, Length: hi - lo, Reason: d.Reason, Err: d.Err}
}

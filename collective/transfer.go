package collective

import (
	"fmt"
	"time"

	"github.com/herdtrain/herd/tensor"
)

// span is bytes that move in order, in blocks of blockBytes and a rest.
type span struct {
	buf []byte
	n   int // bytes done

	// after, if not nil, is what must come first: byte i of buf is there once after has done more than i−slack bytes,
	// or all of its own.
	after *span
	slack int
}

// left says whether any byte is not done.
func (s *span) left() bool { return s.n < len(s.buf) }

// block is the length of the next block.
func (s *span) block() int { return min(blockBytes, len(s.buf)-s.n) }

// ready is the next block if it is there; empty if not, or if none is left.
func (s *span) ready() []byte {
	k := s.block()
	if s.after != nil && s.after.left() && s.after.n+s.slack < s.n+k {
		k = 0
	}
	return s.buf[s.n : s.n+k]
}

// flow is what an operation exchanges with one other rank.
type flow struct {
	out  [2]span // terms of the other's reduction, and results
	in   span    // results
	term bool    // the other rank sends its terms of this rank's reduction
	// A collective begins with an empty block where no other would be sent at once, so that each rank soon knows what
	// all the others do.
	greetOut, greetIn bool

	block  []byte // the other's next term, waiting in the ring; nil if it has not come
	agreed bool   // the other was seen at the same operation
	other  desc   // the operation at which it was seen instead, if any
}

func (f *flow) outLeft() bool { return f.greetOut || f.out[0].left() || f.out[1].left() }

func (f *flow) inLeft(t *transfer) bool { return f.greetIn || f.in.left() || f.term && t.sum.left() }

// transfer is one operation in progress.
type transfer struct {
	desc    desc
	to      int // the other rank of a message, −1 of a collective
	flows   []flow
	ends    [2]flow // stand for the neighbours that the ends of a chain do not have
	mine    []byte  // this rank's terms
	sum     span    // the reduction of mine and of the flows with terms; may be mine
	streams bool    // what is received is too much for caches
	// sendFirst says that the sum may overwrite what is to be sent.
	sendFirst bool
	keep      [2][]byte // this rank's own piece: to, from
	disputed  time.Time // when another rank was first seen at another operation
	patient   bool      // a timer will wake this rank to judge
	mark      mark      // in the Recorder
}

// done says whether nothing is left to move.
func (t *transfer) done(links []*link) bool {
	for p, l := range links {
		if f := &t.flows[p]; l != nil && (f.outLeft() || f.inLeft(t) || !l.out.drained()) {
			return false
		}
	}
	return !t.sum.left()
}

// posted says whether all that this rank has to send is on its way.
func (t *transfer) posted() bool {
	for p := range t.flows {
		if t.flows[p].outLeft() {
			return false
		}
	}
	return true
}

// advance moves what can be moved without waiting, about a ring's length for each link.
func (t *transfer) advance(e *engine) (moved bool, err error) {
	for p, l := range e.links {
		f := &t.flows[p]
		if l == nil || !f.inLeft(t) || l.inBusy {
			continue
		}
		m, err := t.receive(l, f)
		if err != nil {
			return false, fmt.Errorf("%w from rank %d", err, p)
		}
		moved = moved || m
		l.inBusy = f.inLeft(t)
	}
	moved = t.reduce(e) || moved
	for p, l := range e.links {
		f := &t.flows[p]
		if l == nil || !f.outLeft() || l.outBusy {
			continue
		}
		moved = f.send(l, &t.desc) || moved
		l.outBusy = f.outLeft()
	}
	return moved, nil
}

// receive takes the blocks that have come, up to the next term: that one stays until all ranks' have come.
func (t *transfer) receive(l *link, f *flow) (moved bool, err error) {
	for f.block == nil && f.inLeft(t) {
		h := l.in.peek()
		if h == nil {
			break
		}
		if h.desc != t.desc {
			f.other = h.desc
			if t.disputed.IsZero() {
				t.disputed = time.Now()
			}
			break
		}
		f.agreed = true
		b := l.in.block(h)
		want := &f.in
		if h.phase == 0 && f.term && !f.greetIn {
			want = &t.sum
		}
		n := want.block()
		if f.greetIn {
			n = 0
		}
		if b == nil || len(b) != n || n == 0 && !f.greetIn {
			return false, fmt.Errorf("%w: a block of %d bytes of %v, want %d", ErrFrame, h.length, h.desc, n)
		}
		if want == &t.sum {
			f.block = b
			break
		}
		if to := f.in.buf[f.in.n : f.in.n+len(b)]; t.streams {
			stream(to, b)
		} else {
			copy(to, b)
		}
		f.in.n += len(b)
		f.greetIn = false
		l.in.pop()
		l.other.rouse()
		moved = true
	}
	return moved, nil
}

// reduce makes the next block of the result if all its terms are there.
func (t *transfer) reduce(e *engine) bool {
	if !t.sum.left() || t.sendFirst && !t.posted() {
		return false
	}
	n := t.sum.block()
	terms := e.terms[:0]
	for p := range t.flows {
		f := &t.flows[p]
		switch {
		case p == e.rank:
			terms = append(terms, t.mine[t.sum.n:t.sum.n+n])
		case f.term && f.block == nil:
			return false
		case f.term:
			terms = append(terms, f.block)
		}
	}
	reduce(t.desc.reduce, t.desc.dtype, t.sum.buf[t.sum.n:t.sum.n+n], terms)
	t.sum.n += n
	for p := range t.flows {
		if f := &t.flows[p]; f.term {
			f.block = nil
			e.links[p].in.pop()
			e.links[p].other.rouse()
		}
	}
	return true
}

// send fills the ring. Results go first: they were just made, and others wait for them.
func (f *flow) send(l *link, d *desc) (moved bool) {
	for l.out.vacant() {
		phase := uint32(1)
		var b []byte
		if !f.greetOut {
			b = f.out[1].ready()
			if len(b) == 0 {
				phase, b = 0, f.out[0].ready()
			}
			if len(b) == 0 {
				break
			}
		}
		l.out.push(d, phase, b)
		f.out[phase].n += len(b)
		f.greetOut = false
		l.other.rouse()
		moved = true
	}
	return moved
}

// alignment of pieces in elements, so that a block's terms begin at a cache line.
const pieceAlign = 16

// piece is rank p's part of a buffer that n ranks reduce together: equal parts but for the last ones.
func piece(b tensor.Buffer, p, n int) []byte {
	each := ((b.Len()+n-1)/n + pieceAlign - 1) / pieceAlign * pieceAlign
	return tensor.HostBytes(b.Slice(min(p*each, b.Len()), min((p+1)*each, b.Len())))
}

// part is part p of n equal ones.
func part(b tensor.Buffer, p, n int) []byte {
	c := b.Len() / n
	return tensor.HostBytes(b.Slice(p*c, (p+1)*c))
}

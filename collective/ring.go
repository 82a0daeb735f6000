package collective

import (
	"sync/atomic"
	"unsafe"
)

const (
	// blockBytes is the most that a slot holds, and how much of an operation moves at once.
	blockBytes = 128 << 10
	// slotCount is how many blocks a rank may be ahead of another.
	slotCount = 8
)

// header heads a slot. It is the memory layout of shared segments and, from length on, of frames on a stream.
type header struct {
	full   atomic.Uint32 // 1: written and not read; the writer may change the slot only while 0, the reader while 1
	length uint32        // bytes
	phase  uint32        // 0: a term of the reduction; 1: a result
	_      uint32
	desc   desc
	_      [24]byte
}

const headerBytes = int(unsafe.Sizeof(header{}))

// ring is one end of a queue of blocks from one rank to another: the writer's or the reader's. It is memory of
// slotCount slots, each a header followed by room bytes.
type ring struct {
	base unsafe.Pointer
	room int
	next int // slot that this end uses next
	// refs, if not nil, is for ranks of one address space: the block of a slot, if longer than room, is where it
	// was. The writer must not change it until it was read.
	refs []unsafe.Pointer
	ref  int // the last slot that this writer filled by reference, −1: none
}

// ringBytes is the memory of a ring.
func ringBytes(room int) int { return slotCount * (headerBytes + room) }

// newRing is an end of the ring in memory of ringBytes(room), aligned to 8 bytes.
func newRing(base unsafe.Pointer, room int, refs []unsafe.Pointer) ring {
	return ring{base: base, room: room, refs: refs, ref: -1}
}

// at is slot i.
func (r *ring) at(i int) *header { return (*header)(unsafe.Add(r.base, i*(headerBytes+r.room))) }

// vacant says whether the writer may push.
func (r *ring) vacant() bool { return r.at(r.next).full.Load() == 0 }

// push fills the next slot, which must be vacant, with a copy of b or a reference to it.
func (r *ring) push(d *desc, phase uint32, b []byte) {
	h := r.at(r.next)
	h.length, h.phase, h.desc = uint32(len(b)), phase, *d
	if len(b) <= r.room {
		if r.ref == r.next { // so the reference has been read
			r.ref = -1
		}
		copy(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerBytes)), r.room), b)
	} else {
		r.refs[r.next], r.ref = unsafe.Pointer(unsafe.SliceData(b)), r.next
	}
	h.full.Store(1)
	r.next = (r.next + 1) % slotCount
}

// drained says whether every block that was pushed by reference has been read.
func (r *ring) drained() bool {
	if r.ref >= 0 && r.at(r.ref).full.Load() == 0 {
		r.ref = -1
	}
	return r.ref < 0
}

// peek is the next slot if it was filled, else nil.
func (r *ring) peek() *header {
	if h := r.at(r.next); h.full.Load() == 1 {
		return h
	}
	return nil
}

// block is the content of the slot that peek returned; nil if its length is none that a writer writes.
func (r *ring) block(h *header) []byte {
	n := int(h.length)
	switch {
	case n <= r.room:
		return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerBytes)), n)
	case r.refs == nil || n > blockBytes:
		return nil
	}
	return unsafe.Slice((*byte)(r.refs[r.next]), n)
}

// pop gives the slot that peek returned back to the writer.
func (r *ring) pop() {
	r.at(r.next).full.Store(0)
	r.next = (r.next + 1) % slotCount
}

package cpu

import (
	"sync"
	"unsafe"
)

// scratch is memory for the rows and tiles that one thread works on. It grows to what the largest operation needs and
// is kept for the next one.
type scratch struct {
	mem  []float64
	used int
}

// floats is n elements of s with whatever values they have, valid until s is given back.
func floats[A float](s *scratch, n int) []A {
	if n == 0 {
		return nil
	}
	const line = 8 // words of a cache line
	var zero A
	words := (n*int(unsafe.Sizeof(zero)) + 8*line - 1) / (8 * line) * line
	if s.used+words > len(s.mem) { // what was handed out of the old memory stays valid
		s.mem, s.used = make([]float64, max(2*len(s.mem), words)), 0
	}
	p := unsafe.Pointer(&s.mem[s.used])
	s.used += words
	return unsafe.Slice((*A)(p), n)
}

// scratchList holds the scratches that no thread uses.
type scratchList struct {
	mu   sync.Mutex
	free []*scratch
}

func (l *scratchList) take() *scratch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) == 0 {
		return new(scratch)
	}
	s := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	return s
}

func (l *scratchList) give(s *scratch) {
	s.used = 0
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, s)
}

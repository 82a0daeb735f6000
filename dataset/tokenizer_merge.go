package dataset

// merger merges the bytes of one piece at a time into tokens, and remembers short pieces. One goroutine uses it.
type merger struct {
	bpe   *BPE
	cache map[string][]int32

	// The piece as a list of parts. Part i starts at byte i of the piece, if next[i] > i.
	next, prev []int32  // the following and the preceding part; the last part's next is the length of the piece
	rank       []int32  // of the token that part i and the next one would form; −1: none
	heap       []uint64 // rank<<32 | i, smallest first; stale when rank[i] has changed since
}

const (
	cachedPiece  = 64      // pieces up to this many bytes are remembered
	cachedPieces = 1 << 16 // at most this many
	longestPiece = 1 << 20 // longer ones are cut, to bound the memory for a piece
)

// encode appends the tokens of piece, in O(n log n) for n bytes.
func (m *merger) encode(dst []int32, piece []byte) []int32 {
	for len(piece) > longestPiece {
		dst = m.merge(dst, piece[:longestPiece])
		piece = piece[longestPiece:]
	}
	if ids, ok := m.cache[string(piece)]; ok {
		return append(dst, ids...)
	}
	from := len(dst)
	dst = m.merge(dst, piece)
	if len(piece) <= cachedPiece {
		if len(m.cache) == cachedPieces {
			clear(m.cache)
		}
		m.cache[string(piece)] = append([]int32(nil), dst[from:]...)
	}
	return dst
}

func (m *merger) merge(dst []int32, piece []byte) []int32 {
	n := len(piece)
	m.next, m.prev, m.rank = m.next[:0], m.prev[:0], m.rank[:0]
	m.heap = m.heap[:0]
	for i := range n {
		m.next = append(m.next, int32(i+1))
		m.prev = append(m.prev, int32(i-1))
		m.rank = append(m.rank, -1)
	}
	for i := range n {
		m.rate(piece, int32(i))
	}
	for len(m.heap) > 0 {
		key := m.pop()
		i := int32(uint32(key))
		if m.rank[i] != int32(key>>32) {
			continue
		}
		gone := m.next[i]
		m.next[i] = m.next[gone]
		m.rank[gone] = -1
		if end := m.next[i]; int(end) < n {
			m.prev[end] = i
		}
		m.rate(piece, i)
		if m.prev[i] >= 0 {
			m.rate(piece, m.prev[i])
		}
	}
	for i := int32(0); int(i) < n; i = m.next[i] {
		dst = append(dst, m.bpe.ranks[string(piece[i:m.next[i]])])
	}
	return dst
}

// rate looks up the token that part i would form with the next part.
func (m *merger) rate(piece []byte, i int32) {
	m.rank[i] = -1
	mid := m.next[i]
	if int(mid) >= len(piece) {
		return
	}
	end := m.next[mid]
	if int(end-i) > m.bpe.longest {
		return
	}
	if r, ok := m.bpe.ranks[string(piece[i:end])]; ok {
		m.rank[i] = r
		m.push(uint64(r)<<32 | uint64(i))
	}
}

func (m *merger) push(key uint64) {
	h := append(m.heap, key)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if h[up] <= h[i] {
			break
		}
		h[up], h[i] = h[i], h[up]
		i = up
	}
	m.heap = h
}

func (m *merger) pop() uint64 {
	h := m.heap
	top, last := h[0], len(h)-1
	h[0], h = h[last], h[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down+1 < last && h[down+1] < h[down] {
			down++
		}
		if down >= last || h[i] <= h[down] {
			break
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
	m.heap = h
	return top
}

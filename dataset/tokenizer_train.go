package dataset

import (
	"container/heap"
	"context"
	"fmt"
	"iter"
)

// trainPiece is the most bytes of a piece that training looks at as a whole; longer ones (a megabyte of base64) are cut
// there, so that the cost of a merge stays bounded.
const trainPiece = 256

// TrainBPE learns a BPE of vocab ids, BOS and EOS included, from documents: starting from the 256 bytes (ranks 0–255 in
// order of value) it adds the most frequent adjacent pair again and again, counted inside pieces only. Of pairs with
// equal counts the one whose parts have the lower ranks comes first, so that the result depends on the documents'
// content alone. An error of documents ends the training. p, which may be nil, is told of the bytes read.
func TrainBPE(ctx context.Context, documents iter.Seq2[[]byte, error], vocab int, p *Progress) (*BPE, error) {
	if low := minRanks + 2; vocab < low || vocab > maxRanks {
		return nil, fmt.Errorf("vocabulary size %d, want %d to %d", vocab, low, maxRanks)
	}
	counts := map[string]int64{}
	for text, err := range documents {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		countPieces(counts, text)
		p.Add(1, int64(len(text)), 0)
	}
	t := newPairTable(counts)
	for len(t.tokens) < vocab-2 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !t.mergeBest() {
			return nil, fmt.Errorf("the text has pairs for a vocabulary of %d only, asked for %d: give more text, or "+
				"a vocabulary of at most %d", len(t.tokens)+2, vocab, len(t.tokens)+2)
		}
	}
	return newBPE(t.tokens)
}

func countPieces(counts map[string]int64, text []byte) {
	for len(text) > 0 {
		n := min(splitPiece(text), trainPiece)
		if n > 1 {
			counts[string(text[:n])]++
		}
		text = text[n:]
	}
}

// pair is two adjacent tokens.
type pair struct{ left, right int32 }

// pieceWord is one distinct piece as tokens, with the number of times that it occurs.
type pieceWord struct {
	ids   []int32
	count int64
}

// pairTable counts the adjacent pairs of all pieces and keeps the counts up to date as pairs are merged.
type pairTable struct {
	tokens []string // by rank
	ranks  map[string]int32
	words  []pieceWord
	counts map[pair]int64
	where  map[pair][]int32 // the words that hold, or once held, the pair
	queue  pairQueue        // every pair with at least its present count
}

func newPairTable(pieces map[string]int64) *pairTable {
	t := &pairTable{ranks: map[string]int32{}, counts: map[pair]int64{}, where: map[pair][]int32{}}
	for b := range 256 {
		t.tokens = append(t.tokens, string([]byte{byte(b)}))
		t.ranks[t.tokens[b]] = int32(b)
	}
	for piece, count := range pieces {
		ids := make([]int32, len(piece))
		for i := range len(piece) {
			ids[i] = int32(piece[i])
		}
		t.words = append(t.words, pieceWord{ids, count})
		for i := range len(ids) - 1 {
			t.add(pair{ids[i], ids[i+1]}, count, int32(len(t.words)-1))
		}
	}
	for p, n := range t.counts {
		t.queue = append(t.queue, pairCount{p, n})
	}
	heap.Init(&t.queue)
	return t
}

func (t *pairTable) add(p pair, count int64, word int32) {
	t.counts[p] += count
	if at := t.where[p]; len(at) == 0 || at[len(at)-1] != word {
		t.where[p] = append(at, word)
	}
}

// mergeBest turns the most frequent pair into a token; false if no pair occurs twice.
func (t *pairTable) mergeBest() bool {
	for len(t.queue) > 0 {
		top := &t.queue[0]
		if now := t.counts[top.pair]; now != top.count {
			if now < 2 {
				heap.Pop(&t.queue)
			} else {
				top.count = now
				heap.Fix(&t.queue, 0)
			}
			continue
		}
		if top.count < 2 {
			return false
		}
		best := heap.Pop(&t.queue).(pairCount).pair
		token := t.tokens[best.left] + t.tokens[best.right]
		id, known := t.ranks[token] // the same bytes may have been put together from other parts
		if !known {
			id = int32(len(t.tokens))
			t.tokens, t.ranks[token] = append(t.tokens, token), id
		}
		t.merge(best, id)
		if !known {
			return true
		}
	}
	return false
}

// merge replaces p by id in all words.
func (t *pairTable) merge(p pair, id int32) {
	grown := map[pair]bool{}
	for _, w := range t.where[p] {
		word := &t.words[w]
		ids, out := word.ids, word.ids[:0]
		for i := 0; i < len(ids); i++ {
			if i+1 == len(ids) || ids[i] != p.left || ids[i+1] != p.right {
				out = append(out, ids[i])
				continue
			}
			if n := len(out); n > 0 {
				before := out[n-1]
				t.counts[pair{before, p.left}] -= word.count
				t.add(pair{before, id}, word.count, w)
				grown[pair{before, id}] = true
			}
			if i+2 < len(ids) {
				after := ids[i+2]
				t.counts[pair{p.right, after}] -= word.count
				t.add(pair{id, after}, word.count, w)
				grown[pair{id, after}] = true
			}
			out = append(out, id)
			i++
		}
		word.ids = out
	}
	delete(t.where, p)
	delete(t.counts, p)
	for q := range grown {
		if n := t.counts[q]; n > 0 {
			heap.Push(&t.queue, pairCount{q, n})
		}
	}
}

// pairQueue is a heap: most frequent first, then lowest ranks.
type pairQueue []pairCount

type pairCount struct {
	pair
	count int64
}

func (q pairQueue) Len() int { return len(q) }
func (q pairQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	switch {
	case a.count != b.count:
		return a.count > b.count
	case a.left != b.left:
		return a.left < b.left
	}
	return a.right < b.right
}
func (q pairQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *pairQueue) Push(x any)   { *q = append(*q, x.(pairCount)) }
func (q *pairQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

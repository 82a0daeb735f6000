package parallel

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/herdtrain/herd/trainer/llama"
)

// checkCover is that parts follow one another from 0 to n without gaps, and that their lengths, in units, are even to
// one; the last unit may be short.
func checkCover(t *rapid.T, n, unit int, parts []Range) {
	t.Helper()
	at, least, most := 0, n, 0
	for i, r := range parts {
		if r.Lo != at || r.Hi < r.Lo || r.Lo%unit != 0 && r.Lo != n {
			t.Fatalf("part %d of %d in units of %d is %v after %d", i, n, unit, r, at)
		}
		units := (r.Len() + unit - 1) / unit
		least, most = min(least, units), max(most, units)
		at = r.Hi
	}
	if at != n || most-least > 1 {
		t.Fatalf("parts %v of %d: end at %d, with %d to %d units of %d", parts, n, at, least, most, unit)
	}
}

func TestSplitProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 2000).Draw(t, "n")
		parts := rapid.IntRange(1, 40).Draw(t, "parts")
		align := rapid.IntRange(1, 70).Draw(t, "align")
		even, aligned, layers := make([]Range, parts), make([]Range, parts), make([]Range, parts)
		for i := range parts {
			even[i], aligned[i] = Split(n, parts, i), SplitAligned(n, align, parts, i)
			layers[i] = ChunkLayers(n, parts, i)
		}
		checkCover(t, n, 1, even)
		checkCover(t, n, align, aligned)
		checkCover(t, n, 1, layers)
		if first, last := layers[0].Len(), layers[parts-1].Len(); last > first || last > n/parts && n%parts != 0 {
			t.Fatalf("the first of %v has %d layers and the last %d", layers, first, last)
		}
		l := ShardLen(n, align, parts)
		if l%align != 0 || l*parts < n || l > 0 && (l-align)*parts >= n {
			t.Fatalf("shard length %d of %d in %d parts", l, n, parts)
		}
	})
}

// TestChunkLayersOfLlama: "one Transformer layer each from the first and the last stages" less (Llama 3, §3.3.2).
func TestChunkLayersOfLlama(t *testing.T) {
	for i := range 16 {
		want := 8
		if i == 0 || i == 15 {
			want = 7
		}
		if got := ChunkLayers(126, 16, i).Len(); got != want {
			t.Errorf("stage %d has %d of 126 layers, want %d", i, got, want)
		}
	}
}

func TestHeadsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kv, group := rapid.IntRange(1, 12).Draw(t, "kv heads"), rapid.IntRange(1, 12).Draw(t, "group")
		c := llama.Config{Heads: kv * group, KVHeads: kv}
		tp := rapid.IntRange(1, c.Heads).Draw(t, "tp")
		queries := make([]Range, tp)
		var kvs []Range // of the owners
		replicas := map[int][]Range{}
		for r := range tp {
			h := Heads(c, tp, r)
			queries[r] = h.Query
			if h.Query.Len() == 0 || h.Query.Lo/group != h.KV.Lo || (h.Query.Hi-1)/group != h.KV.Hi-1 ||
				h.Query.Len()%h.KV.Len() != 0 {
				t.Fatalf("tp rank %d of %d has query heads %v beside KV heads %v, groups of %d", r, tp, h.Query, h.KV, group)
			}
			if r < h.Replicas.Lo || r >= h.Replicas.Hi || h.Replicas != Heads(c, tp, h.Replicas.Lo).Replicas {
				t.Fatalf("tp rank %d of %d has replicas %v", r, tp, h.Replicas)
			}
			if r == h.Replicas.Lo {
				kvs = append(kvs, h.KV)
			}
			replicas[h.Replicas.Lo] = append(replicas[h.Replicas.Lo], h.Query)
		}
		checkCover(t, kv, 1, kvs)
		if tp <= kv {
			checkCover(t, c.Heads, group, queries)
			return
		}
		for first, shares := range replicas { // query heads are even among the replicas, replicas among the KV heads
			base := shares[0].Lo
			for i := range shares {
				shares[i].Lo -= base
				shares[i].Hi -= base
			}
			checkCover(t, group, 1, shares)
			if n := len(shares); n < tp/kv || n > (tp+kv-1)/kv {
				t.Fatalf("%d ranks from %d on share a KV head, of %d ranks and %d KV heads", n, first, tp, kv)
			}
		}
		if tp%kv == 0 {
			checkCover(t, c.Heads, 1, queries)
		}
	})
}

func TestHeadTailIsEven(t *testing.T) {
	for cp := 1; cp <= 16; cp++ {
		seen := map[int]bool{}
		for r := range cp {
			pieces := HeadTail(cp, r)
			if sum := pieces[0] + pieces[1]; sum != 2*cp-1 { // the work of piece i grows as 2i+1
				t.Errorf("context rank %d of %d has pieces %v: uneven work", r, cp, pieces)
			}
			seen[pieces[0]], seen[pieces[1]] = true, true
		}
		if len(seen) != 2*cp {
			t.Errorf("context %d: %d pieces on all ranks, want %d", cp, len(seen), 2*cp)
		}
	}
}

func ExampleHeads() {
	for _, tp := range []int{2, 3} {
		for r := range tp {
			h := Heads(llama.Config{Heads: 8, KVHeads: 2}, tp, r)
			fmt.Printf("tp %d rank %d: query heads %v, KV heads %v, replicas %v\n", tp, r, h.Query, h.KV, h.Replicas)
		}
	}
	// Output:
	// tp 2 rank 0: query heads 0–3, KV heads 0, replicas 0
	// tp 2 rank 1: query heads 4–7, KV heads 1, replicas 1
	// tp 3 rank 0: query heads 0–1, KV heads 0, replicas 0–1
	// tp 3 rank 1: query heads 2–3, KV heads 0, replicas 0–1
	// tp 3 rank 2: query heads 4–7, KV heads 1, replicas 2
}

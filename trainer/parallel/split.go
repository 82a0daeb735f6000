package parallel

import (
	"fmt"
	"strconv"

	"github.com/herdtrain/herd/trainer/llama"
)

// Range is the items Lo … Hi−1.
type Range struct{ Lo, Hi int }

// Len is the number of items.
func (r Range) Len() int { return r.Hi - r.Lo }

// String is such as 4–7, 4 for a single item, or none.
func (r Range) String() string {
	switch r.Len() {
	case 0:
		return "none"
	case 1:
		return strconv.Itoa(r.Lo)
	}
	return fmt.Sprintf("%d–%d", r.Lo, r.Hi-1)
}

// Split is part i of n items that are cut into contiguous parts as even as can be: the first n mod parts have one item
// more. Parts may be empty.
func Split(n, parts, i int) Range { return Range(llama.Leaf(n, parts, i)) }

// cut is the number of items before part i.
func cut(n, parts, i int) int { return Split(n, parts, i).Lo }

// SplitAligned is Split with cuts at multiples of align only, even to one unit of align items; the last unit may be
// short. FFN columns and vocabulary rows are cut so for numerics: fast.
func SplitAligned(n, align, parts, i int) Range {
	r := Split((n+align-1)/align, parts, i)
	return Range{min(r.Lo*align, n), min(r.Hi*align, n)}
}

// ShardLen is the length, a multiple of align, of each of parts equal shards that n items fill with the least padding:
// shard i is items i·ShardLen … of the padded array. Collectives want equal counts.
func ShardLen(n, align, parts int) int {
	unit := align * parts
	return (n + unit - 1) / unit * align
}

// ChunkLayers is the layers of chunk i of a model that a pipeline cuts into chunks, even to one layer. Chunks in the
// middle get the longer shares, the last the shortest: the ends hold the embedding and the head besides. (126 layers on
// 16 stages give 7, 14 × 8, 7 as in The Llama 3 Herd of Models, §3.3.2.)
func ChunkLayers(layers, chunks, i int) Range {
	each, more := layers/chunks, layers%chunks
	first := (chunks - more) / 2 // of the chunks with one more
	lo := func(i int) int { return i*each + min(max(i-first, 0), more) }
	return Range{lo(i), lo(i + 1)}
}

// HeadShare is the attention heads of a tensor rank.
type HeadShare struct {
	Query, KV Range
	// Replicas are the tensor ranks with the same KV heads, which hold copies of their weights when tp is more than the
	// model's KV heads. The first is the owner.
	Replicas Range
}

// Heads is the share of tensor rank r of tp ≤ c.Heads. Every query head is on one rank, beside its KV head; a rank's
// query heads are an equal number for each of its KV heads, so that attention over them is grouped as the model's is.
// Up to tp = c.KVHeads the KV heads are split evenly to one; beyond, each is replicated on an even number (to one) of
// ranks, which split its query heads evenly to one.
func Heads(c llama.Config, tp, r int) HeadShare {
	group := c.Heads / c.KVHeads
	if tp <= c.KVHeads {
		kv := Split(c.KVHeads, tp, r)
		return HeadShare{Range{kv.Lo * group, kv.Hi * group}, kv, Range{r, r + 1}}
	}
	k := 0
	for cut(tp, c.KVHeads, k+1) <= r {
		k++
	}
	replicas := Split(tp, c.KVHeads, k)
	q := Split(group, replicas.Len(), r-replicas.Lo)
	return HeadShare{Range{k*group + q.Lo, k*group + q.Hi}, Range{k, k + 1}, replicas}
}

// HeadTail are the pieces of context rank r among 2·cp equal pieces of a sequence. One from the head and one from the
// tail give every rank the same number of (query, key) pairs under the causal mask.
func HeadTail(cp, r int) [2]int { return [2]int{r, 2*cp - 1 - r} }

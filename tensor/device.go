// Package tensor is the ground floor of the engine: element types, buffers, the memory plan, the counter-based random
// numbers, and Device, the flat list of operations from which a Llama's forward, backward and optimizer are written.
// tensor/cpu and tensor/cuda implement Device.
package tensor

import (
	"context"
	"math"
)

// QueueKind names the queues that every Device has.
type QueueKind int

// Compute runs the model; Gather and Reduce carry collectives beside it; CopyQueue moves snapshots to the host.
const (
	Compute QueueKind = iota
	Gather
	Reduce
	CopyQueue
	NumQueues
)

// Queue runs operations in the order in which they were enqueued. One goroutine at a time enqueues on a Queue.
// Operations never fail by themselves: a wrong shape is a broken invariant and panics where it is enqueued; a device
// fault is the error of the next Sync, and the queue stays failed.
type Queue interface {
	// Record is the point after everything enqueued so far.
	Record() Event
	// Wait makes what is enqueued from now on run after e, of this or another queue. It does not block the host,
	// except on a queue that runs inline (the CPU's Compute).
	Wait(e Event)
	// Sync blocks the host until everything enqueued has run, or ctx ends.
	Sync(ctx context.Context) error
}

// Event is a point in a Queue. Its methods may be called from any goroutine.
type Event interface {
	// Query says whether the point has been passed, and the queue's failure if there was one.
	Query() (bool, error)
	// Done is closed when the point has been passed.
	Done() <-chan struct{}
}

// GemmForm is the transposition pattern of one of the three matrix products of training.
type GemmForm int

// With x [n,k] the input, w [m,k] the weight and y [n,m] the output of a linear layer:
const (
	NT GemmForm = iota // forward: y = x·wᵀ        c [n,m], a [n,k], b [m,k]
	NN                 // dgrad:   dx = dy·w        c [n,k], a [n,m], b [m,k]
	TN                 // wgrad:   dw = dyᵀ·x       c [m,k], a [n,m], b [n,k]
)

// AttentionShape says how rows of q, k, v are sequences and heads. Row b·Length+i of q is query i of sequence b, row
// b·Keys+j of k and v its key j. KV head j serves the query heads j·Heads/KVHeads … (j+1)·Heads/KVHeads − 1.
type AttentionShape struct {
	Batch, Length int // sequences, and queries of each
	// Keys is how many keys a sequence has, 0: Length. Query i is at position Offset+i of the sequence, key j at Start+j,
	// and a query sees the keys up to its own position; Start ≤ Offset. With context parallelism, or a cache of keys, not
	// all keys are there, and not the same as queries.
	Keys, Offset, Start     int
	Heads, KVHeads, HeadDim int
	Scale                   float64 // of the scores before the softmax, 1/√HeadDim
	Window                  int     // a query sees the key at its own position and the Window−1 before it; 0: no limit
	// First is I32 [Batch·Length]: the position in its own sequence of the first key that a query may see (the first
	// token of its document), at most its own. A zero Buffer stands for all zeros.
	First Buffer
}

// AdamWStep holds the numbers of one AdamW update (Loshchilov & Hutter 2019, algorithm 2): with bias corrections for
// Step (1 for the first update), p ← p·(1 − LR·WeightDecay) − LR·m̂/(√v̂ + Eps).
type AdamWStep struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64
	Step                               int64
}

// NoTarget stands for the target of a token without loss in CrossEntropyShard. Every other number is a column counted
// from the shard's first, so that a target in another shard may be negative, −1 too.
const NoTarget = math.MinInt32

// Device runs operations on buffers of its own memory. Every operation is enqueued on q and returns at once (on the
// CPU's Compute queue: when done); buffers must stay as they are until it has run. Results do not depend on the number
// of threads, and are the same bits in every run.
//
// In the doc lines n is tokens, d the model width, F the FFN width, V the vocabulary. "x" stands for the storage dtype
// of the activations and weights: F32, BF16 or F64; "acc" for its Accum. Arithmetic is done in acc and rounded once
// when stored, unless said.
type Device interface {
	// Name is what a person would call the device, with the kernels in use.
	Name() string
	// Queue is the device's queue of that kind; always the same one.
	Queue(QueueKind) Queue
	// Alloc makes a zeroed buffer, aligned to 64 bytes. It fails when the memory is not there.
	Alloc(dt DType, n int) (Buffer, error)
	// Close waits for the queues, ends their goroutines and frees every buffer.
	Close() error

	// Memory.

	// Upload copies src, host memory, into dst, which has the same size in bytes. src must not change until it ran.
	Upload(q Queue, dst Buffer, src []byte)
	// Download copies src into dst, host memory of the same size.
	Download(q Queue, dst []byte, src Buffer)
	// Fill sets every element of dst.
	Fill(q Queue, dst Buffer, v float64)
	// Cast converts src to dst's dtype, element by element, rounding to nearest even. Equal lengths.
	Cast(q Queue, dst, src Buffer)
	// Copy is Cast of matrices of equal shape.
	Copy(q Queue, dst, src Mat)
	// Add is dst = a + b, acc [n] each; dst may be a or b.
	Add(q Queue, dst, a, b Buffer)

	// Linear layers.

	// Gemm is c = a·b in the form's transposition, or c += a·b. a, b, c may each be F32 or BF16, or all F64. The order
	// of the K sum depends on K alone.
	Gemm(q Queue, form GemmForm, c, a, b Mat, accumulate bool)

	// The block.

	// Embed gathers rows: x [n,d] = w [V,d] at ids I32 [n], zeros for an id outside [0, V): the row of another shard.
	Embed(q Queue, x, w Mat, ids Buffer)
	// EmbedBackward adds dx [n,d] into rows of dw acc [V,d], equal ids in token order; it passes over ids outside
	// [0, V).
	EmbedBackward(q Queue, dw, dx Mat, ids Buffer)
	// RMSNorm is y = x·rstd rounded to x's dtype, times w; rstd acc [n] = (mean(x²) + eps)^−½. y, x [n,d], w x [d].
	RMSNorm(q Queue, y Mat, rstd Buffer, x Mat, w Buffer, eps float64)
	// AddRMSNorm is sum = res + delta (rounded), then RMSNorm of sum. All [n,d]; sum may be res.
	AddRMSNorm(q Queue, y Mat, rstd Buffer, sum, res, delta Mat, w Buffer, eps float64)
	// RMSNormBackward adds into dw acc [d], sums over tokens in a fixed order, and sets dx [n,d] (or adds to it) from
	// dy [n,d], the norm's input x and its rstd.
	RMSNormBackward(q Queue, dx Mat, dw Buffer, dy, x Mat, w, rstd Buffer, accumulate bool)
	// RoPE rotates in place each head's pairs (j, j+HeadDim/2) (Hugging Face's layout) of x [n, heads·headDim] by the
	// angle of position pos I32 [n]; table acc [positions, headDim/2, 2] holds cos, sin. inverse rotates back.
	RoPE(q Queue, x Mat, pos, table Buffer, headDim int, inverse bool)
	// Attention is o [n, Heads·HeadDim] = softmax(q·kᵀ·Scale)·v over the keys that causality, First and Window allow,
	// streamed (no Length×Keys matrix). q is like o, n = Batch·Length; k, v [Batch·Keys, KVHeads·HeadDim]; lse acc
	// [Batch, Heads, Length] is the natural log of the softmax's denominator. A query that sees no key gets 0 and −∞. o
	// may be acc.
	Attention(q Queue, o Mat, lse Buffer, qm, k, v Mat, s AttentionShape)
	// MergeAttention makes o acc [Length, Heads·HeadDim], the output of Attention over some keys, and its lse acc [Heads,
	// Length], those over these keys and others, of which part and partLSE are the output.
	MergeAttention(q Queue, o Mat, lse Buffer, part Mat, partLSE Buffer)
	// AttentionBackward sets dq, dk, dv from do and what Attention read and wrote; o and lse may be those over more keys.
	// dq, dk and dv may be acc.
	AttentionBackward(q Queue, dq, dk, dv, do, o Mat, lse Buffer, qm, k, v Mat, s AttentionShape)
	// SwiGLU is h [n,F] = silu(g)·u with gu [n,2F] = g | u.
	SwiGLU(q Queue, h, gu Mat)
	// SwiGLUBackward sets dgu [n,2F], which may be gu, from dh [n,F].
	SwiGLUBackward(q Queue, dgu, dh, gu Mat)

	// The loss.

	// CrossEntropy sets loss acc [n] = log Σ exp(logits) − logits[target], 0 where target is negative. With grad it
	// overwrites logits [n,V] by (softmax − onehot)·scale, zeros where target is negative. targets I32 [n].
	CrossEntropy(q Queue, loss Buffer, logits Mat, targets Buffer, scale float64, grad bool)
	// LogSumExp is lse acc [n] = log Σ exp(logits) over the columns of logits [n,V], which may be a shard of the
	// vocabulary: −∞ where all logits are, or V is 0. The whole row's is the LogSumExp of those of the shards.
	LogSumExp(q Queue, lse Buffer, logits Mat)
	// CrossEntropyShard is CrossEntropy of a shard, with lse acc [n] of the whole rows: it sets loss acc [n] =
	// lse − logits[target], 0 where target is not in [0, V), so that the losses of the shards add up to the row's. With
	// grad it overwrites logits [n,V] by (exp(logits − lse) − onehot)·scale, with no onehot where target is not in
	// [0, V), and zeros where it is NoTarget. targets I32 [n] count from the shard's first column.
	CrossEntropyShard(q Queue, loss Buffer, logits Mat, targets, lse Buffer, scale float64, grad bool)

	// The optimizer.

	// Sum adds the elements of x to out F64 [1], SumSquares their squares, in an order that depends on Len alone.
	Sum(q Queue, out, x Buffer)
	SumSquares(q Queue, out, x Buffer)
	// Gate sets gate F64 [2] from the step's loss F64 [1] and the squared norm of its gradient F64 [1]: gate[0] is the
	// clipping factor min(1, maxNorm/(√sq + 1e-6)) (1 if maxNorm is 0), gate[1] is 1 if loss and sq are finite, else 0.
	Gate(q Queue, gate, loss, sq Buffer, maxNorm float64)
	// AdamW updates master, m and v acc [n] by the gradient g acc [n] times gate[0], and stores the new master in p x
	// [n] (which may be master itself). It does nothing if gate[1] is 0.
	AdamW(q Queue, p, master, m, v, g, gate Buffer, s AdamWStep)
}

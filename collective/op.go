package collective

import (
	"fmt"

	"github.com/herdtrain/herd/tensor"
)

// Reduction says how the terms of all ranks become one.
type Reduction uint8

// Sum adds in rank order; Max takes the largest, NaN if any term is.
const (
	Sum Reduction = iota
	Max
)

// String is "sum" or "max".
func (r Reduction) String() string {
	if r == Max {
		return "max"
	}
	return "sum"
}

type kind uint8

const (
	kindAllReduce kind = iota + 1
	kindReduceScatter
	kindAllGather
	kindBroadcast
	kindAllToAll
	kindBarrier
	kindSend
	kindRecv
)

var kindNames = [...]string{kindAllReduce: "all-reduce", kindReduceScatter: "reduce-scatter",
	kindAllGather: "all-gather", kindBroadcast: "broadcast", kindAllToAll: "all-to-all", kindBarrier: "barrier",
	kindSend: "send", kindRecv: "recv"}

func (k kind) String() string {
	if int(k) < len(kindNames) && k != 0 {
		return kindNames[k]
	}
	return "unknown operation"
}

// Op is one operation of a batch, made by the functions below.
type Op struct {
	kind     kind
	reduce   Reduction
	peer     int // root, or the other rank of a message
	dst, src tensor.Buffer
}

// AllReduce sets dst [c] on every rank to the reduction of all ranks' src [c]. dst may be src. Any dtype.
func AllReduce(dst, src tensor.Buffer, r Reduction) Op {
	return Op{kind: kindAllReduce, reduce: r, dst: dst, src: src}
}

// ReduceScatter sets dst [c] on rank i to the reduction of piece i of all ranks' src [Size·c]. dst may be this rank's
// piece of src. Any dtype.
func ReduceScatter(dst, src tensor.Buffer, r Reduction) Op {
	return Op{kind: kindReduceScatter, reduce: r, dst: dst, src: src}
}

// AllGather sets piece i of dst [Size·c] on every rank to rank i's src [c]. src may be this rank's piece of dst.
func AllGather(dst, src tensor.Buffer) Op { return Op{kind: kindAllGather, dst: dst, src: src} }

// Broadcast sets buf [c] on every rank to root's.
func Broadcast(buf tensor.Buffer, root int) Op {
	return Op{kind: kindBroadcast, peer: root, dst: buf, src: buf}
}

// AllToAll sets piece i of dst [Size·c] to piece Rank of rank i's src [Size·c]. They must not overlap.
func AllToAll(dst, src tensor.Buffer) Op { return Op{kind: kindAllToAll, dst: dst, src: src} }

// Send gives src [c] to the matching Recv of another rank. It may end before that one starts, or not.
func Send(src tensor.Buffer, to int) Op { return Op{kind: kindSend, peer: to, src: src} }

// Recv sets dst [c] to what the other rank sends.
func Recv(dst tensor.Buffer, from int) Op { return Op{kind: kindRecv, peer: from, dst: dst} }

// Barrier ends on no rank before all have started it; so does every other collective.
func Barrier() Op { return Op{kind: kindBarrier} }

// check says what is wrong with an operation of a group of n ranks; rank is this one's.
func (o Op) check(rank, n int) error {
	want := func(dst, src int) error {
		if o.dst.DType() != o.src.DType() {
			return fmt.Errorf("%w: %v from %v into %v", ErrInvalid, o.kind, o.src.DType(), o.dst.DType())
		}
		if o.dst.Len()*src != o.src.Len()*dst {
			return fmt.Errorf("%w: %v from %d elements into %d among %d ranks",
				ErrInvalid, o.kind, o.src.Len(), o.dst.Len(), n)
		}
		return nil
	}
	peer := func() error {
		if o.peer < 0 || o.peer >= n || o.kind != kindBroadcast && o.peer == rank {
			return fmt.Errorf("%w: %v between rank %d and rank %d of %d", ErrInvalid, o.kind, rank, o.peer, n)
		}
		return nil
	}
	switch o.kind {
	case kindAllReduce:
		return want(1, 1)
	case kindReduceScatter:
		return want(1, n)
	case kindAllGather:
		return want(n, 1)
	case kindAllToAll:
		if o.src.Len()%n != 0 {
			return fmt.Errorf("%w: %v of %d elements among %d ranks", ErrInvalid, o.kind, o.src.Len(), n)
		}
		return want(1, 1)
	case kindBroadcast, kindSend, kindRecv:
		return peer()
	case kindBarrier:
		return nil
	}
	return fmt.Errorf("%w: %v", ErrInvalid, o.kind)
}

// desc is what two ranks must agree on about an operation. It heads every block.
type desc struct {
	seq    uint64 // of the collective in its Group, or of the message from one rank to another, from 1
	count  uint64 // elements of the larger buffer
	kind   kind   // a Recv is described by its Send
	dtype  tensor.DType
	reduce Reduction
	chain  uint8 // 1: it goes along the chain of ranks, 0: straight between all of them
	root   int32 // of a broadcast
}

// String is the operation with its size, without its number.
func (d desc) String() string {
	if d.kind == kindBarrier {
		return d.kind.String()
	}
	s := fmt.Sprintf("%v of %d × %v", d.kind, d.count, d.dtype)
	switch d.kind {
	case kindAllReduce, kindReduceScatter:
		s += ", " + d.reduce.String()
	case kindBroadcast:
		s += fmt.Sprintf(" from rank %d", d.root)
	}
	return s
}

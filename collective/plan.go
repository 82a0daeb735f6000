package collective

import "github.com/herdtrain/herd/tensor"

// cacheBytes is the size from which operations write what they receive past the caches.
const cacheBytes = 8 << 20

// plan makes t the operation. The algorithms:
//
//   - straight: each rank sends the others their pieces, reduces its own piece and, in an all-reduce, sends the result
//     around. Each rank sends and receives (n−1)/n of the buffer, as in a ring, in fewer hops.
//   - at once, for small all-reduces: each rank sends all of its terms to all, and everybody reduces.
//   - chain, for large operations of ranks that lie on several hosts, so that the bytes cross each network link once
//     per direction: a ring cut open before rank 0, which keeps sums in rank order. Partial sums go up from rank 0 to
//     the last one and results come back down at the same time.
func (e *engine) plan(t *transfer, op Op) {
	n := e.size
	clear(t.flows)
	*t = transfer{flows: t.flows, to: -1}
	larger := op.dst
	if op.src.Len() > larger.Len() || op.kind == kindSend {
		larger = op.src
	}
	t.desc = desc{count: uint64(larger.Len()), kind: op.kind, dtype: larger.DType(), reduce: op.reduce}
	t.streams = t.desc.bytes() >= cacheBytes
	if op.kind == kindSend || op.kind == kindRecv {
		e.planMessage(t, op)
		return
	}
	e.collectives++
	t.desc.seq = e.collectives
	if op.kind == kindBroadcast {
		t.desc.root = int32(op.peer)
	}
	if bytes := len(tensor.HostBytes(larger)); e.chain > 0 && bytes >= e.chain && e.planChain(t, op) {
		t.desc.chain = 1
	} else {
		e.planStraight(t, op)
	}
	if op.kind == kindAllGather {
		t.keep = [2][]byte{part(op.dst, e.rank, n), tensor.HostBytes(op.src)}
	} else if op.kind == kindAllToAll {
		t.keep = [2][]byte{part(op.dst, e.rank, n), part(op.src, e.rank, n)}
	}
	for p := range t.flows {
		f := &t.flows[p]
		f.greetOut = p != e.rank && (t.desc.chain == 1 || !f.outLeft())
		f.greetIn = p != e.rank && (t.desc.chain == 1 || !f.inLeft(t))
	}
}

// planMessage is a Send or a Recv, whose two ranks count the messages from one to the other.
func (e *engine) planMessage(t *transfer, op Op) {
	t.to = op.peer
	f, l := &t.flows[op.peer], e.links[op.peer]
	if op.kind == kindSend {
		l.sent++
		t.desc.seq = l.sent
		f.out[1].buf = tensor.HostBytes(op.src)
		f.greetOut = !f.outLeft()
		return
	}
	l.received++
	t.desc.seq, t.desc.kind = l.received, kindSend
	f.in.buf = tensor.HostBytes(op.dst)
	f.greetIn = !f.inLeft(t)
}

func (e *engine) planStraight(t *transfer, op Op) {
	n := e.size
	src, dst := tensor.HostBytes(op.src), tensor.HostBytes(op.dst)
	atOnce := len(src) <= e.small
	switch {
	case op.kind == kindReduceScatter:
		t.mine, t.sum.buf = part(op.src, e.rank, n), dst
	case op.kind == kindAllReduce && atOnce:
		t.mine, t.sum.buf, t.sendFirst = src, dst, true
	case op.kind == kindAllReduce:
		t.mine, t.sum.buf = piece(op.src, e.rank, n), piece(op.dst, e.rank, n)
	}
	for p := range t.flows {
		f := &t.flows[p]
		if p == e.rank {
			continue
		}
		switch op.kind {
		case kindReduceScatter:
			f.term, f.out[0].buf = true, part(op.src, p, n)
		case kindAllReduce:
			if f.term = true; atOnce {
				f.out[0].buf = src
				break
			}
			f.out[0].buf = piece(op.src, p, n)
			f.out[1] = span{buf: t.sum.buf, after: &t.sum}
			f.in.buf = piece(op.dst, p, n)
		case kindAllGather:
			f.out[1].buf, f.in.buf = src, part(op.dst, p, n)
		case kindAllToAll:
			f.out[1].buf, f.in.buf = part(op.src, p, n), part(op.dst, p, n)
		case kindBroadcast:
			if e.rank == op.peer {
				f.out[1].buf = src
			} else if p == op.peer {
				f.in.buf = dst
			}
		}
	}
}

// planChain says whether the operation has a chain: reductions in BF16 round once and have none, and a reduce-scatter
// would need memory for the partial sums.
func (e *engine) planChain(t *transfer, op Op) bool {
	last := e.size - 1
	below, above := &t.ends[0], &t.ends[1]
	if e.rank > 0 {
		below = &t.flows[e.rank-1]
	}
	if e.rank < last {
		above = &t.flows[e.rank+1]
	}
	dst := tensor.HostBytes(op.dst)
	switch {
	case op.kind == kindAllReduce && op.dst.DType() != tensor.BF16:
		t.mine, t.sum.buf = tensor.HostBytes(op.src), dst
		below.term = true
		above.out[0] = span{buf: dst, after: &t.sum}
		from := &t.sum
		if e.rank < last {
			above.in.buf = dst
			from = &above.in
		}
		below.out[1] = span{buf: dst, after: from}
	case op.kind == kindAllGather:
		c := len(dst) / e.size
		mine := e.rank * c
		below.in.buf = dst[:mine]
		above.out[1] = span{buf: dst[:mine+c], after: &below.in}
		above.in.buf = dst[mine+c:]
		below.out[1] = span{buf: dst[mine:], after: &above.in, slack: c}
	case op.kind == kindBroadcast && e.rank == op.peer:
		below.out[1].buf, above.out[1].buf = dst, dst
	case op.kind == kindBroadcast && e.rank > op.peer:
		below.in.buf = dst
		above.out[1] = span{buf: dst, after: &below.in}
	case op.kind == kindBroadcast:
		above.in.buf = dst
		below.out[1] = span{buf: dst, after: &above.in}
	default:
		return false
	}
	return true
}

// Package collective is how the ranks of a run exchange data: all-reduce, all-gather and their kin over a Group. Ranks
// are goroutines of one process (NewLocal) or processes on one or many hosts (Join).
//
// Every backend runs the same algorithms over links between pairs of ranks, so results are the same bits everywhere:
// **an element's sum is ((x₀ + x₁) + x₂) + … in rank order**, whatever the backend, the size of the operation and the
// element's place in it. F32, F64 and I32 are summed in their own type (I32 wraps); BF16 is summed in fp32 and rounded
// once, to nearest even.
//
// The parts: an engine (engine.go) keeps a Group's batches in order and moves the oldest one on; plan.go says for each
// operation which bytes go to and come from which rank; transfer.go moves them; ring.go is a link's queue of blocks. A
// backend only makes links: local.go of pointers, segment.go of shared memory, stream.go of TCP connections.
package collective

import (
	"context"
	"time"

	"github.com/herdtrain/herd/tensor"
)

// Group is a communicator of Size ranks. All ranks start the same collectives in the same order, and any two ranks
// agree on the order of what they send each other and the collectives. A difference is ErrMismatch on every rank. One
// goroutine uses a Group, except for Abort. Batches run one after the other in the order in which they were started;
// use another Group (Split) for what must overtake.
//
// A Group that failed stays failed, on every rank: close it and make a new one for the next generation.
type Group interface {
	Rank() int
	Size() int
	// Start begins a batch of operations that make progress together; none may touch what another one writes. The
	// batch runs after what q holds (nil: at once), and Start never blocks. What is enqueued on q later need not wait
	// for it: use Work.Event. Buffers are host memory and belong to the batch until its Work has ended; Start does not
	// keep ops. Wrong buffers are ErrInvalid on every rank.
	Start(q tensor.Queue, ops ...Op) Work
	// Register prepares a buffer that many operations will use, if the backend has anything to prepare.
	Register(b tensor.Buffer) error
	// Split makes a Group of the ranks that give the same color, ordered by key and then by rank. All ranks call it,
	// with no batch in progress. A rank with a negative color gets no Group: nil. Close what it returns.
	Split(ctx context.Context, color, key int) (Group, error)
	// Abort fails the Group on every rank, with the cause on this one and its text on the others. Any goroutine may
	// call it, also after Close.
	Abort(cause error)
	// Close ends the Group's goroutines and connections. With a batch in progress it is an Abort with ErrClosed; else
	// the other ranks fail only if they need this one again.
	Close() error
}

// Options of a Group.
type Options struct {
	// Name is what errors call the Group; a Split appends "/color".
	Name string
	// Timeout is how long a batch may take from when its queue has come to it, 0: no limit. Then it is ErrTimeout.
	Timeout time.Duration
}

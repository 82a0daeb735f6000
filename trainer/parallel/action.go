package parallel

import "fmt"

// Pipeline is what a schedule is made for. All numbers are at least 1.
type Pipeline struct {
	Stages       int
	Virtual      int // chunks of layers on each stage; more than 1 only for the interleaved schedule
	MicroBatches int
	Layers       int // of the model, at least Stages·Virtual
}

// Chunks is the number of chunks into which the layers are cut. Chunk c is on stage c mod Stages.
func (p Pipeline) Chunks() int { return p.Stages * p.Virtual }

// Stage is where a chunk is.
func (p Pipeline) Stage(chunk int) int { return chunk % p.Stages }

// ActionKind is what an action does.
type ActionKind uint8

// A chunk's backward pass is either one Backward or split in two. Activations go forward, their gradients backward.
const (
	Forward        ActionKind = iota
	Backward                  // gradients of the chunk's input and of its weights, layer by layer
	BackwardInput             // gradient of the input alone; keeps what BackwardWeight needs
	BackwardWeight            // gradients of the weights
	SendForward               // the chunk's output, to the next chunk's stage
	RecvForward               // the chunk's input, from the previous chunk's stage
	SendBackward              // the gradient of the chunk's input, to the previous chunk's stage
	RecvBackward              // the gradient of the chunk's output, from the next chunk's stage
	numKinds
)

// Transfers says whether k is a send or a receive.
func (k ActionKind) Transfers() bool { return k >= SendForward && k < numKinds }

// Sends says whether k is a send.
func (k ActionKind) Sends() bool { return k == SendForward || k == SendBackward }

func (k ActionKind) String() string {
	if k >= numKinds {
		return fmt.Sprintf("kind-%d-", k)
	}
	return [...]string{"F", "B", "I", "W", "send-F", "recv-F", "send-B", "recv-B"}[k]
}

// Action is one thing that a stage does, always for a chunk of its own and a micro-batch.
type Action struct {
	Kind       ActionKind
	Chunk      int // of all chunks, 0 … Chunks−1
	MicroBatch int
	Peer       int // the other stage of a transfer
	// Batch numbers the batches of transfers of a stage, from 1; 0 for the other kinds. Those of one batch are neighbours
	// in the list and start together, so that two stages may send to each other. Between two stages, transfers in one
	// direction match in the order of the lists.
	Batch  int
	Layers Range // of the chunk; empty for a transfer
}

// String is such as F3/0 (forward of micro-batch 3 through chunk 0), I and W for a split backward pass, or send-F3/0>1.
func (a Action) String() string {
	s := fmt.Sprintf("%v%d/%d", a.Kind, a.MicroBatch, a.Chunk)
	switch {
	case a.Kind.Sends():
		s += fmt.Sprintf(">%d", a.Peer)
	case a.Kind.Transfers():
		s += fmt.Sprintf("<%d", a.Peer)
	}
	return s
}

// input says whether k makes the gradient of a chunk's input.
func (k ActionKind) input() bool { return k == Backward || k == BackwardInput }

// action is the action as the pipeline has it, with Batch 0.
func (p Pipeline) action(k ActionKind, chunk, microBatch int) Action {
	a := Action{Kind: k, Chunk: chunk, MicroBatch: microBatch}
	switch k {
	case SendForward, RecvBackward:
		a.Peer = p.Stage(chunk + 1)
	case RecvForward, SendBackward:
		a.Peer = p.Stage(chunk - 1 + p.Chunks())
	default:
		a.Layers = ChunkLayers(p.Layers, p.Chunks(), chunk)
	}
	return a
}

// carries says whether transfers cross the boundary after chunk: there is a next chunk, and it is on another stage.
func (p Pipeline) carries(chunk int) bool {
	return p.Stages > 1 && chunk >= 0 && chunk < p.Chunks()-1
}

// transfer is the send that follows the work a; false if its result stays on the stage.
func (p Pipeline) transfer(a Action) (Action, bool) {
	switch {
	case a.Kind == Forward && p.carries(a.Chunk):
		return p.action(SendForward, a.Chunk, a.MicroBatch), true
	case a.Kind.input() && p.carries(a.Chunk-1):
		return p.action(SendBackward, a.Chunk, a.MicroBatch), true
	}
	return Action{}, false
}

// partner is the receive of a send.
func (p Pipeline) partner(send Action) Action {
	if send.Kind == SendForward {
		return p.action(RecvForward, send.Chunk+1, send.MicroBatch)
	}
	return p.action(RecvBackward, send.Chunk-1, send.MicroBatch)
}

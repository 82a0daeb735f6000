package collective

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// frameKind says what a frame of a control connection is.
type frameKind uint8

// A handshake is hello (dialer), hello and proof (listener), proof (dialer), welcome (listener); either side may say
// refused instead. After it: a bell wakes the other engine, bye comes before an orderly end.
const (
	frameHello frameKind = iota + 1
	frameProof
	frameWelcome
	frameRefused
	frameSegment // carries the descriptor of a shared segment
	frameBell
	frameAbort
	frameAsk
	frameAnswer
	frameBye
)

// frameLimits are the most bytes that each kind may have.
var frameLimits = [...]int{
	frameHello: 4 << 10, frameProof: 32, frameWelcome: 0, frameRefused: 2 << 10, frameSegment: 8,
	frameBell: 0, frameAbort: 16 << 10, frameAsk: 8, frameAnswer: 256 << 10, frameBye: 0,
}

const frameHeader = 5 // kind and little-endian length

// frame is kind and payload as they are sent.
func frame(k frameKind, payload []byte) []byte {
	b := make([]byte, frameHeader, frameHeader+len(payload))
	b[0] = byte(k)
	binary.LittleEndian.PutUint32(b[1:], uint32(len(payload)))
	return append(b, payload...)
}

// bell is the frame that is sent often.
var bell = frame(frameBell, nil)

// readFrame reads one frame. Its error is io.EOF at an end between frames, ErrFrame for bytes that are none.
func readFrame(r io.Reader) (frameKind, []byte, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	k, n := frameKind(head[0]), binary.LittleEndian.Uint32(head[1:])
	if k == 0 || int(k) >= len(frameLimits) {
		return 0, nil, fmt.Errorf("%w: kind %d", ErrFrame, k)
	}
	if limit := frameLimits[k]; uint64(n) > uint64(limit) {
		return 0, nil, fmt.Errorf("%w: %d bytes of kind %d, at most %d", ErrFrame, n, k, limit)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, noEOF(err)
	}
	return k, payload, nil
}

// noEOF makes an end in the middle of something an error that is not io.EOF.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// abortFrame is an *Error on its way to another rank.
type abortFrame struct {
	Rank, Peer int
	Op         string
	Seq        uint64
	Reason     int // place in reasons
	Text       string
}

// maxText is how much of an error's text other ranks get to see.
const maxText = 8 << 10

func (e *Error) frame() []byte {
	text := e.Err.Error()
	b, _ := json.Marshal(abortFrame{e.Rank, e.Peer, e.Op, e.Seq, reason(e.Err), text[:min(len(text), maxText)]})
	if len(b) > frameLimits[frameAbort] { // a text full of characters that need escapes
		b, _ = json.Marshal(abortFrame{e.Rank, e.Peer, e.Op, e.Seq, reason(e.Err), "(a text that cannot be sent)"})
	}
	return frame(frameAbort, b)
}

// toldError is the reason of a failure that another rank found.
type toldError struct {
	reason error
	text   string
}

func (e *toldError) Error() string { return e.text }
func (e *toldError) Unwrap() error { return e.reason }

// parseAbort reads what a rank of n says.
func parseAbort(b []byte, n int) (*Error, error) {
	var a abortFrame
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if a.Rank < 0 || a.Rank >= n || a.Peer < -1 || a.Peer >= n || a.Reason < 0 || a.Reason >= len(reasons) {
		return nil, fmt.Errorf("%w: an abort by rank %d for rank %d of %d, reason %d",
			ErrFrame, a.Rank, a.Peer, n, a.Reason)
	}
	return &Error{Rank: a.Rank, Peer: a.Peer, Op: a.Op, Seq: a.Seq, Err: &toldError{reasons[a.Reason], a.Text}}, nil
}

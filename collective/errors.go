package collective

import (
	"errors"
	"fmt"
)

// Why a Group failed. An *Error wraps one of them, the same one on every rank.
var (
	ErrInvalid  = errors.New("invalid operation")                     // buffers that do not fit the operation
	ErrMismatch = errors.New("ranks started different operations")    // kind, size, dtype or order
	ErrTimeout  = errors.New("operation timed out")                   // see Options.Timeout
	ErrGone     = errors.New("rank is gone")                          // its process ended, or it closed the Group
	ErrAborted  = errors.New("group was aborted")                     // by Abort
	ErrClosed   = errors.New("group was closed")                      // on this rank, with a batch in progress
	ErrDevice   = errors.New("the queue before the operation failed") // see tensor.Event
	ErrFrame    = errors.New("invalid frame")                         // bytes that no rank sends
	ErrRefused  = errors.New("handshake refused")                     // another key, generation, build or rank
)

// reasons are the errors that travel between ranks, by their code.
var reasons = []error{
	ErrInvalid, ErrMismatch, ErrTimeout, ErrGone, ErrAborted, ErrClosed, ErrDevice, ErrFrame, ErrRefused,
}

// Error is the failure of a Group.
type Error struct {
	Group string
	Rank  int    // the rank that found out; it tells the others
	Peer  int    // the rank at fault, −1 if that is not known
	Op    string // the operation in progress on Rank, with its size; "" if there was none
	Seq   uint64 // its number, from 1: of the collectives of the Group, or of the messages between two ranks
	Err   error  // wraps one of the package's errors
}

// Error names the ranks, the operation and the reason.
func (e *Error) Error() string {
	at := ""
	if e.Op != "" {
		at = fmt.Sprintf(", %s #%d", e.Op, e.Seq)
	}
	return fmt.Sprintf("collective: group %s, rank %d%s: %v", e.Group, e.Rank, at, e.Err)
}

// Unwrap is e.Err.
func (e *Error) Unwrap() error { return e.Err }

// reason is the place in reasons of the one that err wraps; that of ErrAborted if none.
func reason(err error) int {
	aborted := 0
	for i, r := range reasons {
		if errors.Is(err, r) {
			return i
		}
		if r == ErrAborted {
			aborted = i
		}
	}
	return aborted
}

package collective

import "sync/atomic"

// sleeper is somebody who waits for rings to change. It sets its word, looks once more, and sleeps; whoever changed a
// ring wakes it if the word is set.
type sleeper struct {
	asleep *atomic.Uint32
	wake   func() // never blocks
}

// rouse tells the sleeper that a ring changed.
func (s *sleeper) rouse() {
	if s.asleep.Load() != 0 && s.asleep.Swap(0) != 0 {
		s.wake()
	}
}

// link joins this rank to another one.
type link struct {
	in, out ring
	asleep  *atomic.Uint32 // this rank's engine's word
	other   sleeper        // who is at the other end of the rings

	// gone is set when nothing more will come: the other rank closed the Group.
	gone atomic.Bool

	sent, received  uint64 // messages (Send, Recv) started
	inBusy, outBusy bool   // of a pass over a batch: an earlier operation still uses the ring
}

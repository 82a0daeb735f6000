package collective

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestBellAfterAFrame wakes a peer long after it was sent something that had a time limit.
func TestBellAfterAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		kinds := make(chan frameKind, 2)
		go func() {
			defer close(kinds)
			for range 2 {
				kind, _, err := readFrame(b)
				if err != nil {
					return
				}
				kinds <- kind
			}
		}()
		p := &peer{control: a}
		if err := p.send(frame(frameAsk, make([]byte, 8))); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * controlLimit)
		p.ring()
		a.Close()
		if first, second := <-kinds, <-kinds; first != frameAsk || second != frameBell {
			t.Errorf("frames of kinds %d and %d came", first, second)
		}
		b.Close()
	})
}

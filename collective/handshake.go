package collective

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// protocol is the version of the frames and of the memory layout of segments. Ranks of one run have the same.
const protocol = 1

const nonceBytes = 16

// hello is what each side of a connection says first. Both are proved with the key, so they cannot be changed,
// replayed (nonces) or sent back (roles).
type hello struct {
	Protocol    int
	Generation  uint64
	Incarnation string
	Group       string // which of the Groups of the run
	From, To    int    // ranks of the whole run
	Stream      int    // 0: control; 1 …: data
	Nonce       []byte
	Layout      string // sizes that both must agree on
	Facts       map[string]string
	Host        string // equal: the ranks can share memory
	Unix        string // where the listener listens for ranks of its host
}

// refusal is what a rank says to one that it does not let in.
func refusal(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

func proof(key []byte, role string, dialer, listener []byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, part := range [][]byte{[]byte(role), dialer, listener} {
		fmt.Fprintf(m, "%d:", len(part))
		m.Write(part)
	}
	return m.Sum(nil)
}

// encode draws the nonce and makes the frame's payload.
func (h hello) encode() []byte {
	h.Protocol, h.Nonce = protocol, make([]byte, nonceBytes)
	rand.Read(h.Nonce)
	b, _ := json.Marshal(h)
	return b
}

func parseHello(b []byte) (hello, error) {
	var h hello
	if err := json.Unmarshal(b, &h); err != nil {
		return hello{}, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if len(h.Nonce) != nonceBytes || h.From < 0 || h.To < 0 || h.Stream < 0 {
		return hello{}, fmt.Errorf("%w: a hello from rank %d to rank %d with a nonce of %d bytes",
			ErrFrame, h.From, h.To, len(h.Nonce))
	}
	return h, nil
}

// matches says why the other side's hello is not the one that belongs to ours, before anything is proved.
func (h hello) matches(other hello) error {
	switch {
	case other.Protocol != protocol:
		return refusal("protocol %d, this rank has %d: all ranks must run the same build", other.Protocol, protocol)
	case other.Generation != h.Generation:
		return refusal("generation %d, this rank is of generation %d", other.Generation, h.Generation)
	case other.Incarnation != h.Incarnation:
		return refusal("incarnation %s, this rank is of %s", other.Incarnation, h.Incarnation)
	case other.To != h.From || other.From != h.To || other.Group != h.Group || other.Stream != h.Stream:
		return refusal("rank %d calls rank %d for stream %d of %s; this is rank %d for rank %d, stream %d of %s",
			other.From, other.To, other.Stream, other.Group, h.From, h.To, h.Stream, h.Group)
	}
	return nil
}

// agrees compares what two ranks of a run may have different by mistake, after the proof.
func (h hello) agrees(other hello) error {
	if h.Layout != other.Layout {
		return refusal("rank %d has %s, rank %d has %s: use the same settings on all ranks",
			h.From, h.Layout, other.From, other.Layout)
	}
	names := slices.Sorted(maps.Keys(h.Facts))
	for name := range other.Facts {
		if _, known := h.Facts[name]; !known {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if mine, theirs := h.Facts[name], other.Facts[name]; mine != theirs {
			return refusal("the %s of rank %d is %q, that of rank %d is %q: all ranks must have the same",
				name, h.From, mine, other.From, theirs)
		}
	}
	return nil
}

// expectFrame reads a frame of the kind, or the reason of a refusal.
func expectFrame(r io.Reader, want frameKind) ([]byte, error) {
	k, b, err := readFrame(r)
	switch {
	case err != nil:
		return nil, err
	case k == frameRefused:
		return nil, &toldError{ErrRefused, fmt.Sprintf("refused by the other rank: %s", b)}
	case k != want:
		return nil, fmt.Errorf("%w: kind %d, want %d", ErrFrame, k, want)
	}
	return b, nil
}

// dialHandshake is the dialer's side. mine says who it is and whom it calls.
func dialHandshake(c io.ReadWriter, key []byte, mine hello) (hello, error) {
	first := mine.encode()
	if _, err := c.Write(frame(frameHello, first)); err != nil {
		return hello{}, err
	}
	second, err := expectFrame(c, frameHello)
	if err != nil {
		return hello{}, err
	}
	other, err := parseHello(second)
	if err != nil {
		return hello{}, err
	}
	if err := mine.matches(other); err != nil {
		return hello{}, err
	}
	p, err := expectFrame(c, frameProof)
	if err != nil {
		return hello{}, err
	}
	if !hmac.Equal(p, proof(key, "listener", first, second)) {
		return hello{}, refusal("rank %d does not hold the key of generation %d", mine.To, mine.Generation)
	}
	if _, err := c.Write(frame(frameProof, proof(key, "dialer", first, second))); err != nil {
		return hello{}, err
	}
	if _, err := expectFrame(c, frameWelcome); err != nil {
		return hello{}, err
	}
	return other, mine.agrees(other)
}

// errUnproved marks a handshake that failed before the other side proved that it holds the key.
var errUnproved = errors.New("unproved")

// listenHandshake is the listener's side. mine says who it is; group, peer and stream are the dialer's choice. It
// returns the dialer's hello also with an error, if there was one; an error that wraps errUnproved says nothing about
// that rank.
func listenHandshake(c io.ReadWriter, key []byte, mine hello) (hello, error) {
	first, err := expectFrame(c, frameHello)
	if err != nil {
		return hello{}, fmt.Errorf("%w: %w", errUnproved, err)
	}
	other, err := parseHello(first)
	if err != nil {
		return hello{}, fmt.Errorf("%w: %w", errUnproved, err)
	}
	mine.To, mine.Group, mine.Stream = other.From, other.Group, other.Stream
	if err := mine.matches(other); err != nil {
		return other, fmt.Errorf("%w: %w", errUnproved, refuse(c, err))
	}
	second := mine.encode()
	p := proof(key, "listener", first, second)
	if _, err := c.Write(append(frame(frameHello, second), frame(frameProof, p)...)); err != nil {
		return other, fmt.Errorf("%w: %w", errUnproved, err)
	}
	if p, err = expectFrame(c, frameProof); err != nil {
		return other, fmt.Errorf("%w: %w", errUnproved, err)
	}
	if !hmac.Equal(p, proof(key, "dialer", first, second)) {
		err := refusal("rank %d does not hold the key of generation %d", other.From, mine.Generation)
		return other, fmt.Errorf("%w: %w", errUnproved, refuse(c, err))
	}
	if err := mine.agrees(other); err != nil {
		return other, refuse(c, err)
	}
	_, err = c.Write(frame(frameWelcome, nil))
	return other, err
}

// refuse tells the other side why, and returns err.
func refuse(c io.Writer, err error) error {
	text := err.Error()
	_, _ = c.Write(frame(frameRefused, []byte(text[:min(len(text), frameLimits[frameRefused])])))
	return err
}

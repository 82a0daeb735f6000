package collective

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Auth is what the ranks of one generation of a run know and nobody else.
type Auth struct {
	Generation  uint64 // ranks of another one are refused
	Incarnation string // of the run: a start of it
	Key         []byte // KeyBytes random bytes
}

// KeyBytes is the length of a key.
const KeyBytes = 32

// Ticket is what a rank must know to Join.
type Ticket struct {
	Auth
	Rank int
	// Addrs are where the ranks listen, by rank: host:port, or unix:@name for ranks of one host.
	Addrs []string
}

// HostTickets draws a key and addresses for n ranks on this host, in processes that the caller starts. Each process
// gets its own ticket over an inherited pipe (Write, ReadTicket), never in its arguments or environment.
func HostTickets(n int, generation uint64) ([]Ticket, error) {
	if n < 1 {
		return nil, fmt.Errorf("collective: tickets for %d ranks, want 1 or more", n)
	}
	auth := Auth{Generation: generation, Incarnation: rand.Text(), Key: make([]byte, KeyBytes)}
	rand.Read(auth.Key)
	addrs := make([]string, n)
	for r := range addrs {
		addrs[r] = fmt.Sprintf("%s@herd-%s-%d", unixScheme, rand.Text(), r)
	}
	tickets := make([]Ticket, n)
	for r := range tickets {
		tickets[r] = Ticket{Auth: auth, Rank: r, Addrs: addrs}
	}
	return tickets, nil
}

// maxTicket bounds a ticket in bytes: room for the addresses of some ten thousand ranks.
const maxTicket = 1 << 20

// Write hands the ticket down a pipe, which the caller then closes.
func (t Ticket) Write(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(t); err != nil {
		return fmt.Errorf("collective: write the ticket of rank %d: %w", t.Rank, err)
	}
	return nil
}

// ReadTicket reads what Write wrote.
func ReadTicket(r io.Reader) (Ticket, error) {
	var t Ticket
	b, err := io.ReadAll(io.LimitReader(r, maxTicket+1))
	if err == nil && len(b) > maxTicket {
		err = fmt.Errorf("more than %d bytes", maxTicket)
	}
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err == nil {
		err = t.check()
	}
	if err != nil {
		return Ticket{}, fmt.Errorf("collective: read a ticket: %w", err)
	}
	return t, nil
}

func (t Ticket) check() error {
	if t.Rank < 0 || t.Rank >= len(t.Addrs) {
		return fmt.Errorf("rank %d among %d addresses", t.Rank, len(t.Addrs))
	}
	if len(t.Key) != KeyBytes {
		return fmt.Errorf("a key of %d bytes, want %d", len(t.Key), KeyBytes)
	}
	if t.Incarnation == "" {
		return errors.New("no incarnation")
	}
	return nil
}

package collective

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

var testKey = bytes.Repeat([]byte{7}, KeyBytes)

// shake runs both sides over a pipe.
func shake(t *testing.T, dialKey, listenKey []byte, dialer, listener hello) (dialed, listened error) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := listenHandshake(b, listenKey, listener)
		b.Close()
		done <- err
	}()
	_, dialed = dialHandshake(a, dialKey, dialer)
	a.Close()
	return dialed, <-done
}

func TestHandshake(t *testing.T) {
	dialer := hello{Generation: 4, Incarnation: "i", Group: "world", From: 1, Stream: 2, Layout: "l",
		Facts: map[string]string{"job": "d1", "build": "b"}}
	listener := hello{Generation: 4, Incarnation: "i", From: 0, Layout: "l", Facts: dialer.Facts}
	if dialed, listened := shake(t, testKey, testKey, dialer, listener); dialed != nil || listened != nil {
		t.Fatalf("two ranks of one run: %v, %v", dialed, listened)
	}
	for name, c := range map[string]struct {
		change  func(h *hello) // of the listener
		key     []byte
		want    string
		unknown bool // the listener must not believe who calls
	}{
		"generation":  {func(h *hello) { h.Generation = 5 }, testKey, "this rank is of generation 5", true},
		"incarnation": {func(h *hello) { h.Incarnation = "j" }, testKey, "incarnation i, this rank is of j", true},
		"rank":        {func(h *hello) { h.From = 3 }, testKey, "rank 1 calls rank 0", true},
		"key":         {func(*hello) {}, bytes.Repeat([]byte{8}, KeyBytes), "does not hold the key", true},
		"job": {func(h *hello) { h.Facts = map[string]string{"job": "d2", "build": "b"} }, testKey,
			`the job of rank 0 is "d2", that of rank 1 is "d1"`, false},
		"less": {func(h *hello) { h.Facts = map[string]string{"job": "d1"} }, testKey, `the build of rank 0 is "", that of rank 1 is "b"`, false},
		"more": {func(h *hello) { h.Facts = map[string]string{"job": "d1", "build": "b", "x": "y"} }, testKey,
			`the x of rank 0 is "y", that of rank 1 is ""`, false},
		"layout": {func(h *hello) { h.Layout = "m" }, testKey, "use the same settings", false},
	} {
		other := listener
		c.change(&other)
		dialed, listened := shake(t, testKey, c.key, dialer, other)
		if !errors.Is(dialed, ErrRefused) || !strings.Contains(dialed.Error(), c.want) {
			t.Errorf("%s: the dialer got %v, want %q", name, dialed, c.want)
		}
		if listened == nil || errors.Is(listened, errUnproved) != c.unknown {
			t.Errorf("%s: the listener got %v", name, listened)
		}
		if !c.unknown && !strings.Contains(listened.Error(), c.want) {
			t.Errorf("%s: the listener got %v, want %q", name, listened, c.want)
		}
	}
}

// TestReflection sends a dialer's own words back to it.
func TestReflection(t *testing.T) {
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		_, first, err := readFrame(b)
		if err != nil {
			return
		}
		swapped := bytes.Replace(first, []byte(`"From":1,"To":0`), []byte(`"From":0,"To":1`), 1)
		_, _ = b.Write(frame(frameHello, swapped))
		_, _ = b.Write(frame(frameProof, proof(bytes.Repeat([]byte{0}, KeyBytes), "listener", first, swapped)))
	}()
	_, err := dialHandshake(a, testKey, hello{Generation: 4, Group: "g", From: 1, To: 0})
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "rank 0 does not hold the key") {
		t.Errorf("an impostor was met with %v", err)
	}
	a.Close()
	<-done
}

// FuzzFrames reads frames, and what is in them, from any bytes: no panic, and no more memory than a frame may have.
func FuzzFrames(f *testing.F) {
	h := hello{Generation: 4, Group: "world", From: 1, To: 0}
	f.Add(frame(frameHello, h.encode()))
	f.Add(append(frame(frameRefused, []byte("no")), bell...))
	f.Add((&Error{Peer: 1, Op: "barrier", Seq: 2, Err: ErrGone}).frame())
	f.Add(binary.LittleEndian.AppendUint32([]byte{byte(frameAnswer)}, 1<<31))
	r := NewRecorder(1)
	if b, err := r.report(); err == nil {
		f.Add(frame(frameAnswer, append(make([]byte, 8), b...)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		for {
			kind, b, err := readFrame(in)
			if err != nil {
				break
			}
			if len(b) > frameLimits[kind] {
				t.Fatalf("%d bytes of kind %d", len(b), kind)
			}
			switch kind {
			case frameHello:
				if h, err := parseHello(b); err == nil {
					_, _ = h.matches(h), h.agrees(h)
				}
			case frameAbort:
				if e, err := parseAbort(b, 3); err == nil && (e.Peer >= 3 || e.Error() == "") {
					t.Fatalf("%#v", e)
				}
			case frameAnswer:
				if rep, err := parseReport(b[min(8, len(b)):]); err == nil {
					_ = rep.judge(0, Record{Seq: 1, Peer: -1})
				}
			}
		}
		_, _ = listenHandshake(readWriter{bytes.NewReader(data), io.Discard}, testKey, hello{})
		_, _ = dialHandshake(readWriter{bytes.NewReader(data), io.Discard}, testKey, hello{})
	})
}

type readWriter struct {
	io.Reader
	io.Writer
}

func TestTickets(t *testing.T) {
	tickets, err := HostTickets(3, 9)
	if err != nil {
		t.Fatal(err)
	}
	var pipe bytes.Buffer
	if err := tickets[2].Write(&pipe); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTicket(&pipe)
	if err != nil || got.Rank != 2 || got.Generation != 9 || len(got.Addrs) != 3 ||
		!bytes.Equal(got.Key, tickets[0].Key) {
		t.Errorf("read %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{", "{}", `{"Rank":1,"Addrs":["a"]}`, strings.Repeat(" ", maxTicket+1)} {
		if _, err := ReadTicket(strings.NewReader(bad)); err == nil {
			t.Errorf("%.20q was read", bad)
		}
	}
	if _, err := HostTickets(0, 1); err == nil {
		t.Error("tickets for nobody")
	}
}

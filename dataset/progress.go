package dataset

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Progress shows how far a long operation is: on a terminal one line that is redrawn, otherwise a line from time to
// time. Methods may be called from several goroutines; those of a nil Progress do nothing.
type Progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool
	drawn bool // a live line is on the screen

	phase                    string
	total                    int64 // bytes expected, 0 if unknown
	documents, bytes, tokens int64
	started, shown           time.Time
}

const (
	liveEvery  = 200 * time.Millisecond
	plainEvery = 10 * time.Second
)

// NewProgress writes to w, which is a terminal if live is set.
func NewProgress(w io.Writer, live bool) *Progress { return &Progress{w: w, live: live} }

// Start begins a phase of which total bytes of work are known, 0 if unknown.
func (p *Progress) Start(phase string, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.phase, p.total, p.started, p.shown = phase, total, now, now
	p.documents, p.bytes, p.tokens = 0, 0, 0
}

// Add counts work done.
func (p *Progress) Add(documents, bytes, tokens int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.documents += documents
	p.bytes += bytes
	p.tokens += tokens
	every := plainEvery
	if p.live {
		every = liveEvery
	}
	if now := time.Now(); now.Sub(p.shown) >= every {
		p.shown = now
		p.draw(p.line(now, true), !p.live)
	}
}

// Finish ends the phase with a line that stays.
func (p *Progress) Finish() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw(p.line(time.Now(), false), true)
}

// Note writes a line that stays.
func (p *Progress) Note(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw(fmt.Sprintf(format, args...), true)
}

// Clear takes a live line off the screen, so that an error message starts on an empty line.
func (p *Progress) Clear() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func (p *Progress) draw(line string, stays bool) {
	start, end := "", ""
	if p.live {
		start = "\r\x1b[K"
	}
	if stays {
		end = "\n"
	}
	fmt.Fprint(p.w, start, line, end)
	p.drawn = p.live && !stays
}

// line is, for example, "tokenize: 12.3 of 16.0 MB, 41.0 MB/s, 1234 documents, 4.1 M tokens, 0:03 left".
func (p *Progress) line(now time.Time, running bool) string {
	s := fmt.Sprintf("%s: %.1f", p.phase, float64(p.bytes)/1e6)
	if running && p.total > 0 {
		s += fmt.Sprintf(" of %.1f", float64(p.total)/1e6)
	}
	s += " MB"
	elapsed := now.Sub(p.started).Seconds()
	if elapsed > 0 {
		s += fmt.Sprintf(", %.1f MB/s", float64(p.bytes)/1e6/elapsed)
	}
	if p.documents > 0 {
		s += fmt.Sprintf(", %d documents", p.documents)
	}
	if p.tokens > 0 {
		s += fmt.Sprintf(", %.2f M tokens", float64(p.tokens)/1e6)
	}
	switch {
	case !running:
		s += fmt.Sprintf(", took %.1f s", elapsed)
	case p.total > p.bytes && p.bytes > 0:
		left := int(elapsed * float64(p.total-p.bytes) / float64(p.bytes))
		s += fmt.Sprintf(", %d:%02d left", left/60, left%60)
	}
	return s
}

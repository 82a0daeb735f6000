package run

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
)

// maxLine is how much of a line without an end is kept, in bytes.
const maxLine = 64 << 10

// console is where the processes of a run write. The log of the leader, which is what is written to the console itself,
// comes out as it is; lines of others (prefixed) come above its progress line, if it keeps one.
type console struct {
	out, err io.Writer
	terminal bool

	mu  sync.Mutex
	bar []byte // what the log ends in that is no whole line
}

// Write adds to the log.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		c.bar = c.bar[:0]
		c.bar = append(c.bar, b[i+1:]...)
	} else {
		c.bar = append(c.bar, b...)
	}
	return c.out.Write(b)
}

// Close does nothing: the log may go on.
func (c *console) Close() error { return nil }

// line writes a line of a rank.
func (c *console) line(rank int, text []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	bar := c.terminal && len(c.bar) > 0
	if bar {
		_, _ = io.WriteString(c.out, "\r\x1b[2K") // the log's own Write reports failures
	}
	_, err := fmt.Fprintf(c.err, "[%d] %s\n", rank, text)
	if bar {
		_, _ = c.out.Write(c.bar)
	}
	return err
}

// prefixed is where a rank writes lines that get its number before them. One goroutine uses it.
type prefixed struct {
	c    *console
	rank int
	rest []byte // of a line whose end has not come
	last string // the line that tells most about an end
}

func (c *console) prefixed(rank int) *prefixed { return &prefixed{c: c, rank: rank} }

func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		i := bytes.IndexByte(p.rest, '\n')
		if i < 0 && len(p.rest) < maxLine {
			return len(b), nil
		}
		if i < 0 {
			i = len(p.rest)
		}
		if err := p.line(p.rest[:i]); err != nil {
			return 0, err
		}
		p.rest = p.rest[:copy(p.rest, p.rest[min(i+1, len(p.rest)):])]
	}
}

// Close writes what came last without an end.
func (p *prefixed) Close() error {
	if len(p.rest) == 0 {
		return nil
	}
	return p.line(p.rest)
}

func (p *prefixed) line(text []byte) error {
	crashed := func(s string) bool { return strings.HasPrefix(s, "panic: ") || strings.HasPrefix(s, "fatal error: ") }
	if s := strings.TrimSpace(string(text)); s != "" && !crashed(p.last) {
		p.last = s
	}
	return p.c.line(p.rank, text)
}

// lastWords is what the rank said before it died, in parentheses: of a crash its first line.
func (p *prefixed) lastWords() string {
	if p.last == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", p.last)
}

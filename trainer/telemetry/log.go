package telemetry

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// logWriter writes log lines and, on a terminal, keeps a progress line below them.
type logWriter struct {
	out   io.Writer
	width int    // of the terminal; 0: not a terminal
	bar   string // the progress line that stands below the log, "" for none
	err   error  // the first failure of out; nothing is written after it
}

// eraseLine is the ANSI sequence that goes to the line's start and clears it.
const eraseLine = "\r\x1b[2K"

func newLogWriter(o Options) *logWriter {
	w := &logWriter{out: o.Out}
	if o.Terminal {
		w.width = o.Width
		if w.width <= 0 {
			w.width = 80
		}
	}
	return w
}

// line writes one log line above the progress line. A text of several lines stays so.
func (w *logWriter) line(s string) { w.write(strings.TrimRight(s, "\n")+"\n", w.bar) }

// step writes the step's line and redraws the progress line.
func (w *logWriter) step(m *measurement) {
	bar := ""
	if w.width > 0 {
		bar = m.bar(w.width)
	}
	w.write(m.line()+"\n", bar)
}

func (w *logWriter) eraseBar() { w.write("", "") }

// write is one Write of s in place of the progress line, followed by the new one.
func (w *logWriter) write(s, bar string) {
	if w.bar != "" {
		s = eraseLine + s
	}
	w.bar = bar
	if w.out == nil || w.err != nil || s+bar == "" {
		return
	}
	if _, err := io.WriteString(w.out, s+bar); err != nil {
		w.err = fmt.Errorf("the log: %w", err)
	}
}

// line is the step on one line. Its keys, their order and their units are documented in docs/telemetry.md.
func (m *measurement) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "step %d/%d loss %.4f (%s) grad %.3g (%s) lr %.2e",
		m.Step.Step, m.Steps, m.Loss, score(m.lossZ), m.GradNorm, score(m.gradNormZ), m.LR)
	fmt.Fprintf(&b, " tok/s %s mfu %s/%s (full/causal) data %s ckpt %s mem %s eta %s",
		grouped(m.tokensPerSecond), percent(m.mfuFull), percent(m.mfuCausal),
		percent(m.dataWait), percent(m.checkpoint), size(m.Memory), m.remaining())
	if !m.Applied {
		b.WriteString(" skipped")
	}
	return b.String()
}

// bar is the progress line, at most width−1 columns: a full line would make the terminal wrap.
func (m *measurement) bar(width int) string {
	text := fmt.Sprintf(" %3.0f%% %d/%d loss %.4f %s tok/s eta %s", 100*ratio(float64(m.Step.Step), float64(m.Steps)),
		m.Step.Step, m.Steps, m.Loss, grouped(m.tokensPerSecond), m.remaining())
	cells := min(40, width-1-utf8.RuneCountInString(text))
	if cells < 8 {
		return text[:max(0, min(len(text), width-1))]
	}
	done := int(min(int64(cells), m.Step.Step*int64(cells)/max(1, m.Steps)))
	return strings.Repeat("█", done) + strings.Repeat("░", cells-done) + text
}

func (m *measurement) remaining() string { return m.eta.Round(time.Second).String() }

// validation is the loss over the validation set after a step.
type validation struct {
	time     time.Time
	step     int64
	loss     float64
	duration time.Duration
}

func (v *validation) String() string {
	return fmt.Sprintf("validation step %d loss %.4f perplexity %.4g time %s",
		v.step, v.loss, math.Exp(v.loss), v.duration.Round(time.Millisecond))
}

func score(z float64) string {
	if math.IsNaN(z) || math.IsInf(z, 0) {
		return "-"
	}
	return fmt.Sprintf("%+.2fz", z)
}

func percent(x float64) string {
	if math.IsNaN(x) {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*x)
}

// grouped is x without decimals, its digits in groups of three: 18,430.
func grouped(x float64) string {
	if math.IsNaN(x) {
		return "-"
	}
	s := strconv.FormatFloat(x, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func size(n int64) string {
	switch {
	case n <= 0:
		return "-"
	case n < 1<<30:
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return fmt.Sprintf("%.1fGiB", float64(n)/(1<<30))
}

package draw

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/herdtrain/herd/trainer/parallel"
)

// Paint colours the text of work in a timeline; it must not change what is seen of its width.
type Paint func(kind parallel.ActionKind, text string) string

// Text writes l's mesh and t, the timeline of its schedule. Lines of the timeline are cut to width characters and
// continued below. paint may be nil.
func Text(w io.Writer, l parallel.Layout, t parallel.Timeline, width int, paint Paint) error {
	if paint == nil {
		paint = func(_ parallel.ActionKind, text string) string { return text }
	}
	var b strings.Builder
	meshText(&b, l)
	b.WriteString("\n")
	timelineText(&b, l, t, width, paint)
	var trimmed strings.Builder
	for line := range strings.Lines(b.String()) {
		trimmed.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	_, err := io.WriteString(w, trimmed.String())
	return err
}

// meshText is a table of ranks: data and pipeline down, context and tensor across.
func meshText(b *strings.Builder, l parallel.Layout) {
	m := l.Mesh
	var shows [parallel.Axes][]int
	for a := range shows {
		shows[a] = shown(m[a], most[a])
	}
	cell := max(len("tp 00"), len(fmt.Sprint(m.World()-1))) + 1
	layers := len("layers")
	for s := range m[parallel.PP] {
		layers = max(layers, utf8.RuneCountInString(stageLayers(l.Pipeline, s)))
	}
	left := len("data  stage  ") + layers

	fmt.Fprintf(b, "%s\n\n%*s", meshTitle(l), left, "")
	block := max(cell*len(shows[parallel.TP]), len("context 00"))
	for _, c := range shows[parallel.CP] {
		if c == gap {
			b.WriteString("  …")
		} else {
			fmt.Fprintf(b, "  %-*s", block, fmt.Sprint("context ", c))
		}
	}
	fmt.Fprintf(b, "\ndata  stage  %-*s", layers, "layers")
	// row writes one cell for each shown place across.
	row := func(text func(c, t int) string) {
		for _, c := range shows[parallel.CP] {
			if c == gap {
				b.WriteString("  …")
				continue
			}
			var cells strings.Builder
			for _, t := range shows[parallel.TP] {
				s := "…"
				if t != gap {
					s = text(c, t)
				}
				fmt.Fprintf(&cells, "%*s", cell, s)
			}
			fmt.Fprintf(b, "  %-*s", block, cells.String())
		}
		b.WriteString("\n")
	}
	row(func(_, t int) string { return fmt.Sprint("tp ", t) })
	for _, d := range shows[parallel.DP] {
		if d == gap {
			b.WriteString("   …\n")
			continue
		}
		for _, s := range shows[parallel.PP] {
			if s == gap {
				fmt.Fprintf(b, "%4d      …\n", d)
				continue
			}
			fmt.Fprintf(b, "%4d  %5d  %-*s", d, s, layers, stageLayers(l.Pipeline, s))
			row(func(c, t int) string {
				return fmt.Sprint(m.Rank(parallel.Coord{parallel.TP: t, parallel.CP: c, parallel.PP: s, parallel.DP: d}))
			})
		}
	}
}

const maxColumns = 2000 // of a timeline; what is shorter than a column is not seen

// timelineText has a row for each stage and a column for each unit of time, the greatest that divides all times if
// there are not too many.
func timelineText(b *strings.Builder, l parallel.Layout, t parallel.Timeline, width int, paint Paint) {
	fmt.Fprintf(b, "%s\n", timelineTitle(l, t))
	for _, m := range meanings(t) {
		fmt.Fprintf(b, "%s %s; ", paint(m.kind, letters[m.kind]), m.words)
	}
	if p := t.Pipeline; p.Virtual > 1 {
		fmt.Fprintf(b, "then the micro-batch, then the chunk of the stage, a to %s\n", chunkName(p.Virtual-1))
	} else {
		b.WriteString("then the micro-batch\n")
	}
	var unit int64
	cell := 0
	works := make([][]parallel.Span, len(t.Stages)) // not yet drawn
	for i, spans := range t.Stages {
		for _, s := range spans {
			if !s.Kind.Transfers() {
				unit = gcd(gcd(unit, s.Start), s.End)
				cell = max(cell, len(label(t.Pipeline, s.Action))+1)
				works[i] = append(works[i], s)
			}
		}
	}
	unit = max(unit, t.End/maxColumns, 1)
	columns := int(t.End / unit)
	head := fmt.Sprintf("stage %*d  ", len(fmt.Sprint(t.Pipeline.Stages-1)), 0)
	block := max(1, (width-len(head))/cell)
	const tick = 5 // columns
	for lo := 0; lo < columns; lo += block {
		hi := min(lo+block, columns)
		fmt.Fprintf(b, "\n%-*s", len(head), "time")
		for c := (lo + tick - 1) / tick * tick; c < hi; c += tick {
			if c < lo+tick {
				fmt.Fprintf(b, "%*s", (c-lo)*cell, "")
			}
			fmt.Fprintf(b, "%-*d", tick*cell, int64(c)*unit)
		}
		b.WriteString("\n")
		for s := range works {
			fmt.Fprintf(b, "stage %*d  ", len(head)-len("stage   "), s)
			c := lo // the next column to write
			for len(works[s]) > 0 {
				work := works[s][0]
				start, end := int(work.Start/unit), int(work.End/unit)
				if start >= hi {
					break
				}
				if from, to := max(start, lo), min(end, hi); from < to {
					b.WriteString(idle(from-c, cell))
					text, fill := label(t.Pipeline, work.Action), "-"
					if start < lo {
						text = "" // it began in the block above
					}
					if end == start+1 {
						fill = " "
					}
					text += strings.Repeat(fill, (to-from)*cell-1-len(text))
					b.WriteString(paint(work.Kind, text) + " ")
					c = to
				}
				if end > hi {
					break
				}
				works[s] = works[s][1:]
			}
			b.WriteString(idle(hi-c, cell))
			b.WriteString("\n")
		}
	}
}

// idle is that many empty columns.
func idle(columns, cell int) string {
	return strings.Repeat("."+strings.Repeat(" ", cell-1), columns)
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

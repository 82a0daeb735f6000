package draw

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/herdtrain/herd/trainer/parallel"
)

// Pixels between the ranks of two context places, and for those that are not shown.
const (
	contextGap = 14
	gapWidth   = 26
)

// meshSVG draws a block of ranks for each replica: stages down, context and tensor across.
func meshSVG(f *figure, l parallel.Layout) {
	f.heading(meshTitle(l))
	m := l.Mesh
	cell := float64(max(letter*len(strconv.Itoa(m.World()-1))+12, letter*len("tp 00")))
	stages := 0
	for s := range m[parallel.PP] {
		stages = max(stages, utf8.RuneCountInString(stageName(l.Pipeline, s)))
	}
	left := float64(margin + letter*stages + 10)

	x := left // the head: context over tensor
	for _, c := range shown(m[parallel.CP], most[parallel.CP]) {
		if c == gap {
			x += gapWidth
			continue
		}
		f.text("quiet", x, float64(f.y+line), fmt.Sprint("context ", c))
		for _, t := range shown(m[parallel.TP], most[parallel.TP]) {
			name := "…"
			if t != gap {
				name = fmt.Sprint("tp ", t)
			}
			f.text("quiet middle", x+cell/2, float64(f.y+2*line), name)
			x += cell
		}
		x += contextGap
	}
	f.y += 2*line + 4
	for _, d := range shown(m[parallel.DP], most[parallel.DP]) {
		if d == gap {
			f.text("quiet", margin, float64(f.y+line), "…")
			f.y += 2 * line
			continue
		}
		f.text("name", margin, float64(f.y+line-4), fmt.Sprint("data ", d))
		f.y += line
		for _, s := range shown(m[parallel.PP], most[parallel.PP]) {
			if s == gap {
				f.text("quiet end", left-10, float64(f.y+line), "…")
				f.y += row
				continue
			}
			f.text("quiet end", left-10, float64(f.y+17), stageName(l.Pipeline, s))
			rankRow(f, m, left, cell, parallel.Coord{parallel.PP: s, parallel.DP: d})
			f.y += row
		}
		f.y += 8
	}
}

func stageName(p parallel.Pipeline, stage int) string {
	return fmt.Sprintf("stage %d, layers %s", stage, stageLayers(p, stage))
}

// rankRow draws the ranks of a stage of a replica.
func rankRow(f *figure, m parallel.Mesh, x, cell float64, at parallel.Coord) {
	for _, c := range shown(m[parallel.CP], most[parallel.CP]) {
		if c == gap {
			f.text("quiet", x, float64(f.y+17), "…")
			x += gapWidth
			continue
		}
		for _, t := range shown(m[parallel.TP], most[parallel.TP]) {
			if t == gap {
				f.text("quiet middle", x+cell/2, float64(f.y+17), "…")
			} else {
				at[parallel.CP], at[parallel.TP] = c, t
				rank := m.Rank(at)
				f.rect("rank", x+1, float64(f.y+1), cell-2, row-4, fmt.Sprintf(
					"rank %d: data %d, pipeline %d, context %d, tensor %d", rank, at[parallel.DP], at[parallel.PP], c, t))
				f.text("middle", x+cell/2, float64(f.y+17), strconv.Itoa(rank))
			}
			x += cell
		}
		x += contextGap
	}
}

package draw

import (
	"fmt"
	"math"
	"strconv"

	"github.com/herdtrain/herd/trainer/parallel"
)

// timelineSVG draws a row for each stage, time to the right; what is empty is the bubble.
func timelineSVG(f *figure, l parallel.Layout, t parallel.Timeline) {
	f.heading(timelineTitle(l, t))
	shortest, longest := max(t.End, 1), 0 // work, and its label
	for _, spans := range t.Stages {
		for _, s := range spans {
			if d := s.End - s.Start; !s.Kind.Transfers() && d > 0 {
				shortest = min(shortest, d)
				longest = max(longest, len(label(t.Pipeline, s.Action)))
			}
		}
	}
	// Pixels for a unit of time: room for every label if the step then fits into 2000, or else 4 for the shortest work if
	// it fits into 20000.
	end := float64(max(t.End, 1))
	scale := max(min(float64(letter*longest+12)/float64(shortest), 2000/end), min(4/float64(shortest), 20000/end))
	left := float64(margin + letter*len("stage 000"))
	for s := range t.Stages {
		y := float64(f.y + s*row)
		f.text("quiet", margin, y+17, fmt.Sprint("stage ", s))
		f.rect("track", left, y, scale*end, row-4, "")
	}
	timeAxis(f, t.End, left, scale, f.y+row*len(t.Stages))
	for _, spans := range t.Stages {
		for _, span := range spans {
			if !span.Kind.Transfers() {
				workSVG(f, t.Pipeline, span, left, scale)
			}
		}
		f.y += row
	}
	f.y += 2 * line
	legend(f, t)
}

func workSVG(f *figure, p parallel.Pipeline, span parallel.Span, left, scale float64) {
	x, w := left+scale*float64(span.Start), scale*float64(span.End-span.Start)
	tone := span.Chunk / p.Stages % 2
	name := label(p, span.Action)
	f.rect(fmt.Sprint(letters[span.Kind], tone), x+0.5, float64(f.y), max(w-1, 0.5), row-4, fmt.Sprintf(
		"%s: micro-batch %d, layers %v, %d to %d", name, span.MicroBatch, span.Layers, span.Start, span.End))
	if w >= float64(letter*len(name)) {
		f.text(fmt.Sprint("on", tone), x+w/2, float64(f.y+15), name)
	}
}

// timeAxis draws lines at every 1, 2 or 5 times a power of ten, at least 40 pixels from each other, and numbers below
// bottom.
func timeAxis(f *figure, end int64, left, scale float64, bottom int) {
	step := max(int64(math.Pow10(int(math.Ceil(math.Log10(40/scale))))), 1)
	for _, part := range []int64{5, 2} {
		if step%part == 0 && float64(step/part)*scale >= 40 {
			step /= part
			break
		}
	}
	for at := int64(0); at <= end; at += step {
		x := left + scale*float64(at)
		fmt.Fprintf(&f.body, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", x, f.y, x, bottom)
		f.text("quiet middle", x, float64(bottom+line-4), strconv.FormatInt(at, 10))
	}
	f.text("quiet middle", left+scale*float64(end)/2, float64(bottom+2*line-4), "time, in units of the simulated costs")
}

// legend says what colours and labels mean.
func legend(f *figure, t parallel.Timeline) {
	f.y += 8
	x := float64(margin)
	swatch := func(class, words string) {
		f.rect(class, x, float64(f.y), 14, 14, "")
		f.text("name", x+20, float64(f.y+12), words)
		x += 20 + letter*float64(len(words)) + 20
	}
	for _, m := range meanings(t) {
		swatch(letters[m.kind]+"0", letters[m.kind]+" "+m.words)
	}
	swatch("track", "bubble")
	f.y += 2 * line
	note := "The number is the micro-batch."
	if v := t.Pipeline.Virtual; v > 1 {
		note = fmt.Sprintf("The number is the micro-batch, the letter the chunk of the stage, a to %s; every second "+
			"chunk is light.", chunkName(v-1))
	}
	f.text("quiet", margin, float64(f.y), note)
}

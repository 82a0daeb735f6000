package draw

import (
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/herdtrain/herd/trainer/parallel"
)

// style is of the whole figure. Work keeps its colours on a dark page: ColorBrewer's, dark with white letters for the
// first chunk of a stage, light with black ones for the second, and so on in turn.
const style = `
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1f2328 }
.page { fill: #ffffff }
.title { font-size: 15px; font-weight: bold }
.quiet { fill: #59636e }
.middle { text-anchor: middle }
.end { text-anchor: end }
.rank { fill: #eaeef2; stroke: #8c959f }
.track { fill: #eaeef2 }
.grid { stroke: #8c959f; stroke-opacity: 0.4 }
.F0 { fill: #2166ac } .F1 { fill: #92c5de }
.B0 { fill: #b35806 } .B1 { fill: #fdb863 }
.W0 { fill: #1b7837 } .W1 { fill: #a6dba0 }
.on0 { fill: #ffffff; text-anchor: middle } .on1 { fill: #000000; text-anchor: middle }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.page { fill: #0d1117 }
.quiet { fill: #9198a1 }
.rank { fill: #21262d; stroke: #656c76 }
.track { fill: #21262d }
}
`

// Measures in pixels.
const (
	margin = 20
	letter = 7  // about as wide as one is
	line   = 18 // from one line of text to the next
	row    = 26 // of ranks or of a stage
)

// SVG writes l's mesh and t, the timeline of its schedule, as one self-contained figure for light and dark pages.
func SVG(w io.Writer, l parallel.Layout, t parallel.Timeline) error {
	f := &figure{y: margin}
	meshSVG(f, l)
	f.y += 2 * line
	timelineSVG(f, l, t)
	width, height := f.width+margin, f.y+margin
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" `+
		`role="img" aria-label="%[3]s">
<title>%[3]s</title>
<style>%[4]s</style>
<rect class="page" width="%[1]d" height="%[2]d"/>
%[5]s</svg>
`, width, height, html.EscapeString(meshTitle(l)+"; "+timelineTitle(l, t)), style, f.body.String())
	return err
}

// figure is an SVG that grows downwards.
type figure struct {
	body  strings.Builder
	y     int // where the next thing is drawn
	width int // of what is drawn, with the left margin
}

func (f *figure) reach(x float64) { f.width = max(f.width, int(x)+1) }

// rect draws a box, with a text that shows when the pointer is over it unless tip is "".
func (f *figure) rect(class string, x, y, w, h float64, tip string) {
	f.reach(x + w)
	end := "/>"
	if tip != "" {
		end = "><title>" + html.EscapeString(tip) + "</title></rect>"
	}
	fmt.Fprintf(&f.body, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"%s`+"\n", class, x, y, w, h, end)
}

// text writes s with its baseline at y; x is the left end, the middle or the right end, by class.
func (f *figure) text(class string, x, y float64, s string) {
	if !strings.Contains(class, "end") {
		f.reach(x + float64(letter*len([]rune(s))))
	}
	fmt.Fprintf(&f.body, `<text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, x, y, html.EscapeString(s))
}

// heading writes a panel's title.
func (f *figure) heading(s string) {
	f.y += line
	f.reach(float64(margin + 9*len(s)))
	f.text("title", margin, float64(f.y), s)
	f.y += line
}

package cpu

import "github.com/herdtrain/herd/tensor"

// A piece of work of goGemm is a tile of c of tileRows × tileCols. The sums over K go by blocks of tileDepth: a block
// is summed in registers, then added to the tile. Operands are packed for the registers, microRows × microCols at a
// time, with zeros beyond the edges, so that every element is summed in the same order whatever the sizes of c.
const (
	tileRows, tileCols, tileDepth = 64, 64, 256
	microRows, microCols          = 2, 4
)

// Gemm uses the kernels of the Device, for F64 plain Go.
func (d *Device) Gemm(q tensor.Queue, form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	rows, cols, fits := a.Rows, b.Cols, a.Cols == b.Rows
	switch form {
	case tensor.NT:
		cols, fits = b.Rows, a.Cols == b.Cols
	case tensor.TN:
		rows, fits = a.Cols, a.Rows == b.Rows
	}
	dt := c.DType().Accum()
	fits = fits && c.Rows == rows && c.Cols == cols && c.DType() != tensor.I32 &&
		a.DType().Accum() == dt && b.DType().Accum() == dt && a.DType() != tensor.I32 && b.DType() != tensor.I32
	if !fits { // the name is put together only now: products are frequent
		check("Gemm "+formNames[form]+"(c, a, b)", false, c, a, b)
	}
	split(q, 1, 1, func(_, _ int) { d.product(form, c, a, b, accumulate) })
}

var formNames = [...]string{tensor.NT: "NT", tensor.NN: "NN", tensor.TN: "TN"}

// product is Gemm on the calling goroutine, with the pool's help.
func (d *Device) product(form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	if c.DType() == tensor.F64 {
		goGemm[float64](d, form, c, a, b, accumulate)
	} else {
		d.gemm(form, c, a, b, accumulate)
	}
}

func goGemm[A float](d *Device, form tensor.GemmForm, c, a, b tensor.Mat, accumulate bool) {
	rowTiles, colTiles := (c.Rows+tileRows-1)/tileRows, (c.Cols+tileCols-1)/tileCols
	d.pool.run(rowTiles*colTiles, 1, func(t0, t1 int) {
		s := d.scratches.take()
		defer d.scratches.give(s)
		w := gemmTile[A]{form: form, a: a, b: b, accumulate: accumulate,
			packedA: floats[A](s, tileRows*tileDepth), packedB: floats[A](s, tileCols*tileDepth),
			sums: floats[A](s, tileRows*tileCols), buf: floats[A](s, max(tileDepth, tileRows, tileCols))}
		for t := t0; t < t1; t++ {
			i0, j0 := t/colTiles*tileRows, t%colTiles*tileCols
			w.compute(c, i0, min(i0+tileRows, c.Rows), j0, min(j0+tileCols, c.Cols))
		}
	})
}

// gemmTile is what one thread works with.
type gemmTile[A float] struct {
	form             tensor.GemmForm
	a, b             tensor.Mat
	accumulate       bool
	packedA, packedB []A // [tileRows/microRows][depth][microRows], [tileCols/microCols][depth][microCols]
	sums             []A // [tileRows][tileCols]
	buf              []A
}

// compute sets or adds to the elements [i0, i1) × [j0, j1) of c.
func (w *gemmTile[A]) compute(c tensor.Mat, i0, i1, j0, j1 int) {
	depth := w.a.Cols
	if w.form == tensor.TN {
		depth = w.a.Rows
	}
	clear(w.sums)
	for k0 := 0; k0 < depth; k0 += tileDepth {
		k1 := min(k0+tileDepth, depth)
		if w.form == tensor.TN {
			w.packRows(w.packedA, w.a.RowRange(k0, k1).ColRange(i0, i1), microRows)
		} else {
			w.packCols(w.packedA, w.a.RowRange(i0, i1).ColRange(k0, k1), microRows)
		}
		if w.form == tensor.NT {
			w.packCols(w.packedB, w.b.RowRange(j0, j1).ColRange(k0, k1), microCols)
		} else {
			w.packRows(w.packedB, w.b.RowRange(k0, k1).ColRange(j0, j1), microCols)
		}
		for i := 0; i < i1-i0; i += microRows {
			for j := 0; j < j1-j0; j += microCols {
				micro(w.sums[i*tileCols+j:], w.packedA[i*(k1-k0):], w.packedB[j*(k1-k0):], k1-k0)
			}
		}
	}
	to := rowsOf[A](c.RowRange(i0, i1).ColRange(j0, j1))
	for i := range i1 - i0 {
		sums := w.sums[i*tileCols:][:j1-j0]
		if w.accumulate {
			add(sums, to.read(i, w.buf))
		}
		copy(to.dest(i, sums), sums)
		to.store(i, sums)
	}
}

// packCols packs m, whose rows are rows or columns of the product and whose columns are K, in groups of micro rows.
func (w *gemmTile[A]) packCols(dst []A, m tensor.Mat, micro int) {
	from, depth := rowsOf[A](m), m.Cols
	for i := 0; i < m.Rows; i += micro {
		group := dst[i*depth:][:micro*depth]
		for r := range micro {
			if i+r >= m.Rows {
				for k := r; k < len(group); k += micro {
					group[k] = 0
				}
				continue
			}
			for k, v := range from.read(i+r, w.buf) {
				group[k*micro+r] = v
			}
		}
	}
}

// packRows packs m, whose rows are K, in groups of micro columns.
func (w *gemmTile[A]) packRows(dst []A, m tensor.Mat, micro int) {
	from, depth := rowsOf[A](m), m.Rows
	for k := range depth {
		row := from.read(k, w.buf)
		for j := 0; j < len(row); j += micro {
			group := dst[j*depth+k*micro:][:micro]
			clear(group[copy(group, row[j:]):])
		}
	}
}

// micro adds the product of a [depth][microRows] and b [depth][microCols] to rows of sums.
func micro[A float](sums, a, b []A, depth int) {
	var c00, c01, c02, c03, c10, c11, c12, c13 A
	a, b = a[:depth*microRows], b[:depth*microCols]
	for len(a) >= microRows && len(b) >= microCols {
		a0, a1 := a[0], a[1]
		b0, b1, b2, b3 := b[0], b[1], b[2], b[3]
		c00 += a0 * b0
		c01 += a0 * b1
		c02 += a0 * b2
		c03 += a0 * b3
		c10 += a1 * b0
		c11 += a1 * b1
		c12 += a1 * b2
		c13 += a1 * b3
		a, b = a[microRows:], b[microCols:]
	}
	s0, s1 := sums[:microCols], sums[tileCols:][:microCols]
	s0[0] += c00
	s0[1] += c01
	s0[2] += c02
	s0[3] += c03
	s1[0] += c10
	s1[1] += c11
	s1[2] += c12
	s1[3] += c13
}

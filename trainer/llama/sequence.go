package llama

import "github.com/herdtrain/herd/tensor"

// With sequence parallelism (Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models) each
// tensor-parallel rank has the residual, its norms and their gradients only of some rows of tokens, which all ranks gather
// before a product, and of whose results each takes the sum of its rows.

// rowsOf is the rows of tensor rank r, of n tokens in order: equal numbers but for the last ones; in canonical numerics
// whole leaves.
func (s *Stage) rowsOf(r, n int) Items {
	ranks := s.share.Ranks
	switch {
	case !s.sequenceParallel:
		return Items{0, n}
	case s.leaves == nil:
		each := (n + ranks - 1) / ranks
		return Items{min(r*each, n), min((r+1)*each, n)}
	}
	var ends []int
	s.eachRange(func(_, _, end int) { ends = append(ends, end) })
	end := func(r int) int {
		if i := Leaf(len(ends), ranks, r).Lo; i > 0 {
			return ends[i-1]
		}
		return 0
	}
	return Items{end(r), end(r + 1)}
}

// residualRows is how much of n rows of tokens a rank may have.
func residualRows(s Size, n int) int {
	if !s.SequenceParallel || s.Leaves != nil {
		return n
	}
	return (n + s.Share.Ranks - 1) / s.Share.Ranks
}

// padded is n rows and as many as gathering them adds.
func padded(s Size, n int) int { return max(n, residualRows(s, n)*max(s.Share.Ranks, 1)) }

// here is the rows of m, of all tokens, whose residual is on this rank.
func (s *Stage) here(m tensor.Mat) tensor.Mat { return m.RowRange(s.rows.Lo, s.rows.Hi) }

// kept is the rows of a planned matrix that holds them only.
func (s *Stage) kept(m tensor.Mat) tensor.Mat { return m.RowRange(0, s.rows.len()) }

// gather gives m, at the front of a buffer, the rows of all ranks.
func (s *Stage) gather(b tensor.Buffer, m tensor.Mat) {
	switch {
	case !s.sequenceParallel:
	case s.hidden != nil:
		for r := range s.share.Ranks {
			rows := s.rowsOf(r, m.Rows)
			s.hidden.Tell(m.RowRange(rows.Lo, rows.Hi).Buffer, r)
		}
	default:
		all, own := s.equalRows(b, m)
		s.share.Exchange.Gather(s.q, all, own)
	}
}

// scatter gives this rank's rows of m, at the front of a buffer, the sum over all ranks; the others are undefined.
func (s *Stage) scatter(b tensor.Buffer, m tensor.Mat) {
	all, own := s.equalRows(b, m)
	s.share.Exchange.Scatter(s.q, own, all)
}

// equalRows is m, at the front of a buffer, padded to equal rows of all ranks, and this rank's.
func (s *Stage) equalRows(b tensor.Buffer, m tensor.Mat) (all, own tensor.Buffer) {
	each := (m.Rows + s.share.Ranks - 1) / s.share.Ranks * m.Cols
	return b.Slice(0, each*s.share.Ranks), b.Slice(each*s.share.Rank, each*(s.share.Rank+1))
}

// normalize is RMSNorm of r into y, of all tokens.
func (s *Stage) normalize(r residual, weight tensor.Buffer) {
	s.dev.RMSNorm(s.q, s.here(s.y()), r.rstd, r.x, weight, s.Config.NormEps)
	s.gather(s.work.y.Buffer, s.y())
}

// addAndNormalize is AddRMSNorm of res and delta to next and y, of all tokens.
func (s *Stage) addAndNormalize(next residual, res tensor.Mat, weight tensor.Buffer) {
	s.dev.AddRMSNorm(s.q, s.here(s.y()), next.rstd, next.x, res, s.here(s.delta()), weight, s.Config.NormEps)
	s.gather(s.work.y.Buffer, s.y())
}

// residualGradient is the gradient of the residual of all tokens.
func (s *Stage) residualGradient() tensor.Mat {
	if !s.sequenceParallel {
		return s.tokens(s.dres)
	}
	all := s.tokens(s.work.dres)
	s.dev.Copy(s.q, s.here(all), s.kept(s.dres))
	s.gather(s.work.dres.Buffer, all)
	return all
}

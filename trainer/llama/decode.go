package llama

import (
	"fmt"

	"github.com/herdtrain/herd/tensor"
)

// Cache holds the keys and values of one sequence's tokens, so that the tokens after them can be run without them. It
// belongs to the Stage that it was made for.
type Cache struct {
	layers []tensor.Mat // x [tokens, 2·KVHeads·HeadDim], rotated keys beside values
	length int          // tokens held
}

// NewCache asks for the memory of a Cache for as many tokens as a sequence of s can have.
func NewCache(a *tensor.Arena, s *Stage) *Cache {
	c, tokens, cols := new(Cache), s.table.Len()/s.Config.HeadDim, 2*s.Config.KVHeads*s.Config.HeadDim
	for l := range s.Config.Layers {
		b := a.Alloc("activations", fmt.Sprintf("layer %d/cache", l), s.Params.Weights.DType(), tokens*cols)
		c.layers = append(c.layers, tensor.Matrix(b, tokens, cols))
	}
	return c
}

// Len is how many tokens c holds: those of every micro-batch loaded with it since it was new or cleared.
func (c *Cache) Len() int { return c.length }

// Clear forgets all tokens.
func (c *Cache) Clear() { c.length = 0 }

// cached is project for a micro-batch that goes on after the tokens of the cache: its keys and values are added there.
func (s *Stage) cached(l int, a activations, p layerParams) (qm, km, vm tensor.Mat) {
	qkv, pos := s.matrix(p.qkv), s.perToken(s.pos, 1)
	cols, half := s.Config.Heads*s.Config.HeadDim, s.Config.KVHeads*s.Config.HeadDim
	qm = a.qkv.ColRange(0, cols)
	all := s.cache.layers[l].RowRange(0, s.shape.Keys)
	added := all.RowRange(s.shape.Offset, s.shape.Keys)
	s.dev.Gemm(s.q, tensor.NT, qm, s.y(), qkv.RowRange(0, cols), false)
	s.dev.Gemm(s.q, tensor.NT, added, s.y(), qkv.RowRange(cols, qkv.Rows), false)
	s.dev.RoPE(s.q, qm, pos, s.table, s.Config.HeadDim, false)
	s.dev.RoPE(s.q, added.ColRange(0, half), pos, s.table, s.Config.HeadDim, false)
	return qm, all.ColRange(0, half), all.ColRange(half, 2*half)
}

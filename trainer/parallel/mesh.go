// Package parallel says, as plain data, which rank of a job holds and does what: the mesh of ranks, the layouts that
// fit a model, the share of every tensor, the trees that canonical sums follow, and pipeline schedules with their
// proof and their simulation. Over a llama.Stage and collective Groups it also does so: Executor runs a schedule,
// TensorExchange and Context are between the ranks of a layer, Zero moves weights and gradients, HiddenSums adds up in
// canonical numerics. It does no I/O of its own and starts no goroutine.
package parallel

import (
	"fmt"
	"slices"
)

// Axis is a direction of the mesh.
type Axis int

// The axes from the innermost, whose neighbours are neighbouring ranks and so share the fastest links, outwards.
const (
	TP   Axis = iota // tensor parallel
	CP               // context parallel
	PP               // pipeline parallel
	DP               // data parallel
	Axes             // how many there are
)

// Mesh is the number of ranks along each axis, at least 1.
type Mesh [Axes]int

// Coord is the place of a rank in a mesh.
type Coord [Axes]int

// World is the number of ranks.
func (m Mesh) World() int { return m[TP] * m[CP] * m[PP] * m[DP] }

// String is the form of messages: "data 2, tensor 4, pipeline 1, context 1".
func (m Mesh) String() string {
	return fmt.Sprintf("data %d, tensor %d, pipeline %d, context %d", m[DP], m[TP], m[PP], m[CP])
}

// Coord is the place of rank, 0 … World−1.
func (m Mesh) Coord(rank int) Coord {
	var c Coord
	for a, n := range m {
		c[a] = rank % n
		rank /= n
	}
	return c
}

// Rank is the rank at c.
func (m Mesh) Rank(c Coord) int {
	rank := 0
	for a := Axes - 1; a >= 0; a-- {
		rank = rank*m[a] + c[a]
	}
	return rank
}

// Group is the ranks that differ from rank along axes only, rank among them, ascending: its communicator for an
// exchange over these axes. Gradients add up over CP and DP.
func (m Mesh) Group(rank int, axes ...Axis) []int {
	at := m.Coord(rank)
	for _, a := range axes {
		at[a] = 0
	}
	group := []int{m.Rank(at)}
	stride := 1
	for a := range Axes {
		if slices.Contains(axes, a) {
			inner := slices.Clone(group)
			for i := 1; i < m[a]; i++ {
				for _, r := range inner {
					group = append(group, r+i*stride)
				}
			}
		}
		stride *= m[a]
	}
	return group
}

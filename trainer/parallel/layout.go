package parallel

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/herdtrain/herd/trainer/llama"
)

// ErrLayout is what every fault of a layout is.
var ErrLayout = errors.New("layout does not fit")

// Spec is the layout that a job asks for.
type Spec struct {
	Data                      int // ranks of data parallelism; 0: what the others leave of the world
	Tensor, Pipeline, Context int
	Schedule                  string // a name of Schedules
	Virtual                   int    // chunks on each stage: 1, or more if interleaved
	Zero                      int    // ZeRO stage, 0 to 3
	Shard                     int    // ranks that share one copy of what ZeRO shards; 0: all of CP and DP
	GlobalBatch, MicroBatch   int    // sequences
	SequenceLength            int    // tokens
	Canonical                 bool   // every share is whole leaves
}

// Layout is a Spec that fits a world and a model.
type Layout struct {
	Mesh     Mesh
	Schedule string
	Pipeline Pipeline
	Zero     int
	Shard    int      // ranks of one copy of what ZeRO shards; 1 if Zero is 0
	Warnings []string // what runs, but badly
}

// Resolve fits s to a world of that many ranks and a valid model. The error is ErrLayout and names every fault, and the
// nearest layout that works.
func Resolve(s Spec, world int, c llama.Config) (Layout, error) {
	if faults := s.faults(world); len(faults) > 0 {
		return Layout{}, layoutError(faults)
	}
	mesh := Mesh{TP: s.Tensor, CP: s.Context, PP: s.Pipeline, DP: s.Data}
	var faults []string
	if s.Data == 0 {
		mesh[DP] = 1
		if rest := mesh.World(); world%rest == 0 {
			mesh[DP] = world / rest
		} else {
			faults = append(faults, fmt.Sprintf("tensor %d · pipeline %d · context %d = %d does not divide %d ranks",
				s.Tensor, s.Pipeline, s.Context, rest, world))
		}
	} else if mesh.World() != world {
		faults = append(faults, fmt.Sprintf("data %d · tensor %d · pipeline %d · context %d = %d ranks, but there are %d",
			s.Data, s.Tensor, s.Pipeline, s.Context, mesh.World(), world))
	}
	if faults = append(faults, s.misfits(mesh, c)...); len(faults) > 0 {
		if near, ok := s.nearest(world, c); ok {
			faults = append(faults, fmt.Sprintf("the nearest layout that works on %d ranks: %v", world, near))
		}
		return Layout{}, layoutError(faults)
	}
	l := Layout{Mesh: mesh, Schedule: s.Schedule, Zero: s.Zero, Shard: 1}
	share := Split(s.GlobalBatch, mesh[DP], 0).Len()
	l.Pipeline = Pipeline{mesh[PP], s.Virtual, (share + s.MicroBatch - 1) / s.MicroBatch, c.Layers}
	if s.Zero > 0 {
		all := mesh[CP] * mesh[DP]
		l.Shard = s.Shard
		if s.Shard == 0 {
			l.Shard = all
		}
		if all%l.Shard != 0 {
			return Layout{}, layoutError([]string{fmt.Sprintf("shard %d does not divide data %d · context %d = %d ranks; "+
				"the nearest that does: %d", s.Shard, mesh[DP], mesh[CP], all, nearestDivisor(all, s.Shard))})
		}
	}
	l.Warnings = s.warnings(l, c)
	return l, nil
}

func layoutError(faults []string) error {
	return fmt.Errorf("%w: %s", ErrLayout, strings.Join(faults, "; "))
}

// faults are those of s by itself.
func (s Spec) faults(world int) []string {
	var faults []string
	for _, f := range []struct {
		name   string
		v, min int
	}{{"world", world, 1}, {"data", s.Data, 0}, {"tensor", s.Tensor, 1}, {"pipeline", s.Pipeline, 1},
		{"context", s.Context, 1}, {"virtual", s.Virtual, 1}, {"zero", s.Zero, 0}, {"shard", s.Shard, 0},
		{"global_batch", s.GlobalBatch, 1}, {"micro_batch", s.MicroBatch, 1}, {"sequence_length", s.SequenceLength, 1}} {
		if f.v < f.min {
			faults = append(faults, fmt.Sprintf("%s is %d, want at least %d", f.name, f.v, f.min))
		}
	}
	if s.Zero > 3 {
		faults = append(faults, fmt.Sprintf("zero is %d, want 0 to 3", s.Zero))
	}
	if s.Zero == 0 && s.Shard > 1 {
		faults = append(faults, fmt.Sprintf("shard is %d, but zero 0 shards nothing", s.Shard))
	}
	if _, ok := Schedules[s.Schedule]; !ok {
		faults = append(faults, fmt.Sprintf("pipeline schedule is %q, want one of %s", s.Schedule,
			strings.Join(slices.Sorted(maps.Keys(Schedules)), ", ")))
	} else if s.Virtual > 1 && s.Pipeline == 1 {
		faults = append(faults, fmt.Sprintf("virtual is %d, but a pipeline of 1 stage has 1 chunk of layers", s.Virtual))
	} else if s.Virtual > 1 && s.Schedule != "interleaved" {
		faults = append(faults, fmt.Sprintf("virtual is %d, but only the interleaved schedule has more than 1 chunk on a "+
			"stage, not %s", s.Virtual, s.Schedule))
	}
	return faults
}

// misfits are what of m does not fit the model.
func (s Spec) misfits(m Mesh, c llama.Config) []string {
	var faults []string
	if m[TP] > c.Heads {
		faults = append(faults, fmt.Sprintf("tensor %d leaves ranks without one of the model's %d heads", m[TP], c.Heads))
	}
	if chunks := m[PP] * s.Virtual; chunks > c.Layers {
		faults = append(faults, fmt.Sprintf("pipeline %d · virtual %d = %d chunks are more than the model's %d layers",
			m[PP], s.Virtual, chunks, c.Layers))
	}
	if pieces := 2 * m[CP]; m[CP] > 1 && pieces > s.SequenceLength {
		faults = append(faults, fmt.Sprintf("context %d cuts sequences of %d tokens into %d pieces", m[CP],
			s.SequenceLength, pieces))
	}
	if s.Canonical && m[TP] > HiddenLeaves {
		faults = append(faults, fmt.Sprintf("tensor %d is more than the %d leaves of canonical numerics", m[TP],
			HiddenLeaves))
	}
	if s.Canonical && 2*m[CP] > TokenLeaves {
		faults = append(faults, fmt.Sprintf("context %d needs more than the %d leaves of canonical numerics", m[CP],
			TokenLeaves))
	}
	return faults
}

// nearest is the mesh of that many ranks that fits and is least far from s, each axis measured by its ratio.
func (s Spec) nearest(world int, c llama.Config) (best Mesh, ok bool) {
	const tie = 1e-9 // logarithms of equal ratios may differ by less
	far := math.Inf(1)
	off := func(n, want int) float64 { return math.Abs(math.Log(float64(n) / float64(want))) }
	for _, tp := range divisors(world) {
		for _, cp := range divisors(world / tp) {
			for _, pp := range divisors(world / tp / cp) {
				m := Mesh{TP: tp, CP: cp, PP: pp, DP: world / tp / cp / pp}
				d := off(tp, s.Tensor) + off(cp, s.Context) + off(pp, s.Pipeline)
				if s.Data > 0 {
					d += off(m[DP], s.Data)
				}
				if d < far-tie && len(s.misfits(m, c)) == 0 {
					best, far, ok = m, d, true
				}
			}
		}
	}
	return best, ok
}

func divisors(n int) []int {
	var all []int
	for d := 1; d <= n; d++ {
		if n%d == 0 {
			all = append(all, d)
		}
	}
	return all
}

func nearestDivisor(n, want int) int {
	return slices.MinFunc(divisors(n), func(a, b int) int { return max(want-a, a-want) - max(want-b, b-want) })
}

// warnings are what runs, but badly.
func (s Spec) warnings(l Layout, c llama.Config) []string {
	var all []string
	p, dp, tp := l.Pipeline, l.Mesh[DP], l.Mesh[TP]
	if p.MicroBatches < p.Stages {
		idle, total := l.Timeline().Bubble()
		all = append(all, fmt.Sprintf("the number of micro-batches, %d, is below that of pipeline stages, %d: the "+
			"bubble is %.1f %% of the step", p.MicroBatches, p.Stages, 100*float64(idle)/float64(total)))
	}
	if padded := p.MicroBatches * s.MicroBatch * dp; padded != s.GlobalBatch {
		all = append(all, fmt.Sprintf("a global batch of %d sequences is padded to %d = data %d · micro-batches %d · "+
			"micro_batch %d", s.GlobalBatch, padded, dp, p.MicroBatches, s.MicroBatch))
	}
	most := 0
	for r := range tp {
		most = max(most, Heads(c, tp, r).Query.Len())
	}
	if most*tp != c.Heads {
		all = append(all, fmt.Sprintf("tensor %d splits %d heads (%d KV) unevenly: the largest share is %d",
			tp, c.Heads, c.KVHeads, most))
	}
	return all
}

// Timeline simulates one step of l's pipeline, with a forward and each half of a backward pass of a chunk taking one
// unit of time and a transfer none.
func (l Layout) Timeline() Timeline {
	t, err := Simulate(l.Pipeline, Schedules[l.Schedule](l.Pipeline), UniformCost(1, 1, 1, 0))
	if err != nil {
		panic(fmt.Sprintf("parallel: schedule %s of %+v: %v", l.Schedule, l.Pipeline, err))
	}
	return t
}

// ShardIndex is rank's place in its ShardGroup: which shard it holds.
func (l Layout) ShardIndex(rank int) int { return slices.Index(l.ShardGroup(rank), rank) }

// ShardGroup is the ranks that hold one copy of rank's state between them, ascending: neighbours in its group over CP
// and DP, so that they are near each other. ReplicaGroup is those that hold the same shard.
func (l Layout) ShardGroup(rank int) []int {
	group := l.Mesh.Group(rank, CP, DP)
	first := slices.Index(group, rank) / l.Shard * l.Shard
	return group[first : first+l.Shard]
}

// ReplicaGroup is the ranks that hold the same shard as rank, ascending, one of each copy.
func (l Layout) ReplicaGroup(rank int) []int {
	group := l.Mesh.Group(rank, CP, DP)
	var same []int
	for i := slices.Index(group, rank) % l.Shard; i < len(group); i += l.Shard {
		same = append(same, group[i])
	}
	return same
}

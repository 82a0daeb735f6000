package parallel

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawMesh(t *rapid.T) Mesh {
	var m Mesh
	for a := range m {
		m[a] = rapid.IntRange(1, 5).Draw(t, fmt.Sprint("size ", a))
	}
	return m
}

func TestMeshOrder(t *testing.T) {
	m := Mesh{TP: 2, CP: 3, PP: 4, DP: 5}
	for _, c := range []struct {
		coord Coord
		rank  int
	}{
		{Coord{}, 0},
		{Coord{TP: 1}, 1},
		{Coord{CP: 1}, 2},
		{Coord{PP: 1}, 6},
		{Coord{DP: 1}, 24},
		{Coord{TP: 1, CP: 2, PP: 3, DP: 4}, 119},
	} {
		if got := m.Rank(c.coord); got != c.rank {
			t.Errorf("rank of %v is %d, want %d", c.coord, got, c.rank)
		}
	}
	if got, want := m.Group(33, PP), []int{27, 33, 39, 45}; !slices.Equal(got, want) {
		t.Errorf("pipeline of rank 33 is %v, want %v", got, want)
	}
}

func TestMeshProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMesh(t)
		for rank := range m.World() {
			if got := m.Rank(m.Coord(rank)); got != rank {
				t.Fatalf("rank %d is at %v, where rank %d is", rank, m.Coord(rank), got)
			}
		}
		var axes []Axis
		size := 1
		for a := range Axes {
			if rapid.Bool().Draw(t, fmt.Sprint("along ", a)) {
				axes = append(axes, a)
				size *= m[a]
			}
		}
		slices.Reverse(axes) // the order of the arguments does not matter
		var all []int
		for rank := range m.World() {
			g := m.Group(rank, axes...)
			if g[0] != rank {
				continue
			}
			all = append(all, g...)
			if len(g) != size || !slices.IsSorted(g) {
				t.Fatalf("group %v along %v: want %d ascending ranks", g, axes, size)
			}
			for _, rank := range g {
				if !slices.Equal(m.Group(rank, axes...), g) {
					t.Fatalf("ranks %d and %d of one group along %v are in different groups", g[0], rank, axes)
				}
				at, first := m.Coord(rank), m.Coord(g[0])
				for a := range Axes {
					if at[a] != first[a] && !slices.Contains(axes, a) {
						t.Fatalf("group %v along %v crosses axis %v", g, axes, a)
					}
				}
			}
		}
		slices.Sort(all)
		if len(all) != m.World() || all[0] != 0 || len(slices.Compact(all)) != m.World() {
			t.Fatalf("the groups along %v hold %v, want every rank once", axes, all)
		}
	})
}

func TestShardGroups(t *testing.T) {
	l := Layout{Mesh: Mesh{TP: 2, CP: 2, PP: 1, DP: 4}, Zero: 1, Shard: 4}
	if got, want := l.ShardGroup(11), []int{9, 11, 13, 15}; !slices.Equal(got, want) {
		t.Errorf("shard group of rank 11 is %v, want %v", got, want)
	}
	if got, want := l.ReplicaGroup(11), []int{3, 11}; !slices.Equal(got, want) {
		t.Errorf("replica group of rank 11 is %v, want %v", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		m := drawMesh(t)
		l := Layout{Mesh: m, Zero: 1, Shard: rapid.SampledFrom(divisors(m[CP]*m[DP])).Draw(t, "shard")}
		for rank := range m.World() {
			shard, replica := l.ShardGroup(rank), l.ReplicaGroup(rank)
			if len(shard) != l.Shard || len(replica)*l.Shard != m[CP]*m[DP] {
				t.Fatalf("rank %d: shard group %v, replicas %v", rank, shard, replica)
			}
			common := slices.DeleteFunc(slices.Clone(shard), func(r int) bool { return !slices.Contains(replica, r) })
			if !slices.Equal(common, []int{rank}) {
				t.Fatalf("shard group %v and replicas %v of rank %d have %v in common", shard, replica, rank, common)
			}
			for i, r := range shard { // the same place in every copy
				if at := slices.Index(l.ReplicaGroup(r), r); at != slices.Index(replica, rank) {
					t.Fatalf("rank %d, place %d of a shard group, is in copy %d", r, i, at)
				}
			}
		}
	})
}

package storagetest

import (
	"fmt"
	"iter"
	"math/rand/v2"
)

// op is one change of a Mem. Names are those of the folder `node`.
type op struct {
	kind      opKind
	node      int    // the file written or synced, or the folder changed
	name      string // of the entry
	from      string // rename: the old name
	target    int    // link, rename: what the name leads to
	targetDir bool   // link: it is a folder
	off       int64
	data      []byte
}

type opKind int

const (
	opLink opKind = iota + 1 // makes a node and its name
	opMake                   // makes a node whose name was lost
	opRename
	opUnlink
	opWrite
	opSync
)

func (m *Mem) apply(o op) {
	if o.kind == opLink || o.kind == opMake {
		made := &node{dir: o.targetDir}
		if made.dir {
			made.entries = map[string]int{}
		}
		m.nodes = append(m.nodes, made)
	}
	n := m.nodes[o.node]
	switch o.kind {
	case opLink:
		n.entries[o.name] = o.target
	case opRename:
		delete(n.entries, o.from)
		n.entries[o.name] = o.target
	case opUnlink:
		delete(n.entries, o.name)
	case opWrite:
		if need := o.off + int64(len(o.data)); need > int64(len(n.data)) {
			n.data = append(n.data, make([]byte, need-int64(len(n.data)))...)
		}
		copy(n.data[o.off:], o.data)
	}
}

// Mark is the number of operations so far: a crash image of at least as many knows of all that was done before.
func (m *Mem) Mark() int { return len(m.log) }

// Image is a state that the disk may be in after a power cut. Its file system is a Mem like any other: one can go on
// from it, and cut the power again.
type Image struct {
	FS  *Mem
	Ops int    // the operations that had been called, lost or not
	How string // which of the unsynced ones reached the disk, for messages
}

// maxPending is up to how many unsynced operations every subset of them is tried.
const maxPending = 7

// Crashes yields images of every moment from operation `from` on. What a Sync covered is on the disk. Of the rest any
// subset may be, in spite of the order of calls (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014):
// for up to 7 such operations each subset is tried, beyond that none, all, each alone, each missing and 64 random
// ones. An unsynced write may also be torn: its first half, or zeros in the right length.
func (m *Mem) Crashes(from int) iter.Seq[Image] {
	return func(yield func(Image) bool) {
		for n := from; n <= len(m.log); n++ {
			pending := m.pending(n)
			for _, keep := range subsets(len(pending), uint64(n)) {
				for _, torn := range []tear{whole, half, zeros} {
					lost := map[int]bool{}
					writes := false
					for i, o := range pending {
						lost[o] = !keep[i]
						writes = writes || keep[i] && m.log[o].kind == opWrite
					}
					if torn != whole && !writes {
						continue
					}
					how := fmt.Sprintf("after %d operations, of unsynced %v kept %v, writes %v", n, pending, keep, torn)
					if !yield(Image{m.image(n, pending, lost, torn), n, how}) {
						return
					}
				}
			}
		}
	}
}

// pending lists the operations among the first n that no Sync has covered.
func (m *Mem) pending(n int) []int {
	var list []int
	for i, o := range m.log[:n] {
		if o.kind != opSync {
			list = append(list, i)
			continue
		}
		kept := list[:0]
		for _, p := range list {
			if m.log[p].node != o.node {
				kept = append(kept, p)
			}
		}
		list = kept
	}
	return list
}

type tear string

const (
	whole tear = "whole"
	half  tear = "cut in half"
	zeros tear = "zeroed"
)

func (m *Mem) image(n int, pending []int, lost map[int]bool, torn tear) *Mem {
	img := NewMem()
	unsynced := map[int]bool{}
	for _, p := range pending {
		unsynced[p] = true
	}
	for i, o := range m.log[:n] {
		if lost[i] {
			if o.kind == opLink {
				o.kind = opMake
				img.do(o)
			}
			continue
		}
		if o.kind == opWrite && unsynced[i] {
			switch torn {
			case half:
				o.data = o.data[:len(o.data)/2]
			case zeros:
				o.data = make([]byte, len(o.data))
			}
		}
		img.do(o)
	}
	for id := range img.nodes {
		img.do(op{kind: opSync, node: id})
	}
	return img
}

// subsets lists which of n things are kept.
func subsets(n int, seed uint64) [][]bool {
	var list [][]bool
	if n <= maxPending {
		for bits := range 1 << n {
			s := make([]bool, n)
			for i := range s {
				s[i] = bits>>i&1 == 1
			}
			list = append(list, s)
		}
		return list
	}
	fill := func(v bool) []bool {
		s := make([]bool, n)
		for i := range s {
			s[i] = v
		}
		return s
	}
	list = append(list, fill(false), fill(true))
	for i := range n {
		alone, missing := fill(false), fill(true)
		alone[i], missing[i] = true, false
		list = append(list, alone, missing)
	}
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	for range 64 {
		s := make([]bool, n)
		for i := range s {
			s[i] = r.IntN(2) == 1
		}
		list = append(list, s)
	}
	return list
}

package tensor

import (
	"fmt"
	"unsafe"
)

// Align is the alignment in bytes of every buffer of an Arena.
const Align = 64

// Region is one buffer of a memory plan.
type Region struct {
	Use   string // what it is for: weights, gradients, optimizer, activations, workspace
	Name  string
	DType DType
	Len   int // elements
}

// Bytes is what the region takes of the arena.
func (r Region) Bytes() int64 {
	return (int64(r.Len)*int64(r.DType.Size()) + Align - 1) / Align * Align
}

// Arena is the memory of one rank. Whatever needs memory asks it for buffers before the first step, twice: first a
// planning Arena (NewPlan), which only counts, so that the plan can be shown and compared with the device; then the
// real one (Plan.Arena) made from the plan. Since the same code asks, the plan is the memory.
type Arena struct {
	regions []Region
	base    Buffer // of dtype BF16 (2-byte units); zero while planning
	off     int64  // bytes handed out
	real    bool
}

// NewPlan is an Arena that hands out buffers without memory.
func NewPlan() *Arena { return &Arena{} }

// Regions are the buffers handed out so far, in order.
func (a *Arena) Regions() []Region { return a.regions }

// Bytes is the total of the buffers handed out so far.
func (a *Arena) Bytes() int64 { return a.off }

// Uses sums the regions' bytes by use, in order of first appearance.
func (a *Arena) Uses() (uses []string, bytes map[string]int64) {
	bytes = map[string]int64{}
	for _, r := range a.regions {
		if _, ok := bytes[r.Use]; !ok {
			uses = append(uses, r.Use)
		}
		bytes[r.Use] += r.Bytes()
	}
	return uses, bytes
}

// Arena allocates what the plan holds as one block of the device.
func (a *Arena) Arena(d Device) (*Arena, error) {
	base, err := d.Alloc(BF16, int(a.off/2))
	if err != nil {
		return nil, fmt.Errorf("the plan needs %d bytes: %w", a.off, err)
	}
	return &Arena{base: base, real: true}, nil
}

// Planning says whether the buffers have no memory.
func (a *Arena) Planning() bool { return !a.real }

// Alloc hands out the next buffer: zeroed memory, or none while planning. To ask for more than was planned is a broken
// invariant and panics.
func (a *Arena) Alloc(use, name string, dt DType, n int) Buffer {
	r := Region{use, name, dt, n}
	a.regions = append(a.regions, r)
	off := a.off
	a.off += r.Bytes()
	if !a.real {
		return Buffer{nil, n, dt}
	}
	if a.off > a.base.Bytes() {
		panic(fmt.Sprintf("tensor: %s %s was not in the memory plan", use, name))
	}
	return Buffer{unsafe.Add(a.base.ptr, off), n, dt}
}

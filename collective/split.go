package collective

import (
	"context"
	"fmt"
	"slices"

	"github.com/herdtrain/herd/tensor"
)

// Split implements Group.
func (e *engine) Split(ctx context.Context, color, key int) (Group, error) {
	mine, all := []int32{int32(color), int32(key)}, make([]int32, 2*e.size)
	if int(mine[0]) != color || int(mine[1]) != key {
		return nil, fmt.Errorf("collective: split of group %s: color %d or key %d is not an int32",
			e.o.Name, color, key)
	}
	if err := e.Start(nil, AllGather(tensor.HostBuffer(all), tensor.HostBuffer(mine))).Wait(ctx); err != nil {
		return nil, fmt.Errorf("collective: split of group %s: %w", e.o.Name, err)
	}
	e.splits++
	if color < 0 {
		return nil, nil
	}
	var members []int
	for r := range e.size {
		if all[2*r] == mine[0] {
			members = append(members, r)
		}
	}
	slices.SortStableFunc(members, func(a, b int) int { return int(all[2*a+1]) - int(all[2*b+1]) })
	o := e.o
	o.Name = fmt.Sprintf("%s/%d", e.o.Name, color)
	id := fmt.Sprintf("%s.%d/%d", e.id, e.splits, color)
	g, err := e.backend.split(ctx, e, id, o, members, slices.Index(members, e.rank))
	if err != nil {
		return nil, fmt.Errorf("collective: split of group %s, color %d: %w", e.o.Name, color, err)
	}
	g.watch(e.recorder.Load())
	return g, nil
}

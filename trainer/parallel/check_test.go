package parallel

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/herdtrain/herd/storage/storagetest"
)

// runs says whether lists run p, by running them: a goroutine for each stage, an unbuffered channel from each to each,
// and goroutines for the transfers of a batch, one for each peer and direction. It knows the rules of a pipeline in its
// own words: see (*ranStage).work.
func runs(t *testing.T, p Pipeline, lists [][]Action) (ok bool) {
	synctest.Test(t, func(*testing.T) {
		wires := make([][]chan Action, p.Stages)
		for s := range wires {
			wires[s] = make([]chan Action, p.Stages)
			for r := range wires[s] {
				wires[s][r] = make(chan Action)
			}
		}
		good := make([]bool, p.Stages)
		var stages sync.WaitGroup
		for s := range lists {
			stages.Go(func() {
				r := ranStage{p: p, stage: s, wires: wires, has: map[string]bool{}}
				good[s] = r.run(lists[s])
			})
		}
		stages.Wait()
		ok = !slices.Contains(good, false)
	})
	return ok
}

type ranStage struct {
	p     Pipeline
	stage int
	wires [][]chan Action // from, to
	mu    sync.Mutex
	has   map[string]bool
}

func (r *ranStage) run(list []Action) bool {
	for len(list) > 0 {
		if !list[0].Kind.Transfers() {
			if !r.work(list[0]) {
				return false
			}
			list = list[1:]
			continue
		}
		n := 0
		for n < len(list) && list[n].Batch == list[0].Batch {
			n++
		}
		if !r.batch(list[:n]) {
			return false
		}
		list = list[n:]
	}
	want := r.p.MicroBatches * r.p.Virtual
	count := func(what string) (n int) {
		for k := range r.has {
			if strings.HasPrefix(k, what+" ") {
				n++
			}
		}
		return n
	}
	outputs, gradients := want, want // that leave the stage
	if r.p.Stages == 1 {
		outputs, gradients = 0, 0
	}
	if r.p.Stages > 1 && r.stage == r.p.Stages-1 {
		outputs -= r.p.MicroBatches
	}
	if r.p.Stages > 1 && r.stage == 0 {
		gradients -= r.p.MicroBatches
	}
	return count("out") == want && count("weights") == want &&
		count("sent out") == outputs && count("sent din") == gradients
}

// once notes something; false if it was there.
func (r *ranStage) once(what string, chunk, microBatch int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprint(what, " ", chunk, microBatch)
	if r.has[key] {
		return false
	}
	r.has[key] = true
	return true
}

func (r *ranStage) got(what string, chunk, microBatch int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has[fmt.Sprint(what, " ", chunk, microBatch)]
}

// work: a chunk turns in into out, then out's gradient dout into din and weights.
func (r *ranStage) work(a Action) bool {
	c, i, last := a.Chunk, a.MicroBatch, r.p.Chunks()-1
	if c%r.p.Stages != r.stage {
		return false
	}
	forward := c == 0 || r.got("in", c, i) || r.p.Stages == 1 && r.got("out", c-1, i)
	backward := r.got("out", c, i) && (c == last || r.got("dout", c, i) || r.p.Stages == 1 && r.got("din", c+1, i))
	switch a.Kind {
	case Forward:
		return forward && r.once("out", c, i)
	case Backward:
		return backward && r.once("din", c, i) && r.once("weights", c, i)
	case BackwardInput:
		return backward && r.once("din", c, i)
	case BackwardWeight:
		return r.got("din", c, i) && r.once("weights", c, i)
	}
	return false
}

func (r *ranStage) batch(batch []Action) bool {
	type lane struct {
		peer  int
		sends bool
	}
	lanes := map[lane][]Action{}
	for _, a := range batch {
		l := lane{a.Peer, a.Kind.Sends()}
		lanes[l] = append(lanes[l], a)
	}
	good := make([]bool, 0, len(lanes))
	var all sync.WaitGroup
	for l, actions := range lanes {
		good = append(good, true)
		ok := &good[:cap(good)][len(good)-1]
		all.Go(func() {
			for _, a := range actions {
				if l.sends {
					*ok = *ok && r.send(a)
				} else {
					*ok = *ok && r.recv(a)
				}
			}
		})
	}
	all.Wait()
	return !slices.Contains(good, false)
}

const forever = 24 * time.Hour // of the bubble: it passes only when all are stuck

func (r *ranStage) send(a Action) bool {
	what := "din"
	if a.Kind == SendForward {
		what = "out"
	}
	if !r.got(what, a.Chunk, a.MicroBatch) || !r.once("sent "+what, a.Chunk, a.MicroBatch) {
		return false
	}
	select {
	case r.wires[r.stage][a.Peer] <- a:
		return true
	case <-time.After(forever):
		return false
	}
}

func (r *ranStage) recv(a Action) bool {
	select {
	case sent := <-r.wires[a.Peer][r.stage]:
		if a.Kind == RecvForward {
			return sent.Kind == SendForward && sent.Chunk == a.Chunk-1 && sent.MicroBatch == a.MicroBatch &&
				r.once("in", a.Chunk, a.MicroBatch)
		}
		return sent.Kind == SendBackward && sent.Chunk == a.Chunk+1 && sent.MicroBatch == a.MicroBatch &&
			r.once("dout", a.Chunk, a.MicroBatch)
	case <-time.After(forever):
		return false
	}
}

// renumber numbers batches from 1 again, where they were and between works.
func renumber(list []Action) {
	batch, was := 0, 0
	for i := range list {
		a := &list[i]
		if a.Kind.Transfers() && (i == 0 || !list[i-1].Kind.Transfers() || a.Batch != was) {
			batch++
		}
		if was = a.Batch; a.Kind.Transfers() {
			a.Batch = batch
		}
	}
}

// TestCheckFindsFaults mutates schedules. What lacks an action or has one too often is bad; two actions that change
// places are a fault if and only if goroutines over unbuffered channels cannot run them.
func TestCheckFindsFaults(t *testing.T) {
	good, bad := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		_, p, lists := drawSchedule(rt, 5, 8)
		s := rapid.IntRange(0, p.Stages-1).Draw(rt, "stage")
		list := &lists[s]
		i := rapid.IntRange(0, len(*list)-1).Draw(rt, "action")
		mutation := rapid.SampledFrom([]string{"drop", "duplicate", "swap", "swap neighbours", "move"}).Draw(rt, "mutation")
		a := (*list)[i]
		switch mutation {
		case "drop":
			*list = slices.Delete(*list, i, i+1)
		case "duplicate":
			*list = slices.Insert(*list, rapid.IntRange(0, len(*list)).Draw(rt, "to"), a)
		case "swap", "swap neighbours":
			j := rapid.IntRange(0, len(*list)-1).Draw(rt, "with")
			if mutation == "swap neighbours" {
				j = min(i+1, len(*list)-1)
			}
			(*list)[i], (*list)[j] = (*list)[j], a
		case "move":
			*list = slices.Delete(*list, i, i+1)
			other := &lists[(s+1)%p.Stages]
			*other = slices.Insert(*other, rapid.IntRange(0, len(*other)).Draw(rt, "to"), a)
		}
		for s := range lists {
			renumber(lists[s])
		}
		_, err := Check(p, lists)
		if !runs(t, p, lists) {
			bad++
			if err == nil {
				rt.Fatalf("%v of %v, stage %d action %d: it does not run, and Check finds nothing", mutation, a, s, i)
			}
			var f *Fault
			if !errors.As(err, &f) || !errors.Is(err, ErrSchedule) {
				rt.Fatalf("%v is no Fault", err)
			}
			return
		}
		good++
		if err != nil {
			rt.Fatalf("%v of %v, stage %d action %d: it runs, but %v", mutation, a, s, i, err)
		}
		if mutation == "drop" || mutation == "duplicate" || mutation == "move" && p.Stages > 1 {
			rt.Fatalf("%v of %v, stage %d action %d is not noticed", mutation, a, s, i)
		}
	})
	if n := good + bad; n >= 100 && (good == 0 || bad == 0) { // in fewer it may be chance
		t.Errorf("%d mutations run and %d do not: the test is blind", good, bad)
	}
}

// TestFaults shows what faults read like.
func TestFaults(t *testing.T) {
	p := Pipeline{Stages: 3, Virtual: 1, MicroBatches: 3, Layers: 6}
	var b strings.Builder
	try := func(what string, change func(lists [][]Action) [][]Action) {
		lists := change(OneFOneB(p))
		if _, err := Check(p, lists); err == nil {
			t.Errorf("%s: no fault", what)
		} else {
			fmt.Fprintf(&b, "%s\n  %v\n", what, err)
		}
	}
	index := func(list []Action, name string) int {
		i := slices.IndexFunc(list, func(a Action) bool { return a.String() == name })
		if i < 0 {
			t.Fatalf("no %s in %v", name, list)
		}
		return i
	}
	try("a stage too few", func(l [][]Action) [][]Action { return l[:2] })
	for _, name := range []string{"F1/1", "recv-F1/1<0", "send-F1/1>2", "B2/1", "send-B0/1>0"} {
		try("without "+name, func(l [][]Action) [][]Action {
			i := index(l[1], name)
			l[1] = slices.Delete(l[1], i, i+1)
			renumber(l[1])
			return l
		})
	}
	try("F0/1 twice", func(l [][]Action) [][]Action {
		l[1] = append(l[1], l[1][index(l[1], "F0/1")])
		return l
	})
	try("B0/1 before F0/1", func(l [][]Action) [][]Action {
		i, j := index(l[1], "F0/1"), index(l[1], "B0/1")
		l[1][i], l[1][j] = l[1][j], l[1][i]
		return l
	})
	try("a stranger", func(l [][]Action) [][]Action { l[1][1].Chunk = 2; return l })
	try("other layers", func(l [][]Action) [][]Action { l[1][index(l[1], "F0/1")].Layers.Hi++; return l })
	try("another peer", func(l [][]Action) [][]Action { l[1][index(l[1], "recv-F0/1<0")].Peer = 2; return l })
	try("another batch", func(l [][]Action) [][]Action { l[1][index(l[1], "recv-F0/1<0")].Batch = 7; return l })
	try("a receive on the last stage", func(l [][]Action) [][]Action {
		l[2] = append(l[2], p.action(RecvBackward, 2, 0))
		return l
	})
	try("receives in another order", func(l [][]Action) [][]Action {
		i, j := index(l[2], "recv-F0/2<1"), index(l[2], "recv-F1/2<1")
		l[2] = []Action{l[2][j], l[2][i]}
		for _, a := range OneFOneB(p)[2] {
			if name := a.String(); name != "recv-F0/2<1" && name != "recv-F1/2<1" {
				l[2] = append(l[2], a)
			}
		}
		renumber(l[2])
		return l
	})
	try("each waits for the other's gradient or input first", func(l [][]Action) [][]Action {
		i := index(l[0], "send-F1/0>1")
		send := l[0][i]
		l[0] = slices.Delete(l[0], i, i+1)
		l[0] = slices.Insert(l[0], index(l[0], "B0/0")+1, send)
		renumber(l[0])
		return l
	})
	p.MicroBatches = 4
	try("the first stage runs 1f1b, the others gpipe", func(l [][]Action) [][]Action {
		return append(l[:1], GPipe(p)[1:]...)
	})
	storagetest.Golden(t, "testdata/faults.txt", b.String())
}

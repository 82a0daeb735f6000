package run

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// factors are what a layout is made of, each with the values of the matrix. The first of a factor is what a lone rank has.
var factors = []struct {
	key    string
	values []string
}{
	{"parallel.data", []string{"1", "2", "3"}},
	{"parallel.tensor", []string{"1", "2", "3", "4"}},
	{"parallel.pipeline", []string{"1", "2", "3"}},
	{"parallel.context", []string{"1", "2", "3"}},
	{"parallel.pipeline_schedule", []string{"1f1b", "gpipe", "interleaved", "zb-h1"}},
	{"parallel.context_exchange", []string{"all-gather", "ring"}},
	{"parallel.sequence", []string{"false", "true"}},
	{"parallel.zero", []string{"0", "1", "2", "3"}},
	{"parallel.recompute", []string{"none", "selective", "full"}},
	{"train.micro_batch", []string{"1", "2", "3"}},
	{"model.tied", []string{"false", "true"}},
	{"train.precision", []string{"fp32", "bf16"}},
}

// combination is a value of each factor, by their numbers.
type combination [12]int

// ranks is how many ranks it takes.
func (c combination) ranks() int {
	n := 1
	for axis := range 4 {
		n *= c[axis] + 1
	}
	return n
}

// valid says whether it is a layout that a job may ask for: what belongs to an axis of one rank has its first value.
func (c combination) valid() bool {
	return (c[1] > 0 || c[6] == 0) && (c[2] > 0 || c[4] == 0) && (c[3] > 0 || c[5] == 0)
}

// sets are its settings of a job.
func (c combination) sets() (sets []string) {
	for i, f := range factors {
		sets = append(sets, f.key+"="+f.values[c[i]])
	}
	return sets
}

// name is such as data-2-tensor-1-…
func (c combination) name() string {
	name := ""
	for _, s := range c.sets() {
		name += "-" + s[strings.Index(s, ".")+1:]
	}
	return strings.ReplaceAll(name[1:], "=", "-")
}

// pair is a value each of two factors.
type pair [4]int

func (c combination) pairs() (all []pair) {
	for i := range c {
		for j := range i {
			all = append(all, pair{j, c[j], i, c[i]})
		}
	}
	return all
}

// matrix is layouts of up to so many ranks, always the same: at least n and so many that every two values of different
// factors that can be had at once come together, or the first n of such. Each next one is the one of many that has most
// pairs that are not yet there.
func matrix(n, ranks int, all bool) []combination {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func() combination {
		for {
			var c combination
			for i, f := range factors {
				c[i] = r.IntN(len(f.values))
			}
			if c.valid() && c.ranks() <= ranks {
				return c
			}
		}
	}
	missing := map[pair]bool{}
	for range 20000 {
		for _, p := range draw().pairs() {
			missing[p] = true
		}
	}
	var layouts []combination
	for len(layouts) < n || all && len(missing) > 0 {
		var best combination
		most := -1
		for range 200 {
			c, news := draw(), 0
			for _, p := range c.pairs() {
				if missing[p] {
					news++
				}
			}
			if news > most {
				best, most = c, news
			}
		}
		maps.DeleteFunc(missing, func(p pair, _ bool) bool { return slices.Contains(best.pairs(), p) })
		layouts = append(layouts, best)
	}
	return layouts
}

// matrixJob is a job whose heads, columns, vocabulary, layers and batch most layouts of the matrix do not divide.
var matrixJob = []string{
	"train.steps=5", "model.dim=24", "model.heads=6", "model.kv_heads=3", "model.ffn=50", "model.vocab=259", "model.layers=6",
	"train.global_batch=7",
}

// TestMatrix wants of every layout the weights, moments, losses and ledger of a lone rank: the same bits in canonical
// numerics, close ones in fast.
func TestMatrix(t *testing.T) {
	layouts := matrix(60, 16, true)
	t.Logf("%d layouts", len(layouts))
	for _, numerics := range []string{"canonical", "fast"} {
		lone := map[string]outcome{} // by model and precision
		for _, c := range short(layouts, 4) {
			model := fmt.Sprint(c[10:])
			if _, ok := lone[model]; !ok {
				var one combination
				copy(one[10:], c[10:])
				lone[model] = runOn(t, 1, t.TempDir(), slices.Concat(matrixJob, []string{"numerics=" + numerics}, one.sets())...)
			}
			t.Run(numerics+"/"+c.name(), func(t *testing.T) {
				got := runOn(t, c.ranks(), t.TempDir(), slices.Concat(matrixJob, []string{"numerics=" + numerics}, c.sets())...)
				if numerics == "canonical" {
					got.equal(t, lone[model])
				} else {
					got.near(t, lone[model], factors[11].values[c[11]])
				}
			})
		}
	}
}

// TestMatrixInProcesses wants the bits of a lone rank from layouts whose ranks are processes.
func TestMatrixInProcesses(t *testing.T) {
	lone := map[string]outcome{} // by model and precision
	for _, c := range short(matrix(8, 8, false), 2) {
		sets := slices.Concat(matrixJob, []string{"numerics=canonical", "train.steps=3"})
		model := fmt.Sprint(c[10:])
		if _, ok := lone[model]; !ok {
			var one combination
			copy(one[10:], c[10:])
			lone[model] = runOn(t, 1, t.TempDir(), slices.Concat(sets, one.sets())...)
		}
		t.Run(c.name(), func(t *testing.T) {
			out := t.TempDir()
			if err := Run(t.Context(), testJob(t, out, slices.Concat(sets, c.sets())...), spawn(c.ranks())); err != nil {
				t.Fatal(err)
			}
			readOutcome(t, out).equal(t, lone[model])
		})
	}
}

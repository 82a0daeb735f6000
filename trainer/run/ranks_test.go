package run

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/parallel"
)

// runOn trains a job of testJob on so many ranks and returns what became of it.
func runOn(t *testing.T, ranks int, out string, sets ...string) outcome {
	t.Helper()
	if err := Run(t.Context(), testJob(t, out, sets...), Options{Out: io.Discard, Ranks: ranks}); err != nil {
		t.Fatal(err)
	}
	return readOutcome(t, out)
}

// near compares with the tolerances of numerics: fast. In fp32 losses are within 1e-5 of each other, and each tensor
// within 1e-4 by norm. In bf16 a sum in another order may round another way, by 2⁻⁸, hence 2e-2 and, since Adam takes the
// sign of small gradients, 0.1.
func (o outcome) near(t *testing.T, want outcome, precision string) {
	t.Helper()
	loss, norm := 1e-5, 1e-4
	if precision == "bf16" {
		loss, norm = 2e-2, 0.1
	}
	if len(o.tensors) != len(want.tensors) || len(o.lineage) != len(want.lineage) {
		t.Fatalf("%d tensors and %d records, want %d and %d", len(o.tensors), len(o.lineage), len(want.tensors),
			len(want.lineage))
	}
	for name, b := range want.tensors {
		x, y := floats(o.tensors[name]), floats(b)
		var off, size float64
		for i := range y {
			off += (x[i] - y[i]) * (x[i] - y[i])
			size += y[i] * y[i]
		}
		if !(math.Sqrt(off) <= norm*math.Sqrt(size)) {
			t.Errorf("%s is off by %.1e of its norm", name, math.Sqrt(off/size))
		}
	}
	for i, w := range want.lineage {
		r := o.lineage[i]
		if !(math.Abs(r.Loss-w.Loss) <= loss*w.Loss) {
			t.Errorf("step %d: loss %v, want %v", i, r.Loss, w.Loss)
		}
		if r.Loss, w.Loss = 0, 0; r != w {
			t.Errorf("the ledger says %+v, want %+v", r, w)
		}
	}
}

func floats(b []byte) []float64 {
	host := make([]float32, len(b)/4)
	copy(tensor.HostBytes(tensor.HostBuffer(host)), b)
	x := make([]float64, len(host))
	for i, v := range host {
		x[i] = float64(v)
	}
	return x
}

// short is the first n of cases in short mode, else all.
func short[T any](cases []T, n int) []T {
	if testing.Short() {
		return cases[:n]
	}
	return cases
}

// TestDataParallel wants the weights, moments, losses and the ledger of a lone rank from several, also where they do not
// divide the batch, or have none of it, at every ZeRO stage; and with several copies of what ZeRO shards.
func TestDataParallel(t *testing.T) {
	for _, precision := range []string{"fp32", "bf16"} {
		sets := []string{"train.steps=5", "train.precision=" + precision}
		want := runOn(t, 1, t.TempDir(), sets...)
		for i, c := range short([]struct{ ranks, shard int }{{4, 2}, {3, 3}, {2, 2}, {9, 9}, {6, 3}, {6, 2}}, 2) {
			for zero := range 4 {
				t.Run(fmt.Sprintf("%s-%d-ranks-shard-%d-zero-%d", precision, c.ranks, c.shard, zero), func(t *testing.T) {
					sets := append(slices.Clone(sets), fmt.Sprint("parallel.zero=", zero), "train.micro_batch=2",
						"parallel.recompute="+[]string{"none", "full", "selective"}[i%3])
					if zero > 0 {
						sets = append(sets, fmt.Sprint("parallel.shard=", c.shard))
					}
					runOn(t, c.ranks, t.TempDir(), sets...).near(t, want, precision)
				})
			}
		}
	}
}

// TestCanonical wants the bits of a lone rank, weights, moments, losses and norms, from any number of ranks, micro-batch
// and ZeRO stage.
func TestCanonical(t *testing.T) {
	for _, model := range []string{"model.tied=false", "model.tied=true"} {
		for _, precision := range []string{"fp32", "bf16"} {
			sets := []string{"train.steps=3", "train.precision=" + precision, "numerics=canonical", model}
			want := runOn(t, 1, t.TempDir(), sets...)
			for i, ranks := range short([]int{1, 2, 3, 4, 5, 9, 16}, 2) {
				micro, zero := 1+i%3, i%4
				name := fmt.Sprintf("%s-%s-%d-ranks-zero-%d-micro-%d", model, precision, ranks, zero, micro)
				t.Run(strings.ReplaceAll(name, "=", "-"), func(t *testing.T) {
					sets := append(slices.Clone(sets), fmt.Sprint("parallel.zero=", zero), fmt.Sprint("train.micro_batch=", micro))
					runOn(t, ranks, t.TempDir(), sets...).equal(t, want)
				})
			}
		}
	}
}

// TestPipeline wants the weights, moments, losses and the ledger of a lone rank from pipelines: close in fast numerics,
// where several pipelines add their gradients in another order, and the same bits in canonical.
func TestPipeline(t *testing.T) {
	for _, numerics := range []string{"fast", "canonical"} {
		sets := []string{"train.steps=3", "train.precision=fp32", "model.layers=5", "numerics=" + numerics}
		want := runOn(t, 1, t.TempDir(), sets...)
		tied := runOn(t, 1, t.TempDir(), append(slices.Clone(sets), "model.tied=true")...)
		for i, c := range short([]struct {
			ranks, stages int
			schedule      string
		}{
			{4, 2, "interleaved"}, {3, 3, "zb-h1"}, {2, 2, "interleaved"}, {5, 5, "1f1b"}, {6, 2, "gpipe"}, {6, 3, "zb-h1"},
			{2, 2, "zb-h1"}, {4, 4, "gpipe"}, {2, 2, "1f1b"},
		}, 2) {
			micro := 1 + i%3
			name := fmt.Sprintf("%s-%d-ranks-%d-stages-%s-micro-%d", numerics, c.ranks, c.stages, c.schedule, micro)
			t.Run(name, func(t *testing.T) {
				recompute := []string{"none", "full", "selective", "none"}[i%4]
				want := want
				if i%3 > 0 {
					want = tied
				}
				got := runOn(t, c.ranks, t.TempDir(), append(slices.Clone(sets), fmt.Sprint("parallel.pipeline=", c.stages),
					"parallel.recompute="+recompute, "parallel.pipeline_schedule="+c.schedule, fmt.Sprint("train.micro_batch=", micro),
					fmt.Sprint("model.tied=", i%3 > 0), fmt.Sprint("parallel.zero=", i%4))...)
				if numerics == "fast" {
					got.near(t, want, "fp32")
				} else {
					got.equal(t, want)
				}
			})
		}
	}
}

// TestTensorParallel wants the weights, moments, losses and the ledger of a lone rank from tensor-parallel ones: with as
// many KV heads, with fewer, with numbers that do not divide, and beside pipelines and data ranks; close in fast numerics,
// the same bits in canonical.
func TestTensorParallel(t *testing.T) {
	for _, numerics := range []string{"fast", "canonical"} {
		for _, precision := range []string{"fp32", "bf16"} {
			sets := []string{
				"train.steps=3", "train.precision=" + precision, "model.heads=6", "model.kv_heads=3", "model.dim=48",
				"model.ffn=65", "model.vocab=259", "numerics=" + numerics,
			}
			want := runOn(t, 1, t.TempDir(), sets...)
			for i, c := range short([]struct{ ranks, tensor, stages int }{
				{4, 2, 2}, {5, 5, 1}, {8, 4, 1}, {10, 5, 1}, {2, 2, 1}, {3, 3, 1}, {6, 6, 1}, {12, 3, 2},
			}, 3) {
				name := fmt.Sprintf("%s-%s-%d-ranks-tensor-%d-stages-%d", numerics, precision, c.ranks, c.tensor, c.stages)
				t.Run(name, func(t *testing.T) {
					got := runOn(t, c.ranks, t.TempDir(), append(slices.Clone(sets), fmt.Sprint("parallel.tensor=", c.tensor),
						fmt.Sprint("parallel.pipeline=", c.stages), "train.micro_batch=2", fmt.Sprint("parallel.zero=", i%4))...)
					if numerics == "fast" {
						got.near(t, want, precision)
					} else {
						got.equal(t, want)
					}
				})
			}
		}
	}
}

// TestContextParallel wants the weights, moments, losses and the ledger of a lone rank from ranks that share the tokens of
// sequences, cut evenly and not: close in fast numerics, the same bits in canonical.
func TestContextParallel(t *testing.T) {
	for _, numerics := range []string{"fast", "canonical"} {
		for _, sets := range short([][]string{
			{"train.precision=bf16", "model.sliding_window=9"}, {"train.precision=fp32"},
			{"train.precision=fp32", "data.document_mask=false", "model.sliding_window=5", "model.tied=true"},
		}, 1) {
			precision := sets[0][len("train.precision="):]
			sets := append(slices.Clone(sets), "train.steps=3", "model.heads=6", "model.kv_heads=3", "model.dim=48",
				"numerics="+numerics)
			want := runOn(t, 1, t.TempDir(), sets...)
			for i, c := range short([]struct{ ranks, context, tensor, stages int }{
				{3, 3, 1, 1}, {8, 2, 2, 2}, {2, 2, 1, 1}, {4, 4, 1, 1}, {6, 3, 1, 1}, {8, 2, 4, 1}, {12, 3, 1, 2},
			}, 2) {
				for _, kind := range []string{"all-gather", "ring"} {
					name := fmt.Sprintf("%s-%s-%s-%d-ranks-context-%d-tensor-%d-stages-%d", numerics, sets[0], kind, c.ranks,
						c.context, c.tensor, c.stages)
					t.Run(strings.ReplaceAll(name, "=", "-"), func(t *testing.T) {
						got := runOn(t, c.ranks, t.TempDir(), append(slices.Clone(sets), fmt.Sprint("parallel.context=", c.context),
							"parallel.context_exchange="+kind, fmt.Sprint("parallel.tensor=", c.tensor),
							fmt.Sprint("parallel.pipeline=", c.stages), "train.micro_batch=2", fmt.Sprint("parallel.zero=", (i+1)%4),
							"parallel.recompute="+[]string{"none", "selective", "full"}[i%3])...)
						if numerics == "fast" {
							got.near(t, want, precision)
						} else {
							got.equal(t, want)
						}
					})
				}
			}
		}
	}
}

// TestRecompute wants the same bits with less memory.
func TestRecompute(t *testing.T) {
	want := runOn(t, 1, t.TempDir(), "train.steps=3")
	last := activationBytes(t, "none")
	for _, recompute := range []string{"selective", "full"} {
		runOn(t, 1, t.TempDir(), "train.steps=3", "parallel.recompute="+recompute).equal(t, want)
		got := activationBytes(t, recompute)
		if got >= last {
			t.Errorf("%s plans %d bytes for activations, what saves more %d", recompute, got, last)
		}
		last = got
	}
}

func activationBytes(t *testing.T, recompute string) int64 {
	t.Helper()
	job := testJob(t, t.TempDir(), "parallel.recompute="+recompute)
	l, err := Layout(job, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, bytes := Plan(job, l, 0).Uses()
	return bytes["activations"] + bytes["workspace"]
}

// TestRanksRepeat wants the same bits from the same layout.
func TestRanksRepeat(t *testing.T) {
	runOn(t, 3, t.TempDir()).equal(t, runOn(t, 3, t.TempDir()))
}

// TestResumeElsewhere stops a job on some ranks and goes on with it on others.
func TestResumeElsewhere(t *testing.T) {
	sets := []string{"train.precision=fp32", "train.steps=9"}
	want := runOn(t, 1, t.TempDir(), sets...)
	out := t.TempDir()
	for i, c := range []struct{ ranks, zero, tensor, stages int }{{4, 1, 2, 1}, {1, 1, 1, 1}, {8, 1, 2, 2}, {4, 0, 4, 1}} {
		job := testJob(t, out, append(slices.Clone(sets), fmt.Sprint("parallel.zero=", c.zero),
			fmt.Sprint("parallel.tensor=", c.tensor), fmt.Sprint("parallel.pipeline=", c.stages))...)
		s := stopAt(fmt.Sprintf("step %d/9", 2*i+1))
		err := Run(t.Context(), job, Options{Out: s, Stop: s.stop, Ranks: c.ranks})
		if exitCodeOf(err) != exitStopped && i < 3 || err != nil && i == 3 && exitCodeOf(err) != exitStopped {
			t.Fatalf("%+v: %v\n%s", c, err, s.log.String())
		}
	}
	runOn(t, 3, out, sets...).near(t, want, "fp32")
}

// TestRankFails wants the run to end with the error of the rank that failed, whoever waits for it.
func TestRankFails(t *testing.T) {
	out := t.TempDir()
	runOn(t, 2, out, "train.steps=3")
	root := filepath.Join(out, checkpoint.Folder)
	head, err := checkpoint.FileCommitter{FS: storage.OS, Root: root}.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), testJob(t, out, "train.steps=4"), Options{
		Out: io.Discard, Ranks: 3, Resume: filepath.Join(root, head.Name+"-missing"),
	})
	if err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("error %v, want one that says that the checkpoint is not found", err)
	}
}

func TestLayoutErrors(t *testing.T) {
	_, err := Layout(testJob(t, t.TempDir(), "parallel.sequence=true"), 2)
	if !errors.Is(err, parallel.ErrLayout) || !strings.Contains(err.Error(), "want tensor above 1") {
		t.Errorf("sequence parallelism without tensor ranks: %v", err)
	}
	job := testJob(t, t.TempDir(), "parallel.data=4")
	err = Run(t.Context(), job, Options{Out: io.Discard, Ranks: 3})
	if !errors.Is(err, parallel.ErrLayout) || exitCodeOf(err) != exitUsage ||
		!strings.Contains(err.Error(), "4 ranks, but there are 3") {
		t.Errorf("data 4 on 3 ranks: exit code %d, %v", exitCodeOf(err), err)
	}
}

// TestPlanOfRanks wants the arena of every rank to be its plan, and each ZeRO stage to keep a share of one use more.
func TestPlanOfRanks(t *testing.T) {
	sharded := map[string]int{"optimizer": 1, "gradients": 2, "weights": 3} // from which stage on
	lone := planned(t, 1, 0, 0)
	for zero := range 4 {
		for rank := range 4 {
			got := planned(t, 4, rank, zero)
			for use, stage := range sharded {
				want := lone[use]
				if zero >= stage {
					want /= 4
				}
				const padding = 4 * 4 * 4 * 64 // elements, of 4 units for 4 ranks
				if got[use] < want || got[use] > want+padding {
					t.Errorf("zero %d: rank %d of 4 plans %d bytes of %s, want %d and a little", zero, rank, got[use], use, want)
				}
			}
		}
	}
}

// TestSequenceParallelPlan wants the norms' inputs, which every rank keeps without sequence parallelism, to be shared out.
func TestSequenceParallelPlan(t *testing.T) {
	sets := []string{"train.precision=fp32", "parallel.tensor=4"}
	n := int64(4 * 32 * (32 + 1) * 4) // of one: 4 sequences of 32 tokens, x [dim] and 1/rms, fp32
	saved := (2*2 + 1) * (n - n/4)    // of 2 layers each two, and the output
	whole, shared := activations(t, sets...), activations(t, append(sets, "parallel.sequence=true")...)
	if got := whole - shared; got != saved {
		t.Errorf("sequence parallelism saves %d bytes of activations, want %d", got, saved)
	}
}

// activations is what rank 0 of 4 plans for them, in bytes.
func activations(t *testing.T, sets ...string) int64 {
	t.Helper()
	job := testJob(t, t.TempDir(), sets...)
	l, err := Layout(job, 4)
	if err != nil {
		t.Fatal(err)
	}
	_, bytes := Plan(job, l, 0).Uses()
	return bytes["activations"]
}

// planned is the memory plan of a rank, in bytes by use.
func planned(t *testing.T, ranks, rank, zero int) map[string]int64 {
	t.Helper()
	job := testJob(t, t.TempDir(), fmt.Sprint("parallel.zero=", zero))
	l, err := Layout(job, ranks)
	if err != nil {
		t.Fatal(err)
	}
	_, bytes := Plan(job, l, rank).Uses()
	return bytes
}

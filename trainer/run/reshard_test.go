package run

import (
	"io"
	"path/filepath"
	"slices"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/trainer/config"
)

// reshardLayouts are those between which a job goes on: uneven data ranks, tensor ranks that are more than the KV heads,
// a vocabulary that none of them divides, every ZeRO stage and pipeline, and both exchanges of context ranks.
var reshardLayouts = []struct {
	ranks int
	sets  []string
}{
	{1, nil},
	{3, []string{"parallel.data=3", "parallel.zero=1"}},
	{2, []string{"parallel.data=2", "parallel.zero=3", "train.micro_batch=2"}},
	{4, []string{"parallel.tensor=4"}}, // of 3 KV heads
	{4, []string{"parallel.tensor=2", "parallel.sequence=true", "parallel.zero=2", "parallel.data=2"}},
	{3, []string{"parallel.pipeline=3", "parallel.pipeline_schedule=zb-h1"}},
	{4, []string{"parallel.pipeline=2", "parallel.pipeline_schedule=interleaved", "parallel.tensor=2"}},
	{6, []string{"parallel.context=3", "parallel.context_exchange=ring", "parallel.data=2", "parallel.zero=3"}},
	{8, []string{"parallel.data=2", "parallel.tensor=2", "parallel.pipeline=2", "parallel.zero=1"}},
}

// TestReshard goes on from each layout at each other one: the tensors of the checkpoint and those after the next step
// have the bits of a lone rank. The embedding is tied or not, by turns.
func TestReshard(t *testing.T) {
	ctx := t.Context()
	pairs := 0
	for _, tied := range short([]string{"false", "true"}, 1) {
		sets := slices.Concat(matrixJob, []string{"numerics=canonical", "model.tied=" + tied, "data.validation.every=100", "schedule.kind=constant", "schedule.warmup_steps=0"})
		on := func(t *testing.T, i int, out string, steps, resume string) {
			l := reshardLayouts[i]
			job := testJob(t, out, slices.Concat(sets, l.sets, []string{"train.steps=" + steps})...)
			o := Options{Out: io.Discard, Resume: resume, Ranks: l.ranks}
			if err := Run(ctx, job, o); err != nil {
				t.Fatal(err)
			}
		}
		var saved []string // after 2 steps, by layout
		for i := range reshardLayouts {
			out := t.TempDir()
			on(t, i, out, "2", "")
			saved = append(saved, out)
		}
		want2 := readOutcome(t, saved[0])
		lone := t.TempDir()
		on(t, 0, lone, "3", "")
		want3 := readOutcome(t, lone)
		for from := range reshardLayouts {
			sameTensors(t, saved[from], want2)
			for to := range reshardLayouts {
				if testing.Short() && (from+to)%4 != 1 || !testing.Short() && (from+to+len(tied))%2 == 0 {
					continue
				}
				pairs++
				out := t.TempDir()
				on(t, to, out, "3", saved[from])
				sameTensors(t, out, want3)
				if t.Failed() {
					t.Fatalf("from %v to %v, tied: %s", reshardLayouts[from], reshardLayouts[to], tied)
				}
			}
		}
	}
	t.Logf("%d pairs", pairs)
	if pairs < 80 && !testing.Short() {
		t.Errorf("%d pairs of layouts, want 80", pairs)
	}
}

// TestReshardFiles cuts a checkpoint for each other layout: its files are those of the layout's writers, its tensors are
// the same, and so is the next step of a run at that layout.
func TestReshardFiles(t *testing.T) {
	ctx := t.Context()
	sets := slices.Concat(matrixJob, []string{"numerics=canonical", "data.validation.every=100", "schedule.kind=constant", "schedule.warmup_steps=0"})
	out := t.TempDir()
	job := testJob(t, out, slices.Concat(sets, []string{"train.steps=2"})...)
	if err := Run(ctx, job, Options{Out: io.Discard}); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(out, checkpoint.Folder)
	c, err := checkpoint.Open(ctx, storage.OS, filepath.Join(root, "step-00000002.gen-1.a-1"))
	if err != nil {
		t.Fatal(err)
	}
	want := readOutcome(t, out)
	for i := 1; i < len(reshardLayouts); i += 3 {
		l := reshardLayouts[i]
		job, err := config.Parse("job", []byte(c.State().Config), l.sets)
		if err != nil {
			t.Fatal(err)
		}
		layout, err := Layout(job, l.ranks)
		if err != nil {
			t.Fatal(err)
		}
		cut := filepath.Join(t.TempDir(), checkpoint.Folder)
		var done, total int64
		ref, err := Reshard(ctx, storage.OS, cut, c, job, layout, func(d, n int64) { done, total = d, n })
		if err == nil {
			err = checkpoint.FileCommitter{FS: storage.OS, Root: cut}.Commit(ctx, ref)
		}
		if err != nil || done != total || done == 0 {
			t.Fatalf("%v: %v, %d of %d bytes", l, err, done, total)
		}
		sameTensors(t, filepath.Dir(cut), want)
		saved := t.TempDir() // what the layout itself saves
		if err := Run(ctx, testJob(t, saved, slices.Concat(sets, l.sets, []string{"train.steps=2"})...),
			Options{Out: io.Discard, Ranks: l.ranks}); err != nil {
			t.Fatal(err)
		}
		own := openHead(t, filepath.Join(saved, checkpoint.Folder))
		got := openHead(t, cut)
		for _, t2 := range own.Tensors() {
			info, _ := got.Info(t2.Name)
			if n := writersOf(info); !slices.Equal(n, writersOf(t2)) {
				t.Errorf("%v: %s lies with writers %v, want %v", l, t2.Name, n, writersOf(t2))
			}
		}
	}
}

func openHead(t *testing.T, root string) *checkpoint.Checkpoint {
	t.Helper()
	head, err := checkpoint.FileCommitter{FS: storage.OS, Root: root}.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(t.Context(), storage.OS, filepath.Join(root, head.Name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sameTensors compares the tensors of the newest checkpoint in an output directory.
func sameTensors(t *testing.T, out string, want outcome) {
	t.Helper()
	c := openHead(t, filepath.Join(out, checkpoint.Folder))
	got := outcome{tensors: map[string][]byte{}, lineage: want.lineage}
	for _, info := range c.Tensors() {
		got.tensors[info.Name] = make([]byte, info.Bytes)
		if err := c.Read(t.Context(), info.Name, got.tensors[info.Name]); err != nil {
			t.Fatal(err)
		}
	}
	got.equal(t, want)
}

// writersOf are the writers of a tensor's slices.
func writersOf(info checkpoint.Info) (list []int) {
	for _, s := range info.Slices {
		list = append(list, s.Writer)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

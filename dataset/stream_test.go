package dataset

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestStreamAgainstPlainRows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		docs := makeDocs(rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(1, 8).Draw(rt, "documents"))
		l := layout{rapid.IntRange(1, 24).Draw(rt, "length"), rapid.IntRange(2, 12).Draw(rt, "windows"),
			rapid.IntRange(1, 5).Draw(rt, "batch")}
		mask := rapid.Bool().Draw(rt, "mask")
		dir := makeDataset(t, l, docs)
		rows := plainRows(docs, l.length, mask)
		o := Options{Sources: []Source{{dir, 1}}, Length: l.length, GlobalBatch: 3, Seed: 5, DocumentMask: mask,
			Order: Order(rapid.IntRange(0, 1).Draw(rt, "order"))}
		s := openTest(t, o)
		for step := range int64(2*len(rows)/3 + 1) {
			b := whole(t, s, 3, step)
			valid := int64(0)
			for i := range b.Seqs {
				if want := step*3 + int64(i); b.Ordinal[i] != want {
					rt.Fatalf("ordinal %d, want %d", b.Ordinal[i], want)
				}
				_, window := s.locate(b.Ordinal[i])
				if o.Order == Sequential && window != b.Ordinal[i]%int64(len(rows)) {
					rt.Fatalf("ordinal %d is window %d in sequential order", b.Ordinal[i], window)
				}
				if got := rowOf(b, i); !reflect.DeepEqual(got, rows[window]) {
					rt.Fatalf("window %d:\n got %v\nwant %v", window, got, rows[window])
				}
			}
			for _, id := range b.Target {
				if id >= 0 {
					valid++
				}
			}
			if n, err := s.Targets(context.Background(), step); err != nil || n != valid {
				rt.Fatalf("step %d: Targets says %d (%v), the batch has %d", step, n, err, valid)
			}
		}
		if m := s.sources[0].manifest; m.Windows != int64(len(rows)) || m.Documents != int64(len(docs)) {
			rt.Fatalf("manifest has %d windows and %d documents, want %d and %d", m.Windows, m.Documents, len(rows), len(docs))
		}
	})
}

func TestEveryWindowOnceAnEpoch(t *testing.T) {
	docs := makeDocs(1, 40)
	dir := makeDataset(t, layout{8, 7, 2}, docs)
	s := openTest(t, Options{Sources: []Source{{dir, 1}}, Length: 8, GlobalBatch: 1, Seed: 3})
	n := s.sources[0].manifest.Windows
	var orders [3][]int64
	for e := range orders {
		seen := make([]bool, n)
		for i := range n {
			_, w := s.locate(int64(e)*n + i)
			if seen[w] {
				t.Fatalf("epoch %d has window %d twice", e, w)
			}
			seen[w] = true
			orders[e] = append(orders[e], w)
		}
	}
	if slices.Equal(orders[0], orders[1]) || slices.Equal(orders[1], orders[2]) || slices.IsSorted(orders[0]) {
		t.Error("epochs have equal or trivial orders")
	}
}

func TestPartsMakeTheWhole(t *testing.T) {
	a, b := makeDataset(t, layout{8, 7, 2}, makeDocs(1, 30)), makeDataset(t, layout{8, 5, 3}, makeDocs(2, 20))
	s := openTest(t, Options{Sources: []Source{{a, 1}, {b, 2}}, Length: 8, GlobalBatch: 12, Seed: 3, DocumentMask: true})
	var got Tokens
	for step := range int64(20) {
		want := whole(t, s, 12, step)
		for _, p := range []Part{{0, 5}, {5, 0}, {5, 7}} {
			if err := s.Batch(context.Background(), step, p, &got); err != nil {
				t.Fatal(err)
			}
			if got.Seqs != p.Count || got.Length != 8 {
				t.Fatalf("part %v has %d sequences of %d", p, got.Seqs, got.Length)
			}
			for i := range p.Count {
				if got.Ordinal[i] != want.Ordinal[p.First+i] || !reflect.DeepEqual(rowOf(&got, i), rowOf(want, p.First+i)) {
					t.Fatalf("step %d: sequence %d of part %v differs from that of the whole batch", step, i, p)
				}
			}
		}
	}
}

func TestBatchReusesMemory(t *testing.T) {
	dir := makeDataset(t, layout{8, 7, 2}, makeDocs(1, 30))
	s := openTest(t, Options{Sources: []Source{{dir, 1}}, Length: 8, GlobalBatch: 4})
	b := whole(t, s, 4, 0)
	input, first := &b.Input[0], &b.First[0]
	for _, n := range []int{2, 4} {
		if err := s.Batch(context.Background(), 1, Part{0, n}, b); err != nil {
			t.Fatal(err)
		}
	}
	if input != &b.Input[0] || first != &b.First[0] {
		t.Error("a batch that fits was put into new memory")
	}
}

func TestConcurrentBatches(t *testing.T) {
	dir := makeDataset(t, layout{16, 5, 2}, makeDocs(1, 60))
	o := Options{Sources: []Source{{dir, 1}}, Length: 16, GlobalBatch: 4, Seed: 9, DocumentMask: true}
	reference, s := openTest(t, o), openTest(t, o)
	var want []*Tokens
	for step := range int64(20) {
		want = append(want, whole(t, reference, 4, step))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for step := range want {
				var got Tokens
				if err := s.Batch(context.Background(), int64(step), Part{0, 4}, &got); err != nil {
					t.Error(err)
				} else if !reflect.DeepEqual(&got, want[step]) {
					t.Errorf("step %d differs", step)
				}
			}
		})
	}
	wg.Wait()
}

func TestDigestCoversOptions(t *testing.T) {
	a, b := makeDataset(t, layout{8, 7, 2}, makeDocs(1, 10)), makeDataset(t, layout{8, 7, 2}, makeDocs(2, 10))
	base := Options{Sources: []Source{{a, 1}, {b, 1}}, Length: 8, GlobalBatch: 4, Seed: 3}
	same := base
	same.Sources = []Source{{copyDir(t, a), 1}, {b, 1}}
	same.Vocab = 500
	if openTest(t, base).Digest() != openTest(t, same).Digest() {
		t.Error("a copy of a dataset changes the digest")
	}
	seen := map[Digest]int{openTest(t, base).Digest(): -1}
	for i, change := range []func(*Options){
		func(o *Options) { o.GlobalBatch = 5 },
		func(o *Options) { o.Seed = 4 },
		func(o *Options) { o.Order = Sequential },
		func(o *Options) { o.DocumentMask = true },
		func(o *Options) { o.Sources = o.Sources[:1] },
		func(o *Options) { o.Sources = []Source{{b, 1}, {a, 1}} },
		func(o *Options) { o.Sources = []Source{{a, 1}, {b, 1.5}} },
	} {
		o := base
		change(&o)
		d := openTest(t, o).Digest()
		if j, dup := seen[d]; dup {
			t.Errorf("changes %d and %d have the same digest", i, j)
		}
		seen[d] = i
	}
}

func TestOpenErrors(t *testing.T) {
	dir := makeDataset(t, layout{8, 7, 2}, makeDocs(1, 10))
	good := Options{Sources: []Source{{dir, 1}}, Length: 8, GlobalBatch: 4, Vocab: 258,
		TokenizerDigest: byteTokenizer{}.Digest()}
	openTest(t, good)
	unfinished := copyDir(t, dir)
	if err := os.Remove(filepath.Join(unfinished, manifestName)); err != nil {
		t.Fatal(err)
	}
	short := copyDir(t, dir)
	if err := os.Truncate(filepath.Join(short, arrowName(0)), 100); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*Options)
		is     error
		want   []string
	}{
		{func(o *Options) { o.Length = 16 }, ErrMismatch,
			[]string{"sequence_length 8, the job has 16", "trainer data prepare", "--sequence-length 16"}},
		{func(o *Options) { o.Vocab = 200 }, ErrMismatch, []string{"258", "200"}},
		{func(o *Options) { o.TokenizerDigest = "blake3:ab" }, ErrMismatch, []string{"blake3:ab", good.TokenizerDigest}},
		{func(o *Options) { o.Sources = []Source{{unfinished, 1}} }, ErrUnfinished, []string{"did not finish"}},
		{func(o *Options) { o.Sources = []Source{{dir + "x", 1}} }, os.ErrNotExist, []string{dir + "x"}},
		{func(o *Options) { o.Sources = []Source{{short, 1}} }, ErrCorrupt, []string{arrowName(0), "100 bytes"}},
		{func(o *Options) { o.Sources = []Source{{dir, 0}} }, nil, []string{"weight 0"}},
		{func(o *Options) { o.Sources = nil }, nil, []string{"no sources"}},
		{func(o *Options) { o.GlobalBatch = 0 }, nil, []string{"global batch 0"}},
		{func(o *Options) { o.Order = 7 }, nil, []string{"order 7"}},
	} {
		o := good
		c.change(&o)
		_, err := Open(o)
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("error %v, want %v", err, c.is)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
		}
	}
}

func TestBatchErrors(t *testing.T) {
	dir := makeDataset(t, layout{8, 7, 2}, makeDocs(1, 10))
	s, err := Open(Options{Sources: []Source{{dir, 1}}, Length: 8, GlobalBatch: 4})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var b Tokens
	for _, c := range []struct {
		step int64
		p    Part
	}{{-1, Part{0, 4}}, {1 << 61, Part{0, 4}}, {0, Part{1, 4}}, {0, Part{-1, 1}}, {0, Part{0, -1}}, {0, Part{5, 0}}} {
		if err := s.Batch(ctx, c.step, c.p, &b); err == nil {
			t.Errorf("step %d, part %v is accepted", c.step, c.p)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Batch(cancelled, 0, Part{0, 1}, &b); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if err := s.Batch(ctx, 0, Part{0, 4}, &b); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := s.Targets(ctx, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// BenchmarkBatch reads global batches of 16 sequences of 1024 tokens in random order.
func BenchmarkBatch(b *testing.B) {
	var docs [][]int32
	for i := range uint64(4) {
		docs = append(docs, makeDocs(i, 20000)...)
	}
	dir := makeDataset(b, layout{1024, 1000, windowsPerBatch(1024)}, docs)
	s := openTest(b, Options{Sources: []Source{{dir, 1}}, Length: 1024, GlobalBatch: 16, DocumentMask: true})
	var t Tokens
	b.SetBytes(16 * 1024 * 4)
	b.ReportAllocs()
	for step := range int64(b.N) {
		if err := s.Batch(context.Background(), step, Part{0, 16}, &t); err != nil {
			b.Fatal(err)
		}
	}
}

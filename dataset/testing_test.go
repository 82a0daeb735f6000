package dataset

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// docs are documents as byte tokens, BOS and EOS included, of 3 to 40 tokens.
func makeDocs(seed uint64, n int) [][]int32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	tok := byteTokenizer{}
	docs := make([][]int32, n)
	for i := range docs {
		docs[i] = []int32{tok.BOS()}
		for range 1 + rng.IntN(38) {
			docs[i] = append(docs[i], int32(rng.IntN(256)))
		}
		docs[i] = append(docs[i], tok.EOS())
	}
	return docs
}

// layout is the shape of a dataset made for a test.
type layout struct{ length, shardWindows, perBatch int }

// makeDataset writes docs as a dataset in a new directory.
func makeDataset(t testing.TB, l layout, docs [][]int32) string {
	t.Helper()
	dir := t.TempDir()
	m := Manifest{
		SequenceLength: l.length,
		Tokenizer:      describe(KindByte, byteTokenizer{}),
		Origin:         Origin{Inputs: []string{"made by a test"}, Output: dir, ShardWindows: l.shardWindows, Split: SplitTrain},
	}
	w, err := newWriter(dir, m, l.shardWindows, func(path string, data []byte) error {
		return os.WriteFile(path, data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.perBatch = l.perBatch
	for _, d := range docs {
		if err := w.add(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.commit(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// plainRow is one sequence, computed from the documents without shards or indexes.
type plainRow struct{ input, target, first []int32 }

// plainRows is what a dataset of docs should give for each window.
func plainRows(docs [][]int32, length int, mask bool) []plainRow {
	var tokens, doc []int32 // and the number of the document that each is in
	for i, d := range docs {
		for _, id := range d {
			tokens, doc = append(tokens, id), append(doc, int32(i))
		}
	}
	real := len(tokens)
	for len(tokens)%(length+1) != 0 {
		tokens, doc = append(tokens, byteTokenizer{}.EOS()), append(doc, -1)
	}
	var rows []plainRow
	for at := 0; at < len(tokens); at += length + 1 {
		r := plainRow{}
		first := 0
		for i := range length {
			p := at + i
			if mask && i > 0 && doc[p] != doc[p-1] {
				first = i
			}
			target := tokens[p+1]
			if p+1 >= real || mask && doc[p+1] != doc[p] {
				target = -1
			}
			r.input, r.target, r.first = append(r.input, tokens[p]), append(r.target, target), append(r.first, int32(first))
		}
		rows = append(rows, r)
	}
	return rows
}

func openTest(t testing.TB, o Options) *stream {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*stream)
}

// whole is the whole global batch of a step.
func whole(t testing.TB, s Stream, batch int, step int64) *Tokens {
	t.Helper()
	var got Tokens
	if err := s.Batch(context.Background(), step, Part{0, batch}, &got); err != nil {
		t.Fatal(err)
	}
	return &got
}

// rowOf is sequence s of a batch.
func rowOf(b *Tokens, s int) plainRow {
	from, to := s*b.Length, (s+1)*b.Length
	return plainRow{b.Input[from:to], b.Target[from:to], b.First[from:to]}
}

func writeFiles(t testing.TB, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// copyDir copies the files of a directory into a new one.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// sampleFiles is a small corpus of n files below a new directory.
func sampleFiles(t testing.TB, n int) string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("d%d/f%03d.txt", i%3, i)] = fmt.Sprintf("file %d\n%s", i, sample[:20+i%40])
	}
	return writeFiles(t, t.TempDir(), files)
}

package dataset

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestInspect(t *testing.T) {
	docs := makeDocs(4, 50)
	dir := makeDataset(t, layout{8, 7, 2}, docs)
	in, err := Inspect(dir, 3, "")
	if err != nil {
		t.Fatal(err)
	}
	low, high, sum := 1<<30, 0, 0
	counts := map[int64]int64{}
	for _, d := range docs {
		low, high, sum = min(low, len(d)), max(high, len(d)), sum+len(d)
		for from := int64(1); from <= 64; from *= 2 {
			if n := int64(len(d)); n >= from && n < 2*from {
				counts[from]++
			}
		}
	}
	l := in.Lengths
	if l.Min != int64(low) || l.Max != int64(high) || l.Mean != float64(sum)/50 {
		t.Errorf("lengths %+v, want %d to %d, mean %v", l, low, high, float64(sum)/50)
	}
	for _, b := range l.Buckets {
		if b.Count != counts[b.From] || b.To != 2*b.From {
			t.Errorf("bucket %+v, want %d documents", b, counts[b.From])
		}
	}
	row := plainRows(docs, 8, true)[3]
	if !reflect.DeepEqual(in.Window.Tokens[:8], row.input) || in.Window.Real != 9 {
		t.Errorf("window %+v, want input %v", in.Window, row.input)
	}
	for _, at := range in.Window.Documents {
		if in.Window.Tokens[at] != (byteTokenizer{}).BOS() {
			t.Errorf("no document begins at %d of %v", at, in.Window.Tokens)
		}
	}
	if _, err := Inspect(dir, in.Manifest.Windows, ""); err == nil || !strings.Contains(err.Error(), "it has windows 0 to") {
		t.Errorf("window behind the end: error %v", err)
	}
}

func TestInspectPrints(t *testing.T) {
	in, err := Inspect(goldenDir, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := in.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"windows         18 of 8 + 1 tokens", "documents       3 of 38 to 76", "32 – 63",
		"documents begin at [0]", bosName + "The quic"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\ndoes not say %q", b.String(), want)
		}
	}
}

func TestInspectNeedsTheRightTokenizer(t *testing.T) {
	o := prepareOptions(t, sampleFiles(t, 20))
	path := filepath.Join(t.TempDir(), "t.model")
	o.TokenizerKind, o.TokenizerPath, o.VocabSize = KindBPE, path, 270
	prepare(t, o)
	if in, err := Inspect(o.Output, 0, ""); err != nil || !strings.HasPrefix(in.Window.Text, bosName+"file 0\nthe cat") {
		t.Errorf("window %+v, error %v", in, err)
	}
	other := path + "x"
	if err := os.WriteFile(other, trainSample(t, 271).File(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(o.Output, 0, other); !errors.Is(err, ErrMismatch) {
		t.Errorf("error %v", err)
	}
}

func TestVerifyNamesAllFaults(t *testing.T) {
	docs := makeDocs(3, 30)
	dir := makeDataset(t, layout{8, 9, 2}, docs)
	report, err := Verify(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if report.Documents != 30 || report.Digest != m.Digest().String() || report.Bytes == 0 {
		t.Errorf("report %+v", report)
	}
	var b bytes.Buffer
	if err := report.Print(&b); err != nil || !strings.Contains(b.String(), "sound") {
		t.Errorf("%q, %v", b.String(), err)
	}
	alter := func(name string, f func([]byte) []byte) {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	alter(indexName(0), func(b []byte) []byte { return b[:len(b)-1] })
	alter(arrowName(1), func(b []byte) []byte {
		x, err := (&shard{dir: dir, number: 1, manifest: m}).readIndex()
		if err != nil {
			t.Fatal(err)
		}
		b[x.batches[2].offset] ^= 1
		return b
	})
	writeFiles(t, dir, map[string]string{"shard-00099.arrow": "left over"})
	if err := os.Remove(filepath.Join(dir, arrowName(2))); err != nil {
		t.Fatal(err)
	}
	report, err = Verify(context.Background(), dir, nil)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v", err)
	}
	var got []string
	for _, f := range report.Faults {
		got = append(got, f.File+" "+f.Part)
	}
	want := []string{"shard-00000.index ", "shard-00001.arrow ", "shard-00001.arrow batch 2", "shard-00002.arrow ",
		"shard-00099.arrow "}
	var without []string
	for _, g := range got {
		if !strings.Contains(g, "position") { // the flipped bit may also have made a special token
			without = append(without, g)
		}
	}
	if !reflect.DeepEqual(without, want) {
		t.Errorf("faults %q, want %q", got, want)
	}
	b.Reset()
	if err := report.Print(&b); err != nil || !strings.Contains(b.String(), "shard-00001.arrow: batch 2: corrupt") {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// Document marks that disagree with the tokens are found although every checksum is right.
func TestVerifyDocumentMarks(t *testing.T) {
	eos := byteTokenizer{}.EOS()
	for _, c := range []struct {
		alter func(docs [][]int32)
		want  string
	}{
		{func(docs [][]int32) { docs[1][0] = 'x' }, "the index says that a document starts here: true"},
		{func(docs [][]int32) { docs[1][1] = 256 }, "the index says that a document starts here: false"},
		{func(docs [][]int32) { docs[1][1] = eos }, "the index starts none behind it"},
	} {
		docs := makeDocs(3, 6)
		c.alter(docs)
		_, err := Verify(context.Background(), makeDataset(t, layout{8, 100, 100}, docs), nil)
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var plain, live bytes.Buffer
		for _, p := range []*Progress{NewProgress(&plain, false), NewProgress(&live, true), nil} {
			p.Start("tokenize", 100e6)
			p.Add(1, 0, 0)
			time.Sleep(10 * time.Second)
			p.Add(2, 20e6, 5e6)
			p.Note("skipped %d", 3)
			p.Add(2, 0, 0)
			time.Sleep(time.Second)
			p.Add(1, 20e6, 5e6)
			p.Clear()
			p.Finish()
		}
		const first = "tokenize: 20.0 of 100.0 MB, 2.0 MB/s, 3 documents, 5.00 M tokens, 0:40 left"
		const second = "tokenize: 40.0 of 100.0 MB, 3.6 MB/s, 6 documents, 10.00 M tokens, 0:16 left"
		const last = "tokenize: 40.0 MB, 3.6 MB/s, 6 documents, 10.00 M tokens, took 11.0 s\n"
		if got, want := plain.String(), first+"\nskipped 3\n"+last; got != want {
			t.Errorf("plain:\n%q, want\n%q", got, want)
		}
		const clear = "\r\x1b[K"
		if got, want := live.String(), clear+first+clear+"skipped 3\n"+clear+second+clear+clear+last; got != want {
			t.Errorf("live:\n%q, want\n%q", got, want)
		}
	})
}

package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// prepareOptions prepares a corpus into directories of the test.
func prepareOptions(t testing.TB, inputs ...string) PrepareOptions {
	dir := t.TempDir()
	return PrepareOptions{
		Inputs: inputs, Output: filepath.Join(dir, "train"), TokenizerKind: KindByte, SequenceLength: 16, ShardWindows: 20,
		Workers: 2,
	}
}

func prepare(t testing.TB, o PrepareOptions) *Prepared {
	t.Helper()
	made, err := Prepare(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// documentsOf decodes the documents of a dataset of the byte tokenizer.
func documentsOf(t testing.TB, dir string) []string {
	t.Helper()
	m, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for w := range m.Windows {
		in, err := Inspect(dir, w, "")
		if err != nil {
			t.Fatal(err)
		}
		text = byteTokenizer{}.Decode(text, in.Window.Tokens[:in.Window.Real])
	}
	docs := strings.Split(string(text), eosName)
	for i := range docs {
		docs[i] = strings.TrimPrefix(docs[i], bosName)
	}
	return docs[:len(docs)-1]
}

func TestPrepareTakesTextFilesInOrder(t *testing.T) {
	in := writeFiles(t, t.TempDir(), map[string]string{
		"b.txt": "bee", "a/z.txt": "zed", "a/a.txt": "ay", "a-b.txt": "hyphen", "empty.txt": "", "nul.txt": "a\x00b",
		"ctrl.txt": "\x01\x02\x03\x04\x05abc", ".hidden.txt": "hidden", ".git/config": "hidden", "c.md": "other kind",
		"latin1.txt": "caf\xe9 au lait",
	})
	if err := os.Symlink(filepath.Join(in, "b.txt"), filepath.Join(in, "link.txt")); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := prepareOptions(t, in)
	o.Include = []string{"*.txt"}
	o.Progress = NewProgress(&log, false)
	made := prepare(t, o)
	want := []string{"hyphen", "ay", "zed", "bee", "caf\xe9 au lait"}
	if got := documentsOf(t, o.Output); !slices.Equal(got, want) {
		t.Errorf("documents %q, want %q", got, want)
	}
	if made.Train.Documents != 5 || made.Train.Origin.Bytes != int64(len(strings.Join(want, ""))) || made.Found {
		t.Errorf("manifest: %+v", made.Train)
	}
	if want := "skipped files: 1 empty, 2 binary, 0 unreadable\n"; !strings.Contains(log.String(), want) {
		t.Errorf("progress %q does not say %q", log.String(), want)
	}
}

func TestPrepareInputs(t *testing.T) {
	in := writeFiles(t, t.TempDir(), map[string]string{"one.txt": "first", "d/two.txt": "second", "d/x/three.txt": "third"})
	o := prepareOptions(t, filepath.Join(in, "one.txt"), "-", filepath.Join(in, "d"), filepath.Join(in, "d", "two.txt"))
	o.Stdin = strings.NewReader("from a pipe")
	o.Include = []string{"two.*", "x/three.txt"}
	prepare(t, o)
	want := []string{"first", "from a pipe", "second", "third"}
	if got := documentsOf(t, o.Output); !slices.Equal(got, want) {
		t.Errorf("documents %q, want %q", got, want)
	}
}

// The same text gives the same datasets, however many workers there are.
func TestPrepareIsDeterministic(t *testing.T) {
	in := sampleFiles(t, 60)
	var first *Prepared
	for _, workers := range []int{1, 4} {
		o := prepareOptions(t, in)
		o.Workers, o.Validation, o.ValidationOutput = workers, 0.3, o.Output+"-val"
		o.TokenizerKind, o.TokenizerPath, o.VocabSize = KindBPE, filepath.Join(o.Output, "..", "tok", "t.model"), 270
		made := prepare(t, o)
		if first == nil {
			first = made
		}
		if made.Train.Digest() != first.Train.Digest() || made.Validation.Digest() != first.Validation.Digest() {
			t.Errorf("%d workers give another dataset", workers)
		}
		if n := made.Train.Documents + made.Validation.Documents; n != 60 {
			t.Errorf("%d documents, want 60", n)
		}
		for _, dir := range []string{o.Output, o.ValidationOutput} {
			if _, err := Verify(context.Background(), dir, nil); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPrepareMaxBytes(t *testing.T) {
	in := sampleFiles(t, 60)
	o := prepareOptions(t, in)
	o.MaxBytes = 1000
	got := prepare(t, o).Train.Origin
	if got.Bytes > 1000 || got.Bytes < 900 {
		t.Errorf("%d bytes of text, want almost 1000", got.Bytes)
	}
	docs := documentsOf(t, o.Output)
	var numbers []string
	for _, d := range docs {
		numbers = append(numbers, d[:strings.IndexByte(d, '\n')])
	}
	if slices.Contains(numbers, "file 0") && slices.Contains(numbers, "file 3") && slices.Contains(numbers, "file 6") &&
		slices.Contains(numbers, "file 9") {
		t.Errorf("documents %q: the first files of the first directory, want a sample", numbers)
	}
	more := prepareOptions(t, in)
	more.MaxBytes = 1500
	prepare(t, more)
	larger := documentsOf(t, more.Output)
	missing := 0
	for _, d := range docs {
		if !slices.Contains(larger, d) {
			missing++
		}
	}
	if missing > 2 { // only the last few of a budget depend on its size
		t.Errorf("a larger budget lacks %d of the %d documents of a smaller one", missing, len(docs))
	}
}

// Copies of a document fall on the same side of the split.
func TestPrepareValidationKeepsCopiesTogether(t *testing.T) {
	files := map[string]string{}
	for i := range 30 {
		text := fmt.Sprintf("this is text number %d", i)
		files[fmt.Sprintf("a%d.txt", i)], files[fmt.Sprintf("b%d.txt", i)] = text, text
	}
	o := prepareOptions(t, writeFiles(t, t.TempDir(), files))
	o.Validation, o.ValidationOutput = 0.4, o.Output+"-val"
	made := prepare(t, o)
	train, val := documentsOf(t, o.Output), documentsOf(t, o.ValidationOutput)
	for _, d := range val {
		if slices.Contains(train, d) {
			t.Errorf("%q is on both sides", d)
		}
	}
	if len(val) < 10 || len(val) > 40 || made.Validation.Origin.Split != SplitValidation {
		t.Errorf("%d of 60 documents set apart, want about 24", len(val))
	}
}

func TestPrepareBadInput(t *testing.T) {
	dir := writeFiles(t, t.TempDir(), map[string]string{
		"empty.txt": "", "nul.bin": "a\x00b", "ok.txt": "some text", "only/nul.bin": "\x00", "only/empty.txt": "",
	})
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	ok := filepath.Join(dir, "ok.txt")
	for _, c := range []struct {
		change func(*PrepareOptions)
		want   string
	}{
		{func(o *PrepareOptions) { o.Inputs = []string{filepath.Join(dir, "none.txt")} }, "none.txt: no such file"},
		{func(o *PrepareOptions) { o.Inputs = []string{filepath.Join(dir, "empty.txt")} }, "empty.txt: the file is empty"},
		{func(o *PrepareOptions) { o.Inputs = []string{filepath.Join(dir, "nul.bin")} }, "a NUL byte at offset 1"},
		{func(o *PrepareOptions) { o.Inputs = []string{filepath.Join(dir, "fifo")} }, "not a file or directory"},
		{func(o *PrepareOptions) { o.Inputs = []string{filepath.Join(dir, "only")} }, "(skipped: 1 empty, 1 binary, 0 unreadable)"},
		{func(o *PrepareOptions) { o.Inputs, o.Include = []string{dir}, []string{"*.go"} }, "only names that match *.go"},
		{func(o *PrepareOptions) { o.MaxBytes = 3 }, "no document fits max-bytes 3, the smallest has 9 bytes"},
		{func(o *PrepareOptions) { o.Inputs, o.Stdin = []string{"-"}, strings.NewReader("") }, "standard input is empty"},
		{func(o *PrepareOptions) {
			o.Inputs, o.Stdin, o.MaxBytes = []string{"-"}, strings.NewReader("long text"), 4
		}, "longer than max-bytes 4"},
		{func(o *PrepareOptions) { o.Inputs, o.Stdin = []string{"-"}, strings.NewReader("\x00") }, "not text"},
		{func(o *PrepareOptions) { o.Validation, o.ValidationOutput = 1e-9, "v" }, "none of the 1 documents"},
		{func(o *PrepareOptions) { o.Validation, o.ValidationOutput = 1-1e-9, "v" }, "all 1 documents"},
		{func(o *PrepareOptions) { o.TokenizerKind, o.TokenizerPath = KindBPE, "t.model" }, "give a vocab-size"},
		{func(o *PrepareOptions) { o.Output = filepath.Join(ok, "below") }, "not a directory"},
		{func(o *PrepareOptions) { o.Inputs = nil }, "no input"},
		{func(o *PrepareOptions) { o.Inputs = []string{"-", "-"} }, "standard input is named 2 times"},
		{func(o *PrepareOptions) { o.Output = "" }, "no output"},
		{func(o *PrepareOptions) { o.Include = []string{"[a"} }, `include pattern "[a"`},
		{func(o *PrepareOptions) { o.MaxBytes = -1 }, "max-bytes -1"},
		{func(o *PrepareOptions) { o.Validation = 1 }, "validation 1"},
		{func(o *PrepareOptions) { o.Validation = 0.1 }, "needs a validation-output"},
		{func(o *PrepareOptions) { o.ValidationOutput = "v" }, "needs a validation fraction"},
		{func(o *PrepareOptions) { o.Validation, o.ValidationOutput = 0.1, o.Output }, "are both"},
		{func(o *PrepareOptions) { o.SequenceLength = 0 }, "sequence-length 0"},
		{func(o *PrepareOptions) { o.Workers = -1 }, "workers -1"},
		{func(o *PrepareOptions) { o.ShardWindows = 1 << 30 }, "shard-windows 1073741824"},
		{func(o *PrepareOptions) { o.TokenizerKind = "word" }, `unknown tokenizer "word"`},
		{func(o *PrepareOptions) { o.TokenizerPath = "t.model" }, "the byte tokenizer has no tokenizer-path"},
		{func(o *PrepareOptions) { o.VocabSize = 300 }, "vocab-size 300, the byte tokenizer has 258"},
		{func(o *PrepareOptions) { o.TokenizerKind = KindBPE }, "needs a tokenizer-path"},
		{func(o *PrepareOptions) { o.TokenizerKind, o.TokenizerPath, o.VocabSize = KindBPE, "t", 100 }, "vocab-size 100"},
	} {
		o := prepareOptions(t, ok)
		c.change(&o)
		_, err := Prepare(context.Background(), o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
		if _, err := os.Stat(filepath.Join(o.Output, manifestName)); o.Output != "" && err == nil {
			t.Errorf("%q: there is a dataset", c.want)
		}
	}
}

func TestPrepareAgain(t *testing.T) {
	in := sampleFiles(t, 20)
	o := prepareOptions(t, in)
	o.Validation, o.ValidationOutput = 0.3, o.Output+"-val"
	o.TokenizerKind, o.TokenizerPath, o.VocabSize = KindBPE, filepath.Join(t.TempDir(), "t.model"), 270
	first := prepare(t, o)
	again := prepare(t, o)
	if !again.Found || again.Train.Digest() != first.Train.Digest() || again.Validation == nil {
		t.Errorf("the second time: %+v", again)
	}
	for _, c := range []struct {
		change func(*PrepareOptions)
		want   string
	}{
		{func(o *PrepareOptions) { o.SequenceLength = 32 }, "sequence-length is 16, asked for 32"},
		{func(o *PrepareOptions) { o.ShardWindows = 5 }, "shard-windows is 20, asked for 5"},
		{func(o *PrepareOptions) { o.MaxBytes = 1 << 20 }, "max-bytes is 0, asked for 1048576"},
		{func(o *PrepareOptions) { o.Validation = 0.4 }, "validation is 0.3, asked for 0.4"},
		{func(o *PrepareOptions) { o.Include = []string{"*.txt"} }, "include is , asked for *.txt"},
		{func(o *PrepareOptions) { o.Inputs = append(o.Inputs, in) }, "inputs is"},
		{func(o *PrepareOptions) { o.TokenizerKind, o.TokenizerPath, o.VocabSize = KindByte, "", 0 },
			"tokenizer is bpe, asked for byte"},
		{func(o *PrepareOptions) { o.TokenizerPath += "x" }, "t.modelx is gone"},
		{func(o *PrepareOptions) { o.Output, o.ValidationOutput = o.ValidationOutput, o.Output },
			"split is validation, asked for train"},
	} {
		other := o
		c.change(&other)
		_, err := Prepare(context.Background(), other)
		if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
	other := o
	other.VocabSize = 300
	if _, err := Prepare(context.Background(), other); err == nil || !strings.Contains(err.Error(), "vocabulary of 270") {
		t.Errorf("another vocabulary size: error %v", err)
	}
	other = o
	other.SequenceLength, other.Force = 400, true // fewer windows and shards
	forced := prepare(t, other)
	if forced.Found || forced.Train.SequenceLength != 400 {
		t.Errorf("forced: %+v", forced.Train)
	}
	if _, err := Verify(context.Background(), o.Output, nil); err != nil {
		t.Error(err)
	}
}

func TestPrepareReplacesDamagedDatasetOnlyByForce(t *testing.T) {
	o := prepareOptions(t, sampleFiles(t, 5))
	want := prepare(t, o).Train.Digest()
	if err := os.Truncate(filepath.Join(o.Output, manifestName), 50); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(context.Background(), o); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("error %v", err)
	}
	o.Force = true
	if got := prepare(t, o); got.Train.Digest() != want {
		t.Error("the replaced dataset differs")
	}
}

// A disk that fills up at any write leaves no dataset and no shard behind.
func TestPrepareFailedWrite(t *testing.T) {
	in := sampleFiles(t, 40)
	for fail := 0; ; fail++ {
		o := prepareOptions(t, in)
		o.Validation, o.ValidationOutput = 0.3, o.Output+"-val"
		if err := o.Validate(); err != nil {
			t.Fatal(err)
		}
		writes := 0
		p := &preparer{o: o, write: func(path string, data []byte) error {
			if writes++; writes > fail {
				return &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
			}
			return os.WriteFile(path, data, 0o644)
		}}
		_, err := p.run(context.Background())
		if err == nil {
			if fail < 8 {
				t.Errorf("only %d writes", fail)
			}
			break
		}
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("write %d fails: error %v", fail, err)
		}
		for _, dir := range []string{o.Output, o.ValidationOutput} {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
				t.Errorf("write %d fails: %s holds %v (%v)", fail, dir, entries, err)
			}
			if _, err := ReadManifest(dir); !errors.Is(err, ErrUnfinished) {
				t.Errorf("write %d fails: error %v", fail, err)
			}
		}
	}
}

func TestPrepareCancelled(t *testing.T) {
	o := prepareOptions(t, sampleFiles(t, 40))
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &preparer{o: o, write: func(path string, data []byte) error {
		cancel()
		return os.WriteFile(path, data, 0o644)
	}}
	if _, err := p.run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := ReadManifest(o.Output); !errors.Is(err, ErrUnfinished) {
		t.Errorf("error %v", err)
	}
}

// What lies in the output directory and is not ours stays there; what an unfinished prepare left does not.
func TestPrepareCleansUp(t *testing.T) {
	o := prepareOptions(t, sampleFiles(t, 5))
	writeFiles(t, o.Output, map[string]string{"notes.txt": "mine", "shard-00007.arrow": "old", "shard-00007.index.tmp": "old"})
	o.Inputs = append(o.Inputs, filepath.Dir(o.Output)) // the output is below an input
	if _, err := Prepare(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(o.Output)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "shard-00007") {
			t.Errorf("%s is still there", e.Name())
		}
	}
	if _, err := os.Stat(filepath.Join(o.Output, "notes.txt")); err != nil {
		t.Error(err)
	}
	if n := len(documentsOf(t, o.Output)); n != 5 {
		t.Errorf("%d documents, want 5: the output was read as input", n)
	}
}

func TestCommandToPrepareAgain(t *testing.T) {
	m := &Manifest{SequenceLength: 8, Tokenizer: TokenizerInfo{Kind: KindBPE}, Origin: Origin{
		Inputs: []string{"my text", "-"}, Include: []string{"*.go", "it's"}, MaxBytes: 5, Output: "out", Validation: 0.05,
		ValidationOutput: "val", TokenizerPath: "t.model",
	}}
	const want = `trainer data prepare --output out --sequence-length 16 --tokenizer bpe --tokenizer-path t.model ` +
		`--include '*.go' --include 'it'\''s' --max-bytes 5 --validation 0.05 --validation-output val --force 'my text' -`
	if got := m.command(16); got != want {
		t.Errorf("command\n%s, want\n%s", got, want)
	}
}

package dataset

import (
	"context"
	"errors"
	"go/build"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func split(text string) []string {
	var out []string
	for len(text) > 0 {
		n := splitPiece([]byte(text))
		out = append(out, text[:n])
		text = text[n:]
	}
	return out
}

// Each case is derived by hand from the pattern; those marked so are the pieces of known token sequences of Llama 3.
func TestSplit(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"Hello world", []string{"Hello", " world"}},                           // [9906 1917]
		{"Hello, world!", []string{"Hello", ",", " world", "!"}},               // [9906 11 1917 0]
		{"  leading", []string{" ", " leading"}},                               // [220 6522]
		{"a\n\n b", []string{"a", "\n\n", " b"}},                               // [64 271 293]
		{"12345", []string{"123", "45"}},                                       // [4513 1774]
		{"I'll DON'T", []string{"I", "'ll", " DON", "'T"}},                     // [40 3358 45373 17773]
		{"你好，世界", []string{"你好", "，世界"}},                                       // [57668 53901 3922 102616]
		{" \n", []string{" \n"}},                                               // [720]
		{"tab\tx  y   \n z", []string{"tab", "\tx", " ", " y", "   \n", " z"}}, // [6323 10436 220 379 5996 1167]
		{"🙂", []string{"🙂"}},                                                   // [9468 19044]
		{"This is a test sentence.", []string{"This", " is", " a", " test", " sentence", "."}},
		{"", nil},
		{"it's 'twas 're 'LL'D", []string{"it", "'s", " '", "twas", " '", "re", " '", "LL", "'D"}},
		{"x'ſy", []string{"x", "'ſ", "y"}},   // the long s folds to s
		{"x'ks", []string{"x", "'ks"}},       // no contraction: the quote goes with the letters
		{"'r 'v", []string{"'r", " '", "v"}}, // cut short: no contraction
		{"a!!b", []string{"a", "!!", "b"}},
		{"a!b", []string{"a", "!b"}},
		{" !?\r\n\nx", []string{" !?\r\n\n", "x"}},
		{"\t!", []string{"\t", "!"}}, // only a blank goes with symbols
		{"x \t\n \n\t y", []string{"x", " \t\n \n", "\t", " y"}},
		{"\r\nfoo", []string{"\r\n", "foo"}},
		{"\nfoo", []string{"\n", "foo"}},
		{"a   ", []string{"a", "   "}},
		{"a  1", []string{"a", " ", " ", "1"}},
		{"a 1", []string{"a", " ", "1"}},
		{"½Ⅷ٣४5", []string{"½Ⅷ٣", "४5"}}, // numbers are No, Nl and Nd
		{"a\u00a0b\u2003\u3000c", []string{"a", "\u00a0b", "\u2003", "\u3000c"}},
		{"a\u0085\u0085b", []string{"a", "\u0085", "\u0085b"}}, // NEL is a space and no line end
		{"e\u0301x", []string{"e", "\u0301x"}},                 // a combining mark is a symbol
		{"\xff\xfea\xe4\xbd", []string{"\xff\xfe", "a", "\xe4\xbd"}},
		{"\u200bx\u180ey", []string{"\u200bx", "\u180ey"}}, // zero-width and Mongolian separators are no spaces
	} {
		if got := split(c.text); !reflect.DeepEqual(got, c.want) {
			t.Errorf("split(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

// splitSlow tries the alternatives of the pattern in order, as a backtracking engine would.
func splitSlow(s []rune) int {
	class := func(i int) charClass {
		if i >= len(s) {
			return 255
		}
		return classOf(s[i])
	}
	is := func(i int, classes ...charClass) bool {
		for _, c := range classes {
			if class(i) == c {
				return true
			}
		}
		return false
	}
	many := func(i int, classes ...charClass) int {
		for is(i, classes...) {
			i++
		}
		return i
	}
	for _, c := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		n := len([]rune(c))
		if n <= len(s) && strings.EqualFold(string(s[:n]), c) {
			return n
		}
	}
	if is(0, classSymbol, classSpace) && is(1, classLetter) {
		return many(1, classLetter)
	}
	if n := many(0, classLetter); n > 0 {
		return n
	}
	if n := many(0, classNumber); n > 0 {
		return min(n, 3)
	}
	for _, from := range []int{1, 0} {
		if from == 1 && s[0] != ' ' {
			continue
		}
		if n := many(from, classSymbol); n > from {
			return many(n, classNewline)
		}
	}
	end := many(0, classSpace, classNewline)
	for n := end; n > 0; n-- {
		if is(n-1, classNewline) {
			return n
		}
	}
	for n := end; n > 0; n-- {
		if n == len(s) || is(n, classSpace, classNewline) {
			return n
		}
	}
	return end
}

func TestSplitAgainstBacktracking(t *testing.T) {
	alphabet := []rune("'sStTrReEvVmMlLdDſ aé你1٣½!。\t\n\r\u0085\u3000\u0301🙂")
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SliceOfN(rapid.SampledFrom(alphabet), 1, 40).Draw(t, "text")
		for len(s) > 0 {
			want := splitSlow(s)
			got := splitPiece([]byte(string(s)))
			if got != len(string(s[:want])) {
				t.Fatalf("splitPiece(%q) = %d, want %q", string(s), got, string(s[:want]))
			}
			s = s[want:]
		}
	})
}

func texts(docs ...string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, d := range docs {
			if !yield([]byte(d), nil) {
				return
			}
		}
	}
}

const sample = "the cat sat on the mat; the cat's hat is that cat's hat. 你好 你好 \xff\xfe\x00 the end\n\n\n\tthe\n"

func trainSample(t testing.TB, vocab int) *BPE {
	t.Helper()
	b, err := TrainBPE(context.Background(), texts(sample, strings.Repeat(sample, 3)), vocab, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTrainBPE(t *testing.T) {
	b := trainSample(t, 290)
	if b.Vocab() != 290 || b.BOS() != 288 || b.EOS() != 289 {
		t.Errorf("vocab %d, bos %d, eos %d", b.Vocab(), b.BOS(), b.EOS())
	}
	// "at" is in cat, sat, mat, cat, hat, that, cat and hat: 8 times, more than any other pair.
	if b.tokens[256] != "at" {
		t.Errorf("first merge %q, want %q", b.tokens[256], "at")
	}
	if got := trainSample(t, 290).Digest(); got != b.Digest() {
		t.Errorf("training twice gives %s and %s", b.Digest(), got)
	}
	back, err := ParseBPE(b.File())
	if err != nil {
		t.Fatal(err)
	}
	if back.Digest() != b.Digest() {
		t.Error("the file does not give the tokenizer back")
	}
}

func TestTrainBPEErrors(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		vocab int
		text  string
		want  string
	}{
		{257, sample, "vocabulary size 257, want 258"},
		{1000, "abab", "at most 259"},
	} {
		if _, err := TrainBPE(ctx, texts(c.text), c.vocab, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("vocab %d: error %v, want %q", c.vocab, err, c.want)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := TrainBPE(cancelled, texts(sample), 260, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// trainSlow counts all pairs again before each merge.
func trainSlow(pieces map[string]int64, vocab int) []string {
	tokens := newPairTable(nil).tokens
	words := map[string][]string{}
	for p := range pieces {
		for i := range len(p) {
			words[p] = append(words[p], p[i:i+1])
		}
	}
	for len(tokens) < vocab-2 {
		rank := map[string]int{}
		for i, s := range tokens {
			rank[s] = i
		}
		counts := map[[2]string]int64{}
		for p, w := range words {
			for i := range len(w) - 1 {
				counts[[2]string{w[i], w[i+1]}] += pieces[p]
			}
		}
		var best [2]string
		for p, n := range counts {
			m := counts[best]
			if n > m || n == m && (rank[p[0]] < rank[best[0]] || p[0] == best[0] && rank[p[1]] < rank[best[1]]) {
				best = p
			}
		}
		if counts[best] < 2 {
			break
		}
		token := best[0] + best[1]
		if _, known := rank[token]; !known {
			tokens = append(tokens, token)
		}
		for p, w := range words {
			var out []string
			for i := 0; i < len(w); i++ {
				if i+1 < len(w) && w[i] == best[0] && w[i+1] == best[1] {
					out = append(out, token)
					i++
				} else {
					out = append(out, w[i])
				}
			}
			words[p] = out
		}
	}
	return tokens
}

func TestTrainBPEAgainstRecount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		docs := rapid.SliceOfN(rapid.StringOfN(rapid.SampledFrom([]rune("aab c")), 1, 60, -1), 1, 8).Draw(t, "docs")
		pieces := map[string]int64{}
		for _, d := range docs {
			countPieces(pieces, []byte(d))
		}
		want := trainSlow(pieces, 300)
		got, err := TrainBPE(context.Background(), texts(docs...), len(want)+2, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.tokens, want) {
			t.Fatalf("tokens %q, want %q", got.tokens[256:], want[256:])
		}
	})
}

// mergeSlow merges the pair of lowest rank, the leftmost of equals, until none is a token.
func mergeSlow(b *BPE, piece string) []int32 {
	if id, ok := b.ranks[piece]; ok {
		return []int32{id}
	}
	var parts []string
	for i := range len(piece) {
		parts = append(parts, piece[i:i+1])
	}
	for {
		best, at := int32(-1), 0
		for i := range len(parts) - 1 {
			if r, ok := b.ranks[parts[i]+parts[i+1]]; ok && (best < 0 || r < best) {
				best, at = r, i
			}
		}
		if best < 0 {
			break
		}
		parts = append(append(append([]string{}, parts[:at]...), parts[at]+parts[at+1]), parts[at+2:]...)
	}
	var ids []int32
	for _, p := range parts {
		ids = append(ids, b.ranks[p])
	}
	return ids
}

func TestEncodeAgainstSlowMerge(t *testing.T) {
	b := trainSample(t, 292)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.SampledFrom([]rune("thecats  '\n你好!")), 0, 200, -1).Draw(t, "text")
		var want []int32
		for _, p := range split(text) {
			want = append(want, mergeSlow(b, p)...)
		}
		for range 2 { // the second time from the cache
			if got := b.Encode(nil, []byte(text)); !reflect.DeepEqual(got, want) {
				t.Fatalf("Encode(%q) = %v, want %v", text, got, want)
			}
		}
	})
}

func TestRoundTrip(t *testing.T) {
	for _, tok := range []Tokenizer{byteTokenizer{}, trainSample(t, 290)} {
		rapid.Check(t, func(t *rapid.T) {
			text := rapid.SliceOf(rapid.Byte()).Draw(t, "text")
			ids := tok.Encode([]int32{7}, text)
			if got := tok.Decode([]byte("x"), ids[1:]); string(got) != "x"+string(text) {
				t.Fatalf("round trip of %q gives %q", text, got)
			}
			for _, id := range ids {
				if id < 0 || int(id) >= tok.Vocab() || id == tok.BOS() || id == tok.EOS() {
					t.Fatalf("id %d of %q is no text token", id, text)
				}
			}
		})
		if got := string(tok.Decode(nil, []int32{tok.BOS(), 'a', tok.EOS(), -1, int32(tok.Vocab())})); got !=
			"<|begin_of_text|>a<|end_of_text|>\uFFFD\uFFFD" {
			t.Errorf("special tokens decode to %q", got)
		}
	}
}

func TestLongPiece(t *testing.T) {
	b := trainSample(t, 290)
	text := strings.Repeat("that", longestPiece/4+10)
	ids := b.Encode(nil, []byte(text))
	if got := string(b.Decode(nil, ids)); got != text {
		t.Error("a long piece does not round-trip")
	}
	if len(ids) > len(text)/2 {
		t.Errorf("%d tokens for %d bytes", len(ids), len(text))
	}
}

func TestParseBPEErrors(t *testing.T) {
	good := string(trainSample(t, 259).File())
	line := func(n int, with string) string {
		lines := strings.SplitAfter(good, "\n")
		lines[n-1] = with
		return strings.Join(lines, "")
	}
	for _, c := range []struct{ file, want string }{
		{"", "line 1: "},
		{line(3, "Ag==\n"), "line 3: "},
		{line(3, "A?== 2\n"), "line 3: "},
		{line(3, "Ah== 2\n"), "line 3: "}, // bits set in the padding
		{line(3, " 2\n"), "line 3: "},
		{line(3, "Ag== 3\n"), `line 3: corrupt data: rank "3", want 2`},
		{line(3, "Ag== 02\n"), "line 3: "},
		{line(3, "Ag== 2\r\n"), "line 3: "},
		{line(3, "\n"), "line 3: "},
		{line(3, "AA== 2\n"), `line 3: corrupt data: token "\x00" has rank 0 already`},
		{line(256, "YWI= 255\n"), "byte 0xff is no token"},
		{good + "\n", "line 258: "},
	} {
		_, err := ParseBPE([]byte(c.file))
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

func TestOpenTokenizer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokenizer.model")
	b := trainSample(t, 270)
	if err := os.WriteFile(path, b.File(), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := OpenTokenizer(KindBPE, path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != b.Digest() {
		t.Errorf("digest %s, want %s", got.Digest(), b.Digest())
	}
	if got, err := OpenTokenizer(KindByte, ""); err != nil || got.Vocab() != 258 {
		t.Errorf("byte tokenizer: %v, %v", got, err)
	}
	for _, c := range []struct{ kind, path, want string }{
		{KindByte, path, "no file"},
		{KindBPE, "", "needs the path"},
		{KindBPE, path + ".none", "no such file"},
		{"word", "", `unknown tokenizer kind "word"`},
	} {
		if _, err := OpenTokenizer(c.kind, c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: error %v, want %q", c.kind, c.path, err, c.want)
		}
	}
}

// BenchmarkEncode tokenizes Go's own source text with a vocabulary of 1024.
func BenchmarkEncode(b *testing.B) {
	text, tok := goSource(b)
	b.SetBytes(int64(len(text)))
	b.ResetTimer()
	var ids []int32
	for range b.N {
		ids = tok.Encode(ids[:0], text)
	}
	b.ReportMetric(float64(len(text))/float64(len(ids)), "bytes/token")
}

// BenchmarkTrainBPE learns a vocabulary of 1024 from Go's own source text.
func BenchmarkTrainBPE(b *testing.B) {
	text, _ := goSource(b)
	b.SetBytes(int64(len(text)))
	b.ResetTimer()
	for range b.N {
		if _, err := TrainBPE(context.Background(), texts(string(text)), 1024, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func goSource(b *testing.B) ([]byte, *BPE) {
	paths, err := filepath.Glob(filepath.Join(build.Default.GOROOT, "src", "net", "http", "*.go"))
	if err != nil || len(paths) == 0 {
		b.Skip("needs the source of Go's standard library")
	}
	var text []byte
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			b.Fatal(err)
		}
		text = append(text, data...)
	}
	tok, err := TrainBPE(context.Background(), texts(string(text)), 1024, nil)
	if err != nil {
		b.Fatal(err)
	}
	return text, tok
}

package dataset

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

func seedFiles(f *testing.F, pattern string) {
	paths, err := filepath.Glob(filepath.Join(goldenDir, pattern))
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// FuzzIndex: an index is refused, or is exactly what its parts encode to and can be used.
func FuzzIndex(f *testing.F) {
	seedFiles(f, "*.index")
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, sealIndex(data)} {
			x, err := parseIndex(data)
			if err != nil {
				continue
			}
			if !bytes.Equal(x.encode(), data) {
				t.Fatal("a parsed index encodes to other bytes")
			}
			for w := range min(x.windows, 100) {
				if n := x.validTargets(w, true); n < 0 || n > x.validTargets(w, false) || n > x.length {
					t.Fatalf("window %d has %d valid targets of %d", w, n, x.length)
				}
			}
		}
	})
}

// FuzzManifest: a manifest is refused, or can be written again and read back.
func FuzzManifest(f *testing.F) {
	seedFiles(f, manifestName)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, sealManifest(data)} {
			m, err := parseManifest(data)
			if err != nil {
				continue
			}
			again, err := m.encode()
			if err != nil {
				t.Fatal(err)
			}
			back, err := parseManifest(again)
			if err != nil {
				t.Fatal(err)
			}
			if back.Digest() != m.Digest() {
				t.Fatal("a manifest that was written again has another digest")
			}
		}
	})
}

// FuzzTokenizerFile: a rank file is refused, or gives itself back and a tokenizer that loses nothing.
func FuzzTokenizerFile(f *testing.F) {
	f.Add(trainSample(f, 290).File())
	f.Add(trainSample(f, 258).File())
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := ParseBPE(data)
		if err != nil {
			return
		}
		if !bytes.Equal(bytes.TrimSuffix(tok.File(), []byte("\n")), bytes.TrimSuffix(data, []byte("\n"))) {
			t.Fatal("a parsed rank file is written as other bytes")
		}
		if got := tok.Decode(nil, tok.Encode(nil, []byte(sample))); string(got) != sample {
			t.Fatalf("round trip gives %q", got)
		}
	})
}

// FuzzSplit: the pieces are those of a backtracking engine, and text survives tokenization.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{sample, "I'll DON'T 12345 \t\n\r\n  x", "a\u0085 \u3000'ſ½Ⅷ", "\xff\xe4\xbd you"} {
		f.Add([]byte(s))
	}
	tok := trainSample(f, 290)
	f.Fuzz(func(t *testing.T, text []byte) {
		if got := tok.Decode(nil, tok.Encode(nil, text)); !bytes.Equal(got, text) {
			t.Fatalf("round trip of %q gives %q", text, got)
		}
		if len(text) > 200 {
			return
		}
		for rest := text; len(rest) > 0; {
			n := splitPiece(rest)
			if utf8.Valid(rest) {
				runes := []rune(string(rest))
				if want := len(string(runes[:splitSlow(runes)])); n != want {
					t.Fatalf("first piece of %q has %d bytes, want %d", rest, n, want)
				}
			}
			rest = rest[n:]
		}
	})
}

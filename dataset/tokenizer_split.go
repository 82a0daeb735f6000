package dataset

import (
	"unicode"
	"unicode/utf8"
)

// splitPiece is the length in bytes of the first piece of text, at least 1 when text is not empty. The pieces are those
// of the pattern of Llama 3's tokenizer,
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//
// which Go's regexp cannot run (it has no lookahead, and its \s is ASCII only). A byte that is not valid UTF-8 counts
// as a symbol of its own. Letters, numbers and spaces are those of the Unicode version of package unicode. The limits
// that Meta's own loader puts before the pattern (400,000 characters a call, 25,000 spaces or non-spaces in a row) are
// not applied.
func splitPiece(text []byte) int {
	class, width := classify(text)
	if text[0] == '\'' {
		if n := contraction(text); n > 0 {
			return n
		}
	}
	switch class {
	case classLetter:
		return width + run(text[width:], classLetter)
	case classNumber:
		for n := 1; n < 3 && width < len(text); n++ {
			c, w := classify(text[width:])
			if c != classNumber {
				break
			}
			width += w
		}
		return width
	}
	// A symbol, or a space other than a line end, goes with the letters that follow it.
	if width < len(text) && class != classNewline {
		if n := run(text[width:], classLetter); n > 0 {
			return width + n
		}
	}
	symbols := 0
	switch {
	case class == classSymbol:
		symbols = width + run(text[width:], classSymbol)
	case text[0] == ' ':
		if n := run(text[1:], classSymbol); n > 0 {
			symbols = 1 + n
		}
	}
	if symbols > 0 {
		return symbols + run(text[symbols:], classNewline)
	}
	return splitSpaces(text)
}

// splitSpaces is the length of the piece at a run of spaces: up to the last line end of the run if there is one;
// otherwise the run without its last space, which belongs to what follows, or the whole run at the end of text or when
// it is a single space.
func splitSpaces(text []byte) int {
	end, last, line := 0, 0, 0
	for end < len(text) {
		class, width := classify(text[end:])
		if class != classSpace && class != classNewline {
			break
		}
		last, end = end, end+width
		if class == classNewline {
			line = end
		}
	}
	switch {
	case line > 0:
		return line
	case end == len(text) || last == 0:
		return end
	}
	return last
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd in any case at the start of text, or 0. Case folding is
// Unicode's: the long s (U+017F) is an s.
func contraction(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] | 0x20 {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if len(text) > 2 && text[2]|0x20 == 'e' {
			return 3
		}
	case 'l':
		if len(text) > 2 && text[2]|0x20 == 'l' {
			return 3
		}
	}
	if r, n := utf8.DecodeRune(text[1:]); r == 'ſ' {
		return 1 + n
	}
	return 0
}

// run is the length of the longest prefix of text whose characters are all of one class.
func run(text []byte, class charClass) int {
	n := 0
	for n < len(text) {
		c, width := classify(text[n:])
		if c != class {
			break
		}
		n += width
	}
	return n
}

// charClass is what the pattern distinguishes.
type charClass uint8

const (
	classSymbol  charClass = iota // [^\s\p{L}\p{N}]
	classLetter                   // \p{L}
	classNumber                   // \p{N}
	classSpace                    // \s but \r and \n
	classNewline                  // [\r\n]
)

var asciiClass = func() (t [utf8.RuneSelf]charClass) {
	for c := range t {
		t[c] = classOf(rune(c))
	}
	return t
}()

// classify is the class and the length in bytes of the first character of text, which must not be empty.
func classify(text []byte) (charClass, int) {
	if c := text[0]; c < utf8.RuneSelf {
		return asciiClass[c], 1
	}
	r, width := utf8.DecodeRune(text)
	return classOf(r), width
}

func classOf(r rune) charClass {
	switch {
	case r == '\r' || r == '\n':
		return classNewline
	case unicode.Is(unicode.L, r):
		return classLetter
	case unicode.Is(unicode.N, r):
		return classNumber
	case unicode.Is(unicode.White_Space, r):
		return classSpace
	}
	return classSymbol
}

package run

import (
	"debug/elf"
	"path"
)

// buildID is what the Go linker calls this binary, the same text for the same code; "unknown" if it has none.
func buildID() string {
	const unknown = "unknown"
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return unknown
	}
	defer f.Close()
	note := f.Section(".note.go.buildid")
	if note == nil {
		return unknown
	}
	b, err := note.Data() // sizes of name and text, type; the name "Go", padded to 4 bytes; the text
	if err != nil || len(b) < 16 {
		return unknown
	}
	n := int(f.ByteOrder.Uint32(b[4:]))
	if n < 0 || 16+n > len(b) {
		return unknown
	}
	return path.Base(string(b[16 : 16+n])) // the part for the whole binary
}

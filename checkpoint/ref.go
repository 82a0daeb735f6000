package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// Ref names a sealed checkpoint by directory and content, and where to look if it should turn out damaged. The zero
// Ref names none.
type Ref struct {
	Name      string   `json:"name"`                // of the directory
	Manifest  Digest   `json:"manifest"`            // of the manifest file, which holds those of the other files
	Ancestors []string `json:"ancestors,omitempty"` // parent first, at most 8
}

const maxAncestors = 8

func (r Ref) check() error {
	if len(r.Ancestors) > maxAncestors {
		return fmt.Errorf("%d ancestors, want at most %d", len(r.Ancestors), maxAncestors)
	}
	for _, name := range append([]string{r.Name}, r.Ancestors...) {
		if _, ok := parseID(name); !ok {
			return fmt.Errorf("%.60q is no name of a checkpoint", name)
		}
	}
	return nil
}

// lineage is the ancestors of a checkpoint whose parent is r.
func (r Ref) lineage() []string {
	if r.Name == "" {
		return nil
	}
	return slices.Concat([]string{r.Name}, r.Ancestors[:min(len(r.Ancestors), maxAncestors-1)])
}

const (
	latestVersion = 1
	latestTitle   = "herd-latest "
	latestCRC     = "crc32c "
	maxLatest     = 4 << 10
)

// Encode is the content of a file `latest` that names r.
func (r Ref) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b := fmt.Appendf(nil, "%s%d\nname %s\nmanifest %v\n", latestTitle, latestVersion, r.Name, r.Manifest)
	for _, a := range r.Ancestors {
		b = fmt.Appendf(b, "ancestor %s\n", a)
	}
	return fmt.Appendf(b, "%s%08x\n", latestCRC, crc32.Checksum(b, castagnoli)), nil
}

// DecodeRef accepts what Encode writes, to the byte. An undamaged text of a later version gives ErrVersion.
func DecodeRef(text []byte) (Ref, error) {
	end := bytes.LastIndex(text, []byte("\n"+latestCRC)) + 1
	if end == 0 || len(text) > maxLatest {
		return Ref{}, errors.New("it does not end in a line with its crc32c")
	}
	body := text[:end]
	if want := fmt.Sprintf("%s%08x\n", latestCRC, crc32.Checksum(body, castagnoli)); string(text[end:]) != want {
		return Ref{}, fmt.Errorf("it ends with %q, want %q", text[end:], want)
	}
	lines := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	var v int
	if n, _ := fmt.Sscanf(lines[0], latestTitle+"%d", &v); n == 1 && v > latestVersion {
		return Ref{}, fmt.Errorf("version %d, this build knows %d: %w", v, latestVersion, ErrVersion)
	}
	var got Ref
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "name":
			got.Name = value
		case "manifest":
			if err := got.Manifest.UnmarshalText([]byte(value)); err != nil {
				return Ref{}, err
			}
		case "ancestor":
			got.Ancestors = append(got.Ancestors, value)
		default:
			return Ref{}, fmt.Errorf("unknown line %q", line)
		}
	}
	again, err := got.Encode()
	if err != nil {
		return Ref{}, err
	}
	if !bytes.Equal(again, text) {
		return Ref{}, errors.New("its lines are not in their order")
	}
	return got, nil
}

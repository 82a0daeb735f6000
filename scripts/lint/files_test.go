package lint

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const maxLines = 700

// emptyWords say nothing about what a package or file holds.
var emptyWords = regexp.MustCompile(`(^|_)(helpers?|utils?|common|misc|stuff|manager)($|_)`)

func TestPackageComments(t *testing.T) {
	names, comments := map[string]string{}, map[string][]string{} // by folder
	for _, s := range sources(t) {
		if s.generated() || strings.HasSuffix(s.file.Name.Name, "_test") {
			continue
		}
		names[s.dir] = s.file.Name.Name
		if s.file.Doc != nil && s.file.Doc.Text() != "" { // build tags have no text
			comments[s.dir] = append(comments[s.dir], s.file.Doc.Text())
		}
	}
	for dir, name := range names {
		want := "Package " + name + " "
		if base := path.Base(dir); name == "main" {
			want = strings.ToUpper(base[:1]) + base[1:] + " "
		}
		if n := len(comments[dir]); n != 1 {
			t.Errorf("package %s in %s has %d package comments, want one", name, dir, n)
		} else if !strings.HasPrefix(comments[dir][0], want) {
			t.Errorf("package %s in %s: its comment starts %.30q, want %q", name, dir, comments[dir][0], want)
		}
	}
}

func TestFileSizes(t *testing.T) {
	for _, s := range sources(t) {
		if n := strings.Count(s.text, "\n"); n > maxLines && !s.generated() {
			t.Errorf("%s has %d lines, want at most %d: split it by what a reader would look for", s.path, n, maxLines)
		}
	}
}

func TestNames(t *testing.T) {
	for _, s := range sources(t) {
		file := strings.TrimSuffix(path.Base(s.path), ".go")
		for _, name := range []string{file, path.Base(s.dir), s.file.Name.Name} {
			if word := emptyWords.FindString(name); word != "" {
				t.Errorf("%s: %q says nothing: name what is inside", s.path, word)
			}
		}
	}
}

// TestModule: a replace directive breaks 'go install' for everybody else.
func TestModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "module "+module+"\n") {
		t.Errorf("go.mod is not of module %s", module)
	}
	if line := regexp.MustCompile(`(?m)^\s*(replace|exclude)\b.*`).FindString(string(text)); line != "" {
		t.Errorf("go.mod: %q: want none", line)
	}
}

package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const (
	module = "github.com/herdtrain/herd"
	root   = "../.."
)

// source is a Go file of the module.
type source struct {
	path string // from the module's root, with slashes
	dir  string
	file *ast.File // package clause, imports and comments
	text string
}

func (s *source) generated() bool { return ast.IsGenerated(s.file) }

// imports are the paths that the file imports; those of the module without its prefix, such as "/tensor/cpu".
func (s *source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		paths = append(paths, strings.TrimPrefix(strings.Trim(spec.Path.Value, `"`), module))
	}
	return paths
}

// sources are all Go files of the module, of every platform and build tag.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if base := path.Base(rel); base == "testdata" || len(base) > 1 && base[0] == '.' || rel == "runs" || rel == "dist" {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(rel) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), rel, text, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{rel, path.Dir(rel), file, string(text)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d Go files under %s", len(all), root)
	}
	return all
}

// within says whether dir is parent or lies under it.
func within(dir, parent string) bool { return dir == parent || strings.HasPrefix(dir, parent+"/") }

package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The ground floor knows nothing of the house; the middle packages know the ground floor and not each other.
var ground = []string{"tensor", "storage", "proto"}

// mayImport lists, for each folder, the folders of this module that it may import, besides its own. Folders under one
// of a list are meant too. The longest folder that holds a package counts.
var mayImport = map[string][]string{
	"tensor":            {},
	"storage":           {},
	"proto":             {},
	"coordinator":       ground,
	"collective":        ground,
	"dataset":           ground,
	"checkpoint":        ground,
	"trainer":           {"coordinator", "collective", "dataset", "checkpoint", "tensor", "storage", "proto"},
	"trainer/bench":     {"checkpoint", "storage", "tensor", "trainer/config", "trainer/llama", "trainer/optim", "trainer/telemetry"},
	"trainer/config":    {"trainer/llama"}, // presets are the model's shapes
	"trainer/llama":     ground,
	"trainer/optim":     {"tensor", "trainer/llama"}, // parameters and their groups
	"trainer/telemetry": {},
	"trainer/gpu":       {},
	"trainer/parallel":  {"collective", "tensor", "trainer/llama", "trainer/optim"},
	"trainer/plan":      {"tensor", "trainer/config", "trainer/llama", "trainer/parallel"},
	"trainer/run": {
		"coordinator", "collective", "dataset", "checkpoint", "tensor", "storage", "proto", "trainer/config",
		"trainer/gpu", "trainer/llama", "trainer/optim", "trainer/parallel", "trainer/telemetry",
	},
	"scripts": {"dataset", "checkpoint", "tensor", "storage", "proto", "trainer/config", "trainer/llama", "trainer/optim"},
}

// testsMayImport is what only the tests of a folder may import besides.
var testsMayImport = map[string][]string{
	"trainer/config":   {"storage/storagetest"}, // golden files
	"trainer/llama":    {"trainer/optim"},       // the golden trajectory takes optimizer steps
	"trainer/parallel": {"storage/storagetest"},
}

// owners are the only folders that may import a module.
var owners = map[string]string{
	"github.com/ebitengine/purego": "tensor/dl",
	"github.com/NVIDIA/go-nvml":    "trainer/gpu",
	"go.etcd.io/etcd":              "coordinator",
	"github.com/apache/arrow/go":   "dataset",
	"go.yaml.in/yaml":              "trainer/config",
	"github.com/spf13/cobra":       "trainer",
}

// house is the folder of mayImport that holds dir, "" for none.
func house(dir string) string {
	best := ""
	for folder := range mayImport {
		if within(dir, folder) && len(folder) > len(best) {
			best = folder
		}
	}
	return best
}

// refuse says why a file in dir, a test or not, must not import a path, a module of others or "/" and a folder of this
// module; "" if it may.
func refuse(dir, imported string, test bool) string {
	for prefix, owner := range owners {
		if within(imported, prefix) && !within(dir, owner) {
			return "only " + owner + " does"
		}
	}
	from, target := house(dir), strings.TrimPrefix(imported, "/")
	allowed := slices.Clone(mayImport[from])
	if test {
		allowed = append(allowed, testsMayImport[from]...)
	}
	switch {
	case from == "":
		return "its folder is not in the house: see mayImport in scripts/lint"
	case target == imported, house(target) == from:
		return ""
	case dir == "trainer" && within(target, "trainer"): // the command imports the folders in its own
		return ""
	case slices.ContainsFunc(allowed, func(folder string) bool { return within(target, folder) }):
		return ""
	}
	return fmt.Sprintf("%s may import %v", from, allowed)
}

func TestImportsGoDown(t *testing.T) {
	for _, s := range sources(t) {
		for _, imported := range s.imports() {
			if why := refuse(s.dir, imported, strings.HasSuffix(s.path, "_test.go")); why != "" {
				t.Errorf("%s imports %s: %s", s.path, imported, why)
			}
		}
	}
}

func TestRefuse(t *testing.T) {
	for _, c := range []struct {
		dir, imported string
		refused       bool
	}{
		{"tensor/cpu", "/tensor", false},
		{"tensor/cpu", "/storage", true},
		{"checkpoint", "/proto/checkpoint/v1", false},
		{"checkpoint", "/dataset", true},
		{"dataset", "/trainer/config", true},
		{"trainer", "/trainer/run", false},
		{"trainer/run", "/trainer", true},
		{"trainer/llama", "/trainer/run", true},
		{"trainer/run", "/trainer/llama", false},
		{"trainerx", "fmt", true},
		{"tensor/dl", "github.com/ebitengine/purego", false},
		{"tensor/cuda", "github.com/ebitengine/purego", true},
		{"collective", "go.etcd.io/etcd/client/v3", true},
		{"checkpoint", "fmt", false},
	} {
		if why := refuse(c.dir, c.imported, false); (why != "") != c.refused {
			t.Errorf("%s imports %s: %q", c.dir, c.imported, why)
		}
	}
}

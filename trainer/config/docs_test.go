package config

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage/storagetest"
)

// TestDocs holds the tables of docs/job-file.md to the tables of this package.
func TestDocs(t *testing.T) {
	const file = "../../docs/job-file.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	table := regexp.MustCompile(`(?s)<!-- table: (\S+) -->\n.*?<!-- end -->`)
	want := table.ReplaceAllStringFunc(string(text), func(s string) string {
		name := table.FindStringSubmatch(s)[1]
		body := presetTable()
		if name != "presets" {
			body = keyTable(name, shown)
		}
		return fmt.Sprintf("<!-- table: %s -->\n%s<!-- end -->", name, body)
	})
	storagetest.Golden(t, file, want)
	for _, k := range keys {
		if !shown[k.path] {
			t.Errorf("%s is in no table of %s", k.path, file)
		}
	}
	for _, r := range reserved {
		if !strings.Contains(string(text), "`"+r+"`") {
			t.Errorf("the reserved key %s is not in %s", r, file)
		}
	}
}

// keyTable is the keys of a section; of "top", those outside of any.
func keyTable(section string, shown map[string]bool) string {
	var b strings.Builder
	b.WriteString("| key | value | default | on resume | meaning |\n|---|---|---|---|---|\n")
	for _, k := range keys {
		name, in := strings.CutPrefix(k.path, section+".")
		if !in && (section != "top" || strings.Contains(k.path, ".")) {
			continue
		}
		shown[k.path] = true
		value, def, resume := k.rule.want, k.follows, "fixed"
		if k.now != nil {
			value += "; this version: " + k.now.want
		}
		if k.def != "" {
			def = "`" + k.def + "`"
		}
		if k.required {
			def = "required"
		}
		if k.resume {
			resume = "may change"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, value, def, resume, k.about)
	}
	return b.String()
}

func presetTable() string {
	var b strings.Builder
	b.WriteString("| preset | dim | layers | heads | kv_heads | head_dim | ffn | vocab | max_length | rope_theta | " +
		"rope factor | tied | window | parameters |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, m := range presets {
		factor := none
		if m.RopeScaling != nil {
			factor = fmt.Sprint(m.RopeScaling.Factor)
		}
		fmt.Fprintf(&b, "| `%s` | %d | %d | %d | %d | %d | %d | %d | %d | %v | %s | %v | %d | %d |\n",
			m.Preset, m.Dim, m.Layers, m.Heads, m.KVHeads, m.HeadDim, m.FFN, m.Vocab, m.MaxLength, m.RopeTheta, factor,
			m.Tied, m.SlidingWindow, m.Config().Parameters())
	}
	return b.String()
}

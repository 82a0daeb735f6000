package config

import (
	"slices"
	"strings"
)

// unknown records that no key has the name path.
func (l *loader) unknown(path string, o origin) {
	g := generic(path)
	for _, r := range reserved {
		if g == r || strings.HasPrefix(g, r+".") {
			l.fault(path, o, path+": not supported yet by this version", "", "it left out")
			return
		}
	}
	if len(l.errs) == maxFaults { // only counted, and the search is slow
		l.more++
		return
	}
	near := suggest(path)
	if near == "" {
		section := parent(g)
		names := children(section)
		for len(names) == 0 {
			section = parent(section)
			names = children(section)
		}
		l.fault(path, o, "unknown key", short(path), "one of "+strings.Join(names, ", "))
		return
	}
	l.fault(path, o, "unknown key", short(path), near)
	l.meant[near] = true
}

// suggest is the known path that was probably meant, "" if none is near: a key of the same section with a similar name,
// else a key of the same name elsewhere, else a similar path.
func suggest(path string) string {
	section := parent(path)
	name := strings.TrimPrefix(path[len(section):], ".")
	if len(path) > longest {
		return ""
	}
	if near := nearest(name, children(generic(section))); near != "" {
		return join(section, near)
	}
	best := ""
	var paths []string
	for _, k := range keys {
		p := strings.ReplaceAll(k.path, ".N.", ".0.")
		if strings.HasSuffix(p, "."+name) && (best == "" || edits(path, p) < edits(path, best)) {
			best = p
		}
		paths = append(paths, p)
	}
	if best != "" {
		return best
	}
	return nearest(path, paths)
}

// children are the names of the keys in a section, of generic path.
func children(section string) []string {
	var names []string
	for _, k := range keys {
		rest := k.path
		if section != "" {
			var in bool
			if rest, in = strings.CutPrefix(k.path, section+"."); !in {
				continue
			}
		}
		name, _, _ := strings.Cut(rest, ".")
		if name != "N" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// parent is the path of the section that path is in.
func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '.'))] }

// longest bounds the names that are compared and shown.
const longest = 80

// short is s for a message.
func short(s string) string {
	if s == "" {
		return `""`
	}
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return s
}

// nearest is the one of names that is fewest edits from s, "" if all are far: more than a third of the letters.
func nearest(s string, names []string) string {
	best, least := "", (len(s)+5)/3
	for _, name := range names {
		if d := edits(s, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// edits is the Levenshtein distance of a and b in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

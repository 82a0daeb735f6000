package config

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// overlay puts the value of a --set, written a.b=value, into the tree of the job file. Items of a list are named by
// their index; the index after the last appends one.
func (l *loader) overlay(root *yaml.Node, set string) {
	path, text, ok := strings.Cut(set, "=")
	o := origin{set: path}
	if !ok || path == "" {
		l.fault(path, origin{set: short(set)}, "no value", "", "PATH=VALUE, such as train.steps=500")
		return
	}
	if !known(path) {
		l.unknown(path, o)
		return
	}
	if at, ok := binary([]byte(text)); ok {
		l.fault(path, o, "the value is not text", strconv.Quote(text[at:at+1]), "YAML in UTF-8")
		return
	}
	value := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	if strings.TrimSpace(text) != "" {
		n, err := parseYAML([]byte(text))
		if err != nil {
			l.fault(path, o, err.message, strconv.Quote(short(text)), "a value in YAML")
			return
		}
		value = n
	}
	l.mark(value, path)
	l.place(root, strings.Split(path, "."), value, path)
}

// known reports whether path is a key, a section, or an item of a list.
func known(path string) bool {
	g := generic(path)
	return keyAt[g] != nil || slices.ContainsFunc(keys, func(k key) bool { return strings.HasPrefix(k.path, g+".") })
}

// mark notes that n and all in it came from the --set of path.
func (l *loader) mark(n *yaml.Node, path string) {
	l.setBy[n] = path
	for _, c := range n.Content {
		l.mark(c, path)
	}
}

// place puts value at names below n and makes the sections on the way. A node of the wrong kind on the way is left to
// be reported when it is read.
func (l *loader) place(n *yaml.Node, names []string, value *yaml.Node, path string) {
	for i, name := range names {
		next := value
		if i+1 < len(names) {
			next = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
			if isIndex(names[i+1]) {
				next = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
			}
			l.setBy[next] = path
		}
		at := -1
		switch n.Kind {
		case yaml.MappingNode:
			for j := 0; j+1 < len(n.Content) && at < 0; j += 2 {
				if n.Content[j].Value == name {
					at = j + 1
				}
			}
			if at < 0 {
				k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}
				l.setBy[k] = path
				at = len(n.Content) + 1
				n.Content = append(n.Content, k, next)
			}
		case yaml.SequenceNode:
			j, err := strconv.Atoi(name)
			if err != nil || j > len(n.Content) {
				l.fault(path, origin{set: path}, "no such item", name, "an index up to "+strconv.Itoa(len(n.Content)))
				return
			}
			at = j
			if j == len(n.Content) {
				n.Content = append(n.Content, next)
			}
		default:
			return
		}
		if i+1 == len(names) || n.Content[at].ShortTag() == "!!null" {
			n.Content[at] = next
		}
		n = n.Content[at]
	}
}

package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxFaults bounds the faults that are listed.
const maxFaults = 100

// loader reads one job. It goes on after a fault, so that all are shown.
type loader struct {
	job   *Job
	setBy map[*yaml.Node]string // nodes that a --set put in → its path
	bad   map[string]bool       // paths with a fault
	meant map[string]bool       // paths that an unknown key probably stands for
	errs  []*Error
	more  int
}

func newLoader(name string) *loader {
	job := &Job{file: name, origins: map[string]origin{}}
	return &loader{job: job, setBy: map[*yaml.Node]string{}, bad: map[string]bool{}, meant: map[string]bool{}}
}

func (l *loader) originOf(n *yaml.Node) origin {
	if set, ok := l.setBy[n]; ok {
		return origin{set: set}
	}
	return origin{line: n.Line, column: n.Column}
}

// fault records that the value at path, written at o, is wrong.
func (l *loader) fault(path string, o origin, what, found, want string) {
	l.bad[path] = true
	if len(l.errs) == maxFaults {
		l.more++
		return
	}
	l.errs = append(l.errs, &Error{
		File: l.job.file, Line: o.line, Column: o.column, Set: o.set, What: what, Found: found, Want: want,
	})
}

// isBad reports whether path or a section around it has a fault, or is absent only because of a misspelt key.
func (l *loader) isBad(path string) bool {
	for ; path != ""; path = parent(path) {
		if l.bad[path] || l.meant[path] && !l.job.origins[path].written() {
			return true
		}
	}
	return false
}

// read fills in the job from root.
func (l *loader) read(root *yaml.Node) {
	if v := child(root, "version"); v != nil {
		if n, ok := whole(v); ok && n > Version {
			l.fault("version", l.originOf(v), "the job file is of a newer version", v.Value,
				fmt.Sprintf("%d, which this build reads", Version))
			return
		}
	}
	job := reflect.ValueOf(l.job).Elem()
	l.job.origins[""] = l.originOf(root)
	l.defaults(job, "")
	l.preset(child(child(root, "model"), "preset"))
	l.section(root, job, "")
	if l.bad["model.preset"] {
		l.bad["model"] = true // what is missing there, the preset was to give
	}
	l.derive()
	l.missing(job, "")
	l.check()
}

// child is the value of a key of n, nil if n is no mapping or has no such key.
func child(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// fields calls f for each key of the section v at path.
func fields(v reflect.Value, path string, f func(field reflect.Value, path string)) {
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
			f(v.Field(i), join(path, name))
		}
	}
}

// defaults fills in the defaults of the section v. Lists and optional sections stay absent.
func (l *loader) defaults(v reflect.Value, path string) {
	fields(v, path, func(field reflect.Value, path string) {
		switch field.Kind() {
		case reflect.Struct:
			l.defaults(field, path)
		case reflect.Pointer:
			l.job.origins[path] = origin{reason: defaulted}
		default:
			n := defaultAt[generic(path)]
			if n == nil {
				return
			}
			if !l.value(n, field, path) {
				panic("config: the default of " + path + " breaks its own rule")
			}
			l.job.origins[path] = origin{reason: defaulted}
		}
	})
}

// preset fills in the model that n names, if there is one.
func (l *loader) preset(n *yaml.Node) {
	for _, m := range presets {
		if n == nil || n.Kind != yaml.ScalarNode || n.Value != m.Preset {
			continue
		}
		if m.RopeScaling != nil {
			scaling := *m.RopeScaling
			m.RopeScaling = &scaling
		}
		l.job.Model = m
		o := origin{reason: "preset " + m.Preset, via: "model.preset"}
		l.job.origins["model.rope_scaling"] = o
		leaves(reflect.ValueOf(m), "model", func(_ reflect.Value, path string) { l.job.origins[path] = o })
	}
}

// section reads the mapping n into the struct v.
func (l *loader) section(n *yaml.Node, v reflect.Value, path string) bool {
	if n.Kind != yaml.MappingNode {
		l.fault(path, l.originOf(n), path+": wrong type", describe(n), aSection.want)
		return false
	}
	known := map[string]reflect.Value{}
	fields(v, path, func(field reflect.Value, path string) { known[path] = field })
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			l.fault(path, l.originOf(k), "a key is not text", describe(k), "")
			continue
		}
		p := join(path, k.Value)
		field, ok := known[p]
		switch {
		case strings.Contains(k.Value, "."):
			l.fault(p, l.originOf(k), "unknown key", strconv.Quote(short(k.Value)), "sections (only --set takes paths)")
			continue
		case !ok:
			l.unknown(p, l.originOf(k))
			continue
		}
		if line, ok := seen[p]; ok {
			l.fault(p, l.originOf(k), "duplicate key", p, fmt.Sprintf("it once (it is in line %d already)", line))
			continue
		}
		seen[p] = k.Line
		l.job.origins[p] = l.originOf(k)
		l.value(value, field, p)
	}
	return true
}

// value reads n into v, whose key is path.
func (l *loader) value(n *yaml.Node, v reflect.Value, path string) bool {
	o := l.originOf(n)
	switch {
	case n.Kind == yaml.AliasNode:
		l.fault(path, o, path+": an alias has no place in a job file", "*"+n.Value, "the value itself")
		return false
	case v.Kind() == reflect.Struct:
		return l.section(n, v, path)
	case v.Kind() == reflect.Pointer:
		if n.ShortTag() == "!!null" {
			v.SetZero()
			l.job.origins[path] = o
			return true
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
			l.defaults(v.Elem(), path)
		}
		return l.section(n, v.Elem(), path)
	case v.Kind() == reflect.Slice:
		return l.list(n, v, path)
	case v.Kind() == reflect.Array:
		return l.tuple(n, v, path)
	}
	return l.scalar(n, v, path)
}

// list reads the list n of sections into the slice v.
func (l *loader) list(n *yaml.Node, v reflect.Value, path string) bool {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		l.fault(path, l.originOf(n), path+": wrong type", describe(n), aList.want)
		return false
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		p := join(path, strconv.Itoa(i))
		l.job.origins[p] = l.originOf(item)
		l.defaults(v.Index(i), p)
		l.value(item, v.Index(i), p)
	}
	return true
}

// tuple reads the list n of numbers into the array v.
func (l *loader) tuple(n *yaml.Node, v reflect.Value, path string) bool {
	if n.Kind != yaml.SequenceNode || len(n.Content) != v.Len() {
		l.fault(path, l.originOf(n), path+": wrong type", describe(n), keyAt[generic(path)].rule.want)
		return false
	}
	ok := true
	for i, item := range n.Content {
		ok = l.scalar(item, v.Index(i), path) && ok
	}
	l.job.origins[path] = l.originOf(n)
	return ok
}

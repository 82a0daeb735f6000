package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Value is one value in force.
type Value struct {
	Path  string `json:"path"`
	Value string `json:"value"` // in YAML; none: an optional section that is absent
	From  string `json:"from"`  // FILE:LINE:COLUMN, --set PATH, preset NAME, default, or the keys it follows from
}

// none stands for an absent section among the values.
const none = "none"

// leaves calls f for each value at and below v, in the order of the keys: numbers, text and so on, and nil pointers.
func leaves(v reflect.Value, path string, f func(v reflect.Value, path string)) {
	switch {
	case v.Kind() == reflect.Struct:
		fields(v, path, func(field reflect.Value, path string) { leaves(field, path, f) })
	case v.Kind() == reflect.Pointer && !v.IsNil():
		leaves(v.Elem(), path, f)
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			leaves(v.Index(i), join(path, strconv.Itoa(i)), f)
		}
	case path == "model.preset" && v.String() == "": // there is none, and no word for it
	default:
		f(v, path)
	}
}

// Explain is every value in force and where it came from, in the order of the keys.
func (j *Job) Explain() []Value {
	var values []Value
	leaves(reflect.ValueOf(*j), "", func(v reflect.Value, path string) {
		o := j.origins[path]
		from := o.String()
		if o.line > 0 {
			from = j.file + ":" + from
		}
		values = append(values, Value{path, inYAML(v), from})
	})
	return values
}

// YAML is the job with every value written out, always in the same words. Parse makes the same job of it.
func (j *Job) YAML() []byte {
	var b strings.Builder
	write(&b, reflect.ValueOf(*j), 0)
	return []byte(b.String())
}

// Digest is the SHA-256 of YAML, in hexadecimal.
func (j *Job) Digest() string {
	sum := sha256.Sum256(j.YAML())
	return hex.EncodeToString(sum[:])
}

// write writes the keys of the section v, indented by depth.
func write(b *strings.Builder, v reflect.Value, depth int) {
	indent := strings.Repeat("  ", depth)
	fields(v, "", func(field reflect.Value, name string) {
		if field.Kind() == reflect.Pointer && !field.IsNil() {
			field = field.Elem()
		}
		switch {
		case field.Kind() == reflect.Struct:
			fmt.Fprintf(b, "%s%s:\n", indent, name)
			write(b, field, depth+1)
		case field.Kind() == reflect.Slice:
			fmt.Fprintf(b, "%s%s:\n", indent, name)
			for i := range field.Len() {
				var item strings.Builder
				write(&item, field.Index(i), depth+2)
				fmt.Fprintf(b, "%s  - %s", indent, item.String()[len(indent)+len("  - "):])
			}
		case field.Kind() == reflect.Pointer:
			fmt.Fprintf(b, "%s%s: null\n", indent, name)
		case name == "preset" && field.String() == "":
		default:
			fmt.Fprintf(b, "%s%s: %s\n", indent, name, inYAML(field))
		}
	})
}

// inYAML is one value in YAML; of a nil pointer, the word none.
func inYAML(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		return none
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.Array:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = inYAML(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case reflect.String:
		return quoted(v.String())
	}
	return fmt.Sprint(v.Interface())
}

var plain = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9._/-]*$`)

// quoted is s as YAML text: as it is if YAML reads it as the same text, else in double quotes, in which YAML knows Go's
// escapes.
func quoted(s string) string {
	if plain.MatchString(s) {
		if n, err := parseYAML([]byte(s)); err == nil && n.ShortTag() == "!!str" && n.Value == s {
			return s
		}
	}
	return strconv.Quote(s)
}

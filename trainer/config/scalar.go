package config

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// scalar reads n into v, whose key is path, if it keeps the rules of the key.
func (l *loader) scalar(n *yaml.Node, v reflect.Value, path string) bool {
	k := keyAt[generic(path)]
	x, ok := scalarOf(n, v.Type())
	var what, tag string
	if n.Kind == yaml.ScalarNode {
		tag = n.ShortTag()
	}
	want := k.rule.want
	switch {
	case !ok && tag == "!!int" && (v.CanInt() || v.CanUint()):
		what = "out of range"
	case !ok:
		what = "wrong type"
		if tag != "" && tag != "!!null" && v.Kind() == reflect.String {
			want += " (in quotes)"
		}
	case !finite(x):
		what = "not a finite number"
	case !k.rule.holds(x) && k.rule.names != nil:
		what = "unknown value"
		if near := nearest(n.Value, k.rule.names); near != "" {
			want += " (nearest: " + near + ")"
		}
	case !k.rule.holds(x):
		what = "out of range"
	case k.now != nil && !k.now.holds(x):
		what, want = "not supported yet by this version", k.now.want
	default:
		assign(v, x)
		l.job.origins[path] = l.originOf(n)
		return true
	}
	l.fault(path, l.originOf(n), path+": "+what, describe(n), want)
	return false
}

func finite(x any) bool {
	f, ok := x.(float64)
	return !ok || !math.IsNaN(f) && !math.IsInf(f, 0)
}

var degree = reflect.TypeFor[Degree]()

// scalarOf is the value of n for a variable of type t: an int64, uint64, float64, string or bool. A Degree is an int64,
// or a string for a word.
func scalarOf(n *yaml.Node, t reflect.Type) (x any, ok bool) {
	if n.Kind != yaml.ScalarNode {
		return nil, false
	}
	tag := n.ShortTag()
	switch {
	case t.Kind() == reflect.String || t == degree && tag == "!!str":
		return n.Value, tag == "!!str"
	case t.Kind() == reflect.Bool:
		return strings.EqualFold(n.Value, "true"), tag == "!!bool"
	case t.Kind() == reflect.Float64:
		return real64(n)
	case t.Kind() == reflect.Uint64:
		if u, err := strconv.ParseUint(digits(n), 10, 64); err == nil && tag == "!!int" {
			return u, true
		}
		i, ok := whole(n)
		return uint64(i), ok && i >= 0
	}
	i, ok := whole(n)
	return i, ok
}

// whole is the integer that n holds, written as an integer in decimal or as a number such as 1e6.
func whole(n *yaml.Node) (i int64, ok bool) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
		if i, err := strconv.ParseInt(digits(n), 10, 64); err == nil {
			return i, true
		}
	}
	const exact = 1 << 53
	f, ok := real64(n)
	return int64(f), ok && f == math.Trunc(f) && math.Abs(f) <= exact
}

// real64 is the number that n holds.
func real64(n *yaml.Node) (x float64, ok bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" && n.ShortTag() != "!!float" {
		return 0, false
	}
	s := strings.Replace(strings.ToLower(digits(n)), ".inf", "inf", 1)
	x, err := strconv.ParseFloat(strings.Replace(s, ".nan", "nan", 1), 64)
	return x, err == nil
}

// digits is the text of n without the underscores that YAML allows in numbers.
func digits(n *yaml.Node) string { return strings.ReplaceAll(n.Value, "_", "") }

// assign stores what scalarOf made.
func assign(v reflect.Value, x any) {
	switch x := x.(type) {
	case int64:
		v.SetInt(x)
	case uint64:
		v.SetUint(x)
	case float64:
		v.SetFloat(x)
	case bool:
		v.SetBool(x)
	case string:
		if v.Type() == degree {
			v.SetInt(0)
		} else {
			v.SetString(x)
		}
	}
}

// describe is what n holds, in short.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		return "an empty list"
	case n.Kind == yaml.SequenceNode:
		return "a list of " + strconv.Itoa(len(n.Content))
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.ShortTag() == "!!null":
		return "nothing"
	}
	s, rest := n.Value, ""
	const most = 60
	if utf8.RuneCountInString(s) > most {
		s, rest = string([]rune(s)[:most]), "…"
	}
	if n.ShortTag() == "!!str" {
		return strconv.Quote(s) + rest
	}
	return s + rest
}

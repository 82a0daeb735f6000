package config

import (
	"fmt"
	"math/bits"
	"net"
	"regexp"
	"slices"
	"strings"
)

// rule is what a key's value must be, in words and as a test of the value: an int64, a uint64, a float64 or a string.
type rule struct {
	want  string
	names []string // of a choice
	holds func(v any) bool
}

func integer(lo, hi int64) rule {
	want := fmt.Sprintf("a whole number from %d to %d", lo, hi)
	switch {
	case lo == hi:
		want = fmt.Sprint(lo)
	case hi >= 1<<12: // all of these are powers of two
		want = fmt.Sprintf("a whole number from %d to 2^%d", lo, bits.Len64(uint64(hi))-1)
	}
	return rule{want: want, holds: func(v any) bool { return v.(int64) >= lo && v.(int64) <= hi }}
}

func even(r rule) rule {
	return rule{
		want:  strings.Replace(r.want, "a whole", "an even", 1),
		holds: func(v any) bool { return r.holds(v) && v.(int64)%2 == 0 },
	}
}

func orAuto(r rule) rule {
	return rule{want: "auto or " + r.want, holds: func(v any) bool {
		if word, ok := v.(string); ok {
			return word == "auto"
		}
		return r.holds(v)
	}}
}

func number(want string, holds func(x float64) bool) rule {
	return rule{want: want, holds: func(v any) bool { return holds(v.(float64)) }}
}

func oneOf(names ...string) rule {
	want := names[0]
	if n := len(names) - 1; n > 0 {
		want = strings.Join(names[:n], ", ") + " or " + names[n]
	}
	return rule{want: want, names: names, holds: func(v any) bool { return slices.Contains(names, v.(string)) }}
}

var (
	anything  = func(any) bool { return true }
	trueFalse = rule{want: "true or false", holds: anything}
	anyText   = rule{want: "text", holds: anything}
	aSection  = rule{want: "a section of keys", holds: anything}
	aList     = rule{want: "a list of at least one section", holds: anything}
	anySeed   = rule{want: "a whole number from 0 to 2^64 - 1", holds: anything}
	someText  = rule{want: "text of at least one character", holds: func(v any) bool { return v.(string) != "" }}
	jobName   = rule{
		want:  "1 to 64 letters, digits, '.', '_' or '-', first a letter or digit",
		holds: func(v any) bool { return nameForm.MatchString(v.(string)) },
	}
	listen = rule{want: `"" or host:port to listen on`, holds: func(v any) bool {
		_, _, err := net.SplitHostPort(v.(string))
		return v.(string) == "" || err == nil
	}}

	positive    = number("a number above 0", func(x float64) bool { return x > 0 })
	nonNegative = number("a number of at least 0", func(x float64) bool { return x >= 0 })
	atLeastOne  = number("a number of at least 1", func(x float64) bool { return x >= 1 })
	ratio       = number("a number from 0 to 1", func(x float64) bool { return x >= 0 && x <= 1 })
	beta        = number("two numbers, each at least 0 and below 1", func(x float64) bool { return x >= 0 && x < 1 })
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

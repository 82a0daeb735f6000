package config

import "fmt"

// origin is where a value or a section came from: a place, or else a reason.
type origin struct {
	line, column int    // of the file, from 1; 0: not from the file
	set          string // path of the --set
	reason       string // defaulted, preset NAME, or key.follows
	via          string // path of the key that chose the preset
}

const defaulted = "default"

func (o origin) String() string {
	switch {
	case o.set != "":
		return "--set " + o.set
	case o.line > 0:
		return fmt.Sprintf("%d:%d", o.line, o.column)
	}
	return o.reason
}

// written reports whether it is a place.
func (o origin) written() bool { return o.line > 0 || o.set != "" }

// place is where the value at path was written, or what chose it, or else the innermost section around it.
func (j *Job) place(path string) origin {
	o := j.origins[path]
	for path != "" && !o.written() {
		path = parent(path)
		if o.via != "" {
			path = o.via
		}
		o = j.origins[path]
	}
	return o
}

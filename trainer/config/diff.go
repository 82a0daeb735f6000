package config

import (
	"fmt"
	"reflect"
)

// Change is a value that differs between two jobs.
type Change struct {
	Path string `json:"path"`
	Old  string `json:"old"` // in YAML; none: absent
	New  string `json:"new"`
}

func (c Change) String() string { return fmt.Sprintf("%s: %s → %s", c.Path, c.Old, c.New) }

// Diff is every value that differs between a and b, in the order of the keys; those that only b has come last.
func Diff(a, b *Job) []Change {
	paths, old := a.values()
	more, now := b.values()
	for _, p := range more {
		if _, ok := old[p]; !ok {
			paths = append(paths, p)
		}
	}
	at := func(values map[string]string, path string) string {
		if v, ok := values[path]; ok {
			return v
		}
		return none
	}
	changes := []Change{}
	for _, p := range paths {
		if c := (Change{p, at(old, p), at(now, p)}); c.Old != c.New {
			changes = append(changes, c)
		}
	}
	return changes
}

// DiffModels is every value of the model that differs between a and b.
func DiffModels(a, b Model) []Change { return Diff(&Job{Model: a}, &Job{Model: b}) }

// values is every value of j in YAML, by path.
func (j *Job) values() (paths []string, values map[string]string) {
	values = map[string]string{}
	leaves(reflect.ValueOf(*j), "", func(v reflect.Value, path string) {
		if v.Kind() != reflect.Pointer {
			paths = append(paths, path)
			values[path] = inYAML(v)
		}
	})
	return paths, values
}

// CompareForResume is what now changes of the job that a checkpoint was saved by. A change that would make another
// model or another order of the data is an error: an *Errors that lists all such changes, wrapped with what to do.
func CompareForResume(saved, now *Job) ([]Change, error) {
	changes := Diff(saved, now)
	var errs []*Error
	for _, c := range changes {
		if keyAt[generic(c.Path)].resume {
			continue
		}
		o := now.place(c.Path)
		errs = append(errs, &Error{
			File: now.file, Line: o.line, Column: o.column, Set: o.set,
			What: c.Path + ": may not change when a run is continued", Found: c.New, Want: c.Old + ", as saved",
		})
	}
	if len(errs) > 0 {
		const advice = "put the saved values back, or start a new run with another job.output"
		return nil, fmt.Errorf("%w\n%s", newErrors(errs, 0), advice)
	}
	return changes, nil
}

package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Error is one fault of a job: its place in the file or in a --set, what is wrong, what was found, what would be right.
type Error struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"` // from 1; 0: the whole file
	Column int    `json:"column,omitempty"`
	Set    string `json:"set,omitempty"` // the path of the --set that the fault is in; "": the file
	What   string `json:"what"`
	Found  string `json:"found,omitempty"`
	Want   string `json:"want,omitempty"`
	Err    error  `json:"-"` // cause, or nil
}

func (e *Error) Error() string {
	place, what := e.File, e.What
	switch {
	case e.Set != "":
		place, what = "--set "+e.Set, strings.TrimPrefix(what, e.Set+": ")
	case e.Line > 0:
		place = fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column)
	}
	s := place + ": " + what
	if e.Found != "" {
		s += ", found " + e.Found
	}
	if e.Want != "" {
		s += ", want " + e.Want
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errors is every fault of a job: the file's by place, then those of --set.
type Errors struct {
	List []*Error
	More int // faults beyond the list
}

// newErrors sorts list by place, the file's (Set is empty) first.
func newErrors(list []*Error, more int) *Errors {
	slices.SortStableFunc(list, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Errors{List: list, More: more}
}

func (e *Errors) Error() string {
	errs := e.Unwrap()
	if e.More > 0 {
		errs = append(errs, fmt.Errorf("and %d more faults", e.More))
	}
	return errors.Join(errs...).Error()
}

// Unwrap is the list.
func (e *Errors) Unwrap() []error {
	errs := make([]error, len(e.List))
	for i, err := range e.List {
		errs[i] = err
	}
	return errs
}

// ExitCode is the process's exit code for a bad job file.
func (e *Errors) ExitCode() int { return 2 }

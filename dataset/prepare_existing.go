package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strconv"
	"strings"
)

// existing is the result of an earlier Prepare with the same settings, nil if there is none or it is to be replaced. A
// dataset of other settings is an error unless Force is set.
func (p *preparer) existing() (*Prepared, error) {
	var found []*Manifest
	var errs []error
	for _, out := range p.outputs() {
		m, err := ReadManifest(out.dir)
		switch {
		case err == nil:
			m.Origin.Output, m.Origin.ValidationOutput = p.o.Output, p.o.ValidationOutput // it may have been moved
			found = append(found, m)
			errs = append(errs, p.compare(out, m))
		case !errors.Is(err, ErrUnfinished) && !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("%w; --force replaces it", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		if p.o.Force {
			return nil, nil
		}
		return nil, err
	}
	if len(found) < len(p.outputs()) || p.tok == nil {
		return nil, nil
	}
	done := &Prepared{Train: found[0], Found: true}
	if len(found) > 1 {
		done.Validation = found[1]
	}
	return done, nil
}

// compare reports in what the dataset m differs from the one that the options describe.
func (p *preparer) compare(out output, m *Manifest) error {
	var diffs []string
	diff := func(name string, has, want any) {
		if !reflect.DeepEqual(has, want) {
			diffs = append(diffs, fmt.Sprintf("%s is %v, asked for %v", name, has, want))
		}
	}
	has, want := m.Origin, p.o
	diff("split", has.Split, out.split)
	diff("inputs", strings.Join(has.Inputs, " "), strings.Join(want.Inputs, " "))
	diff("include", strings.Join(has.Include, " "), strings.Join(want.Include, " "))
	diff("max-bytes", has.MaxBytes, want.MaxBytes)
	diff("validation", has.Validation, want.Validation)
	diff("sequence-length", m.SequenceLength, want.SequenceLength)
	if m.SequenceLength == want.SequenceLength { // on which the default depends
		diff("shard-windows", has.ShardWindows, want.ShardWindows)
	}
	diff("tokenizer", m.Tokenizer.Kind, want.TokenizerKind)
	switch {
	case p.tok == nil:
		diffs = append(diffs, fmt.Sprintf("its tokenizer %s is gone", want.TokenizerPath))
	default:
		diff("tokenizer digest", m.Tokenizer.Digest, p.tok.Digest())
	}
	if len(diffs) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w: there is a dataset with other settings (--force replaces it): %s",
		out.dir, ErrMismatch, strings.Join(diffs, "; "))
}

// command is the command line that prepares the dataset m again for another sequence length.
func (m *Manifest) command(length int) string {
	o := m.Origin
	args := []string{"trainer data prepare"}
	flag := func(name, value, unset string) {
		if value != unset {
			args = append(args, "--"+name, shellQuote(value))
		}
	}
	flag("output", o.Output, "")
	flag("sequence-length", strconv.Itoa(length), "")
	flag("tokenizer", m.Tokenizer.Kind, "")
	flag("tokenizer-path", o.TokenizerPath, "")
	for _, glob := range o.Include {
		flag("include", glob, "")
	}
	flag("max-bytes", strconv.FormatInt(o.MaxBytes, 10), "0")
	flag("validation", strconv.FormatFloat(o.Validation, 'g', -1, 64), "0")
	flag("validation-output", o.ValidationOutput, "")
	args = append(args, "--force")
	for _, in := range o.Inputs {
		args = append(args, shellQuote(in))
	}
	return strings.Join(args, " ")
}

// shellQuote writes s as one word of a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("-_./=:,+@", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

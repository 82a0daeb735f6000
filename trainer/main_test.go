package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/herdtrain/herd/storage/storagetest"
)

// commandLineOf runs args and returns the exit code and what was printed.
func commandLineOf(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = execute(args, &out, &err)
	return code, out.String(), err.String()
}

// walk calls f with cmd and every command below it.
func walk(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		walk(c, f)
	}
}

func TestEveryCommandIsDocumented(t *testing.T) {
	walk(newRootCommand(), func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s: no short help", cmd.CommandPath())
		}
		if cmd.RunE == nil && cmd.Run == nil {
			t.Errorf("%s: does nothing", cmd.CommandPath())
		}
		if cmd.Name() == "completion" {
			return // its help is cobra's, with a page for each shell
		}
		if !strings.Contains(cmd.Example, cmd.CommandPath()) {
			t.Errorf("%s: no example, or one of another command: %q", cmd.CommandPath(), cmd.Example)
		}
		code, out, _ := commandLineOf(append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
		if code != 0 || !strings.Contains(out, cmd.Example) {
			t.Errorf("%s --help: exit code %d, without its example", cmd.CommandPath(), code)
		}
	})
}

// TestSurface freezes the names of commands and flags, on which scripts depend.
func TestSurface(t *testing.T) {
	var b strings.Builder
	walk(newRootCommand(), func(cmd *cobra.Command) {
		fmt.Fprintln(&b, cmd.CommandPath())
		cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				fmt.Fprintf(&b, "  --%s %s = %q\n", f.Name, f.Value.Type(), f.DefValue)
			}
		})
	})
	storagetest.Golden(t, filepath.Join("testdata", "commands.txt"), b.String())
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"vrsion", `trainer: unknown command "vrsion" for "trainer"; did you mean version?`},
		{"config valdate", `trainer: unknown command "valdate" for "trainer config"; did you mean validate?`},
		{"version extra", `trainer: unknown command "extra" for "trainer version"`},
		{"version --jsn", "trainer: unknown flag: --jsn"},
		{"run", `trainer: required flag(s) "config" not set`},
		{"doctor --dir", "trainer: flag needs an argument: --dir"},
	} {
		code, out, err := commandLineOf(strings.Fields(c.line)...)
		first, rest, _ := strings.Cut(err, "\n")
		if code != exitUsage || first != c.want || out != "" || !strings.HasPrefix(rest, "run 'trainer ") {
			t.Errorf("%s: exit code %d, output %q, error %q; want 2 and %q", c.line, code, out, err, c.want)
		}
	}
}

func TestCommandsThatHoldOthersPrintTheirHelp(t *testing.T) {
	for _, line := range []string{"", "config", "completion"} {
		if code, out, err := commandLineOf(strings.Fields(line)...); code != 0 || !strings.Contains(out, "Usage:") {
			t.Errorf("trainer %s: exit code %d, output %q, error %q", line, code, out, err)
		}
	}
}

type coded int

func (c coded) Error() string { return fmt.Sprintf("code %d", int(c)) }
func (c coded) ExitCode() int { return int(c) }

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("plain"), exitFailed},
		{usageErrorf("usage"), exitUsage},
		{fmt.Errorf("run: %w", coded(exitStopped)), exitStopped},
		{errors.Join(errors.New("plain"), coded(exitFatal)), exitFatal},
		{coded(0), exitFailed},
		{coded(-1), exitFailed}, // as of a process that a signal ended
		{coded(17), exitFailed},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestBadJobFileIsUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(file, []byte("version: 1\njobb: {}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"run", "config validate"} {
		code, _, err := commandLineOf(append(strings.Fields(command), "--config", file)...)
		if code != exitUsage || !strings.HasPrefix(err, "trainer: "+file+":") || strings.Contains(err, "--help") {
			t.Errorf("%s: exit code %d, %q", command, code, err)
		}
	}
}

package run

import "errors"

// Exit codes of a run that did not finish.
const (
	exitFailed   = 1
	exitUsage    = 2  // a job that does not fit
	exitStopped  = 75 // by a signal, before the last step: start it again
	exitHopeless = 93 // a retry cannot mend it
)

// exitError is an error that chooses the exit code of the process.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// ExitCode is the exit code that main returns for the error.
func (e *exitError) ExitCode() int { return e.code }

// exitCode is the exit code that an error asks for.
func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return exitFailed
}

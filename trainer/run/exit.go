package run

// Exit codes of a run that did not finish, beside 1 for a failure.
const (
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

package run

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// reportFD is where a process says how its rank ended. The descriptor after it holds the lock of the output directory,
// which nobody gets while a process of the run is left.
const reportFD = 3

// maxReport bounds what a process says, in bytes.
const maxReport = 1 << 20

// process is the agent's side of a rank that is a process.
type process struct {
	rank   int
	cmd    *exec.Cmd
	in     io.WriteCloser // its standard input; its end tells the process to give up
	report *os.File
	log    *prefixed // of its standard error

	over   bool  // it has ended
	killed bool  // by the agent
	died   bool  // it ended without a report
	err    error // how its rank ended
}

// start starts the process of a rank. The standard output of the leader's is the log of the run.
func (a *agent) start(t assignment, c *console) (p *process, err error) {
	rank := t.World.Rank
	p = &process{rank: rank, log: c.prefixed(rank)}
	p.cmd = exec.Command(a.o.Command[0], append(slices.Clone(a.o.Command[1:]), strconv.Itoa(rank))...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = a.o.grace
	p.cmd.Stdout, p.cmd.Stderr = c.prefixed(rank), p.log
	if rank == 0 {
		p.cmd.Stdout = c
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	report, its, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer its.Close()
	p.report = report
	p.cmd.ExtraFiles = []*os.File{its, a.lock.File()}
	if err := p.cmd.Start(); err != nil {
		report.Close()
		return nil, err
	}
	line, err := json.Marshal(t)
	if err != nil {
		panic(err) // plain values
	}
	p.tell(string(line) + "\n")
	return p, nil
}

// tell writes to the process. One that has ended need not hear it, and of a lost one the agent learns otherwise.
func (p *process) tell(s string) { _, _ = io.WriteString(p.in, s) }

// kill ends the process, if it has not ended.
func (p *process) kill() {
	if !p.over {
		p.killed = true
		_ = p.cmd.Process.Kill() // unless it has ended just now
	}
}

// failed says whether the rank ended in a way that the others may wait for it.
func (p *process) failed() bool {
	code := exitCode(p.err)
	return p.err != nil && code != exitStopped && code != exitHopeless
}

// wait waits for the end of the process, and sets err and died.
func (p *process) wait() {
	report, err := io.ReadAll(io.LimitReader(p.report, maxReport))
	p.report.Close()
	waited := p.cmd.Wait()
	p.cmd.Stdout.(io.Closer).Close()
	p.log.Close()
	var e ending
	if err == nil {
		err = json.Unmarshal(report, &e)
	}
	switch {
	case err != nil:
		p.died = true
		p.err = fmt.Errorf("its process, %d, %s%s", p.cmd.Process.Pid, death(p.cmd.ProcessState, waited), p.log.lastWords())
	case e.Err != "":
		p.err = &processError{e}
	}
}

// death says how a process ended that did not say so itself.
func death(s *os.ProcessState, err error) string {
	status, ok := s.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled() && status.Signal() == unix.SIGKILL:
		return "was killed by SIGKILL, perhaps by the kernel for want of memory"
	case ok && status.Signaled():
		return "was killed by " + unix.SignalName(status.Signal())
	case ok && status.Exited():
		return fmt.Sprintf("died with exit code %d", status.ExitStatus())
	}
	return fmt.Sprintf("died: %v", err)
}

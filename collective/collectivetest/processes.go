package collectivetest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/herdtrain/herd/collective"
)

// caseEnv names the case that a child process runs; shortEnv is set in short mode.
const (
	caseEnv  = "HERD_COLLECTIVE_CASE"
	shortEnv = "HERD_COLLECTIVE_SHORT"
)

// Descriptors that a child inherits.
const (
	ticketFD   = 3
	listenerFD = 4
)

// Main runs a case and exits if this process is a child of RunProcesses. TestMain calls it first.
func Main() {
	name := os.Getenv(caseEnv)
	if name == "" {
		return
	}
	if err := child(name, os.Getenv(shortEnv) != ""); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(name string, short bool) error {
	cases := Cases(short)
	i := slices.IndexFunc(cases, func(c Case) bool { return c.Name == name })
	if i < 0 {
		return fmt.Errorf("no case %q", name)
	}
	pipe := os.NewFile(ticketFD, "ticket")
	ticket, err := collective.ReadTicket(pipe)
	if err != nil {
		return err
	}
	pipe.Close()
	config := collective.Config{Ticket: ticket, Facts: map[string]string{"job": "a"}, Options: cases[i].options()}
	if f := os.NewFile(listenerFD, "listener"); f != nil {
		if l, err := net.FileListener(f); err == nil {
			config.Listener, config.Plain = l, true
		}
		f.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	g, err := collective.Join(ctx, config)
	if err != nil {
		return err
	}
	collective.NewRecorder(0).Watch(g)
	if err := cases[i].Rank(g); err != nil {
		return err
	}
	return g.Close()
}

// RunProcesses runs every case, in short mode the essential ones, in child processes of this test binary, connected by
// shared memory or by TCP alone.
func RunProcesses(t *testing.T, tcp bool) {
	for _, c := range Cases(true) {
		if testing.Short() && !c.Essential {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			c.parallel(t)
			c.processes(t, tcp)
		})
	}
}

func (c Case) processes(t *testing.T, tcp bool) {
	tickets, err := collective.HostTickets(c.Ranks, 7)
	if err != nil {
		t.Fatal(err)
	}
	listeners := make([]*os.File, c.Ranks)
	addrs := make([]string, c.Ranks)
	for r := range c.Ranks {
		if !tcp {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[r] = l.Addr().String()
		listeners[r], err = l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	out := make([]bytes.Buffer, c.Ranks)
	children := make([]*exec.Cmd, c.Ranks)
	for r := range c.Ranks {
		if tcp {
			tickets[r].Addrs = addrs
		}
		children[r] = start(t, c.Name, tickets[r], listeners[r], &out[r])
	}
	var ended sync.WaitGroup
	for r, cmd := range children {
		if r == c.Dies && r > 0 {
			continue
		}
		limit := time.AfterFunc(patience, func() { cmd.Process.Signal(syscall.SIGQUIT) }) // and its stacks are in out
		ended.Go(func() {
			defer limit.Stop()
			if err := cmd.Wait(); err != nil {
				t.Errorf("rank %d: %v: %s", r, err, out[r].String())
			}
		})
	}
	ended.Wait()
	if c.Dies > 0 {
		children[c.Dies].Process.Kill()
		if err := children[c.Dies].Wait(); err == nil {
			t.Errorf("rank %d ended well: %s", c.Dies, out[c.Dies].String())
		}
	}
}

// start starts a child that runs the case, with its ticket in a pipe.
func start(t *testing.T, name string, ticket collective.Ticket, listener *os.File, out *bytes.Buffer) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), caseEnv+"="+name, shortEnv+"=1",
		"GORACE=atexit_sleep_ms=0") // else each child of a race test ends with a second of sleep
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{r}
	if listener != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, listener)
		defer listener.Close()
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := ticket.Write(w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return cmd
}

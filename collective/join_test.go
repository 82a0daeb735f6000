package collective_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/collective/collectivetest"
)

// transports are the ways in which processes are connected.
var transports = map[string]func(t testing.TB, n int) []collective.Config{
	"unix":  unixConfigs,
	"tcp":   func(t testing.TB, n int) []collective.Config { return tcpConfigs(t, n, false) },
	"plain": func(t testing.TB, n int) []collective.Config { return tcpConfigs(t, n, true) },
}

func unixConfigs(t testing.TB, n int) []collective.Config {
	tickets, err := collective.HostTickets(n, 3)
	if err != nil {
		t.Fatal(err)
	}
	configs := make([]collective.Config, n)
	for r := range configs {
		configs[r] = collective.Config{Ticket: tickets[r], Digest: "job"}
	}
	return configs
}

// tcpConfigs listens on ports of this host; with plain, the ranks don't share memory.
func tcpConfigs(t testing.TB, n int, plain bool) []collective.Config {
	configs := unixConfigs(t, n)
	addrs := make([]string, n)
	for r := range configs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[r] = l.Addr().String()
		configs[r].Listener, configs[r].Plain = l, plain
	}
	for r := range configs {
		configs[r].Addrs = addrs
	}
	return configs
}

// join lets every rank join in a goroutine.
func join(t testing.TB, configs []collective.Config, o collective.Options) []collective.Group {
	groups, errs := joinAll(configs, o, time.Minute)
	for r, err := range errs {
		if err != nil {
			t.Fatalf("rank %d: %v", r, err)
		}
	}
	return groups
}

func joinAll(configs []collective.Config, o collective.Options, limit time.Duration) ([]collective.Group, []error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	groups, errs := make([]collective.Group, len(configs)), make([]error, len(configs))
	var ranks sync.WaitGroup
	for r, c := range configs {
		ranks.Go(func() {
			c.Options = o
			groups[r], errs[r] = collective.Join(ctx, c)
		})
	}
	ranks.Wait()
	return groups, errs
}

// TestJoin runs the suite on ranks of this process that are connected like processes.
func TestJoin(t *testing.T) {
	for _, name := range []string{"unix", "plain"} {
		t.Run(name, func(t *testing.T) {
			collectivetest.Run(t, func(t testing.TB, n int, o collective.Options) []collective.Group {
				return join(t, transports[name](t, n), o)
			})
		})
	}
}

// TestProcesses runs the suite on real processes.
func TestProcesses(t *testing.T) {
	t.Run("shared memory", func(t *testing.T) { collectivetest.RunProcesses(t, false) })
	t.Run("tcp", func(t *testing.T) { collectivetest.RunProcesses(t, true) })
}

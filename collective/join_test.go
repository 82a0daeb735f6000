package collective_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
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
		configs[r] = collective.Config{Ticket: tickets[r], Facts: map[string]string{"job": "a"}}
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

// TestSameHostOverTCP meets over TCP and exchanges over shared memory.
func TestSameHostOverTCP(t *testing.T) {
	groups := join(t, tcpConfigs(t, 3, false), collective.Options{})
	for r, err := range collectivetest.Each(groups, func(g collective.Group) error {
		half, err := g.Split(t.Context(), g.Rank()/2, 0)
		if err != nil {
			return err
		}
		return errors.Join(half.Start(nil, collective.Barrier()).Wait(t.Context()),
			g.Start(nil, collective.Barrier()).Wait(t.Context()), half.Close(), g.Close())
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

// TestJoinRefuses has one rank that does not belong to the others.
func TestJoinRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *collective.Config)
		want   string
	}{
		"job":        {func(c *collective.Config) { c.Facts = map[string]string{"job": "b"} }, `is "a", that of rank 2 is "b"`},
		"key":        {func(c *collective.Config) { c.Key = make([]byte, collective.KeyBytes) }, "hold the key"},
		"generation": {func(c *collective.Config) { c.Generation = 2 }, "generation"},
		"streams":    {func(c *collective.Config) { c.Streams = 4 }, "4 streams"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			configs := tcpConfigs(t, 3, false)
			c.change(&configs[2]) // it dials both others
			groups, errs := joinAll(configs, collective.Options{}, 300*time.Millisecond)
			if !errors.Is(errs[2], collective.ErrRefused) || !strings.Contains(errs[2].Error(), c.want) {
				t.Errorf("rank 2 got %v, want %q", errs[2], c.want)
			}
			for r, err := range errs[:2] {
				if err == nil || !strings.Contains(err.Error(), "rank 2") {
					t.Errorf("rank %d got %v", r, err)
				}
			}
			for _, g := range groups {
				if g != nil {
					g.Close()
				}
			}
		})
	}
}

// TestJoinWithoutARank names who has not come.
func TestJoinWithoutARank(t *testing.T) {
	configs := unixConfigs(t, 3)
	_, errs := joinAll(configs[:2], collective.Options{}, 100*time.Millisecond)
	for r, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "rank 2: has not joined") {
			t.Errorf("rank %d got %v", r, err)
		}
	}
	if _, err := collective.Join(t.Context(), collective.Config{Streams: 3}); err == nil {
		t.Error("3 streams were accepted")
	}
}

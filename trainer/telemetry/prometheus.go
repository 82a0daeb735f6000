package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// endpoint serves the newest measurement to Prometheus. Its one goroutine runs the HTTP server until close.
type endpoint struct {
	listener net.Listener
	server   *http.Server
	served   chan error // what Serve returned

	gauges   map[string]prometheus.Gauge
	counters map[string]prometheus.Counter
}

// listenAddress is the address to listen on for one that a user wrote: without a host it means the loopback interface.
func listenAddress(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("metrics address %q: want host:port, such as 127.0.0.1:9090", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("metrics address %q: port %q is not a number from 0 to 65535", s, port)
	} else if host == "" {
		return fmt.Sprintf("127.0.0.1:%d", n), nil
	}
	return s, nil
}

func openEndpoint(ctx context.Context, address string) (*endpoint, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	e := &endpoint{
		listener: listener, served: make(chan error, 1),
		gauges: map[string]prometheus.Gauge{}, counters: map[string]prometheus.Counter{},
	}
	registry := prometheus.NewRegistry()
	for name, help := range gaugeHelp() {
		gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		gauge.Set(math.NaN()) // until the first measurement
		registry.MustRegister(gauge)
		e.gauges[name] = gauge
	}
	for name, help := range counterHelp() {
		e.counters[name] = prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		registry.MustRegister(e.counters[name])
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	e.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // a client's bad request is no news of the run
	}
	go func() { e.served <- e.server.Serve(listener) }()
	return e, nil
}

// gaugeHelp names the gauges and says what each shows, of the last step unless said.
func gaugeHelp() map[string]string {
	return map[string]string{
		"herd_step":                  "Number of the step, counted from 1.",
		"herd_steps":                 "Number of the run's last step.",
		"herd_loss":                  "Training loss in nats per target.",
		"herd_validation_loss":       "Loss of the newest validation in nats per target.",
		"herd_grad_norm":             "Norm of the gradient before clipping.",
		"herd_learning_rate":         "Learning rate.",
		"herd_tokens_per_second":     "Tokens per second.",
		"herd_mfu_ratio":             "Model FLOPs utilisation, attention counted over the whole square.",
		"herd_mfu_causal_ratio":      "Model FLOPs utilisation, attention counted over the causal half.",
		"herd_memory_bytes":          "Memory in use.",
		"herd_step_duration_seconds": "Time of the step.",
		"herd_eta_seconds":           "Predicted time to the end of the run.",
	}
}

// counterHelp names the counters and says what each counts since the process started.
func counterHelp() map[string]string {
	return map[string]string{
		"herd_tokens_total":                   "Tokens trained on.",
		"herd_skipped_steps_total":            "Steps whose update was not applied.",
		"herd_data_wait_seconds_total":        "Time spent waiting for batches.",
		"herd_checkpoint_stall_seconds_total": "Time that training stood still for saves.",
	}
}

func (e *endpoint) address() string { return e.listener.Addr().String() }

func (e *endpoint) step(m *measurement) error {
	for name, v := range map[string]float64{
		"herd_step": float64(m.Step.Step), "herd_steps": float64(m.Steps),
		"herd_loss": m.Loss, "herd_grad_norm": m.GradNorm, "herd_learning_rate": m.LR,
		"herd_tokens_per_second": m.tokensPerSecond, "herd_mfu_ratio": m.mfuFull, "herd_mfu_causal_ratio": m.mfuCausal,
		"herd_memory_bytes": float64(m.Memory), "herd_step_duration_seconds": m.Duration.Seconds(),
		"herd_eta_seconds": m.eta.Seconds(),
	} {
		e.gauges[name].Set(v)
	}
	e.counters["herd_tokens_total"].Add(float64(m.Tokens))
	e.counters["herd_data_wait_seconds_total"].Add(m.DataWait.Seconds())
	e.counters["herd_checkpoint_stall_seconds_total"].Add(m.CheckpointStall.Seconds())
	if !m.Applied {
		e.counters["herd_skipped_steps_total"].Inc()
	}
	return nil
}

func (e *endpoint) validation(v *validation) error {
	e.gauges["herd_validation_loss"].Set(v.loss)
	return nil
}

func (e *endpoint) close() error {
	err := e.server.Close()
	if served := <-e.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

package telemetry

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// get fetches the metrics that a log says are served.
func get(t *testing.T, log string) string {
	t.Helper()
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`).FindString(log)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

func TestPrometheus(t *testing.T) {
	var out bytes.Buffer
	r := newRecorder(t, Options{Out: &out, Prometheus: ":0", FLOPsFull: 7e6, Peak: 400e9})
	if body := get(t, out.String()); !strings.Contains(body, "herd_loss NaN\n") {
		t.Errorf("before the first step:\n%s", body)
	}
	r.Step(sample(1))
	skipped := sample(2)
	skipped.Applied = false
	r.Step(skipped)
	r.Validation(2, 2.5, time.Second)
	body := get(t, out.String())
	for _, want := range []string{
		"herd_step 2", "herd_steps 400", "herd_loss 5.98", "herd_validation_loss 2.5", "herd_tokens_total 4096",
		"herd_skipped_steps_total 1", "herd_mfu_ratio 0.3584", "herd_mfu_causal_ratio NaN", "herd_memory_bytes 2.22298112e+08",
		"herd_data_wait_seconds_total 0.002",
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("no line %q in\n%s", want, body)
		}
	}
}

func TestPrometheusPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out bytes.Buffer
	r := newRecorder(t, Options{Out: &out, Prometheus: l.Addr().String()})
	r.Step(sample(1))
	if !strings.HasPrefix(out.String(), "telemetry: Prometheus output ends here, training goes on: listen tcp") {
		t.Errorf("the log says %q", out.String())
	}
}

func TestListenAddress(t *testing.T) {
	for in, want := range map[string]string{
		":9090": "127.0.0.1:9090", "0.0.0.0:9090": "0.0.0.0:9090", "[::1]:80": "[::1]:80", "node7:9090": "node7:9090",
		"9090": "", "host": "", ":http": "", ":70000": "", "": "",
	} {
		if got, err := listenAddress(in); got != want || (err == nil) != (want != "") {
			t.Errorf("listenAddress(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if _, err := New(t.Context(), Options{Prometheus: "host"}); err == nil {
		t.Error("New accepted a metrics address without a port")
	}
}

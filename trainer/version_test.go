package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	code, out, _ := commandLineOf("version")
	if code != 0 || !strings.HasPrefix(out, "trainer ") || !strings.Contains(out, runtime.Version()) {
		t.Errorf("exit code %d, %q", code, out)
	}
	var b buildInfo
	code, out, _ = commandLineOf("version", "--json")
	if err := json.Unmarshal([]byte(out), &b); code != 0 || err != nil || b != readBuildInfo() {
		t.Errorf("exit code %d, %v, %+v", code, err, b)
	}
}

func TestVersionLine(t *testing.T) {
	b := buildInfo{Version: "v0.1.0", Revision: "0123abc", Modified: true, Go: "go1.26.0", Platform: "linux/amd64"}
	if want := "trainer v0.1.0 (0123abc, modified), go1.26.0 linux/amd64, plain Go kernels"; b.String() != want {
		t.Errorf("got %q, want %q", b, want)
	}
}

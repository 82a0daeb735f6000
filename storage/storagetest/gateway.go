package storagetest

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Gateway is an S3 server of a folder: versitygw, in a process of its own.
type Gateway struct {
	Dir string // the folder; its folders are buckets

	program, addr string
	cmd           *exec.Cmd
}

// Bucket is the bucket that a Gateway has.
const Bucket = "bucket"

// GatewayEnv names the program in the environment; without it the program is looked for in PATH.
const GatewayEnv = "HERD_VERSITYGW"

// StartGateway starts a server, and sets the environment so that OpenS3 finds it. The test is skipped if there is no such
// program. The server ends with the test.
func StartGateway(t *testing.T) *Gateway {
	t.Helper()
	program := os.Getenv(GatewayEnv)
	if program == "" {
		var err error
		if program, err = exec.LookPath("versitygw"); err != nil {
			t.Skip("no S3 server: make s3 builds versitygw; its path in " + GatewayEnv + ", or in PATH, runs this test")
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{Dir: t.TempDir(), program: program, addr: free.Addr().String()}
	free.Close()
	if err := os.Mkdir(filepath.Join(g.Dir, Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://"+g.addr)
	t.Setenv("AWS_ENDPOINT_URL_S3", "")
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "herd")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "herd-secret")
	g.Start(t)
	t.Cleanup(g.Kill)
	return g
}

// Start starts the server, again after Kill.
func (g *Gateway) Start(t *testing.T) {
	t.Helper()
	g.cmd = exec.Command(g.program, "--port", g.addr, "--access", "herd", "--secret", "herd-secret", "posix", g.Dir)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		r, err := http.Get("http://" + g.addr + "/")
		if err == nil {
			r.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
}

// Kill ends the server at once.
func (g *Gateway) Kill() {
	_ = g.cmd.Process.Kill() // unless it has ended
	_ = g.cmd.Wait()
}

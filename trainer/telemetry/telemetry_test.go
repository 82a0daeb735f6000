package telemetry

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is step i of a run of 400 whose loss falls and whose gradient norm swings around 1.
func sample(i int64) Step {
	return Step{
		Step: i, Steps: 400, Loss: 6 - 0.01*float64(i), GradNorm: 1 + 0.1*float64(i%5-2), LR: 2.87e-3,
		Tokens: 2048, TokensSeen: 2048 * i, Duration: 100 * time.Millisecond, DataWait: time.Millisecond,
		Applied: true, Memory: 212 << 20,
	}
}

func newRecorder(t *testing.T, o Options) *Recorder {
	t.Helper()
	r, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

func TestStepLine(t *testing.T) {
	var out bytes.Buffer
	r := newRecorder(t, Options{Out: &out, FLOPsFull: 7e6, FLOPsCausal: 6.5e6, Peak: 400e9})
	r.Step(sample(1))
	for i := range int64(scoreMin) {
		r.Step(sample(i + 2))
	}
	skipped := sample(18)
	skipped.Loss, skipped.GradNorm, skipped.Applied = math.NaN(), math.Inf(1), false
	skipped.CheckpointStall, skipped.Memory = 300*time.Millisecond, 3<<30
	r.Step(skipped)
	r.Validation(18, 2.5, 1234567*time.Microsecond)
	r.Event("saved step %d", 18)

	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	got := []string{lines[0], lines[scoreMin], lines[scoreMin+1], lines[scoreMin+2], lines[scoreMin+3]}
	want := []string{
		"step 1/400 loss 5.9900 (-) grad 0.9 (-) lr 2.87e-03 tok/s 20,480 mfu 35.8%/33.3% (full/causal)" +
			" data 1.0% ckpt 0.0% mem 212MiB eta 40s",
		// The median of losses 1 … 16 is 5.915, their median deviation 0.04, so step 17 is 0.085 / 0.0593 below. That of
		// the norms is 1 and 0.1.
		"step 17/400 loss 5.8300 (-1.43z) grad 1 (+0.00z) lr 2.87e-03 tok/s 20,480 mfu 35.8%/33.3% (full/causal)" +
			" data 1.0% ckpt 0.0% mem 212MiB eta 38s",
		"step 18/400 loss NaN (-) grad +Inf (-) lr 2.87e-03 tok/s 5,120 mfu 9.0%/8.3% (full/causal)" +
			" data 0.2% ckpt 75.0% mem 3.0GiB eta 45s skipped",
		"validation step 18 loss 2.5000 perplexity 12.18 time 1.235s",
		"saved step 18",
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line\n got %s\nwant %s", got[i], want[i])
		}
	}
}

func TestUnknownNumbersAreDashes(t *testing.T) {
	var out bytes.Buffer
	r := newRecorder(t, Options{Out: &out})
	r.Step(Step{Step: 1, Steps: 1, Applied: true})
	if want := "tok/s - mfu -/- (full/causal) data - ckpt - mem "; !strings.Contains(out.String(), want) {
		t.Errorf("got %q, want it to hold %q", out.String(), want)
	}
	if strings.Contains(out.String(), "mem -") {
		t.Errorf("memory was not measured: %q", out.String())
	}
}

// screen applies what the live line uses of ANSI and returns the lines that a terminal would show.
func screen(s string) []string {
	lines := []string{""}
	for s != "" {
		last := &lines[len(lines)-1]
		switch {
		case strings.HasPrefix(s, eraseLine):
			*last, s = "", s[len(eraseLine):]
		case s[0] == '\n':
			lines, s = append(lines, ""), s[1:]
		default:
			*last, s = *last+s[:1], s[1:]
		}
	}
	return lines
}

func TestLiveLine(t *testing.T) {
	var out bytes.Buffer
	r := newRecorder(t, Options{Out: &out, Terminal: true, Width: 72})
	r.Event("start")
	r.Step(sample(100))
	got := screen(out.String())
	bar := "██████░░░░░░░░░░░░░░░░░░░  25% 100/400 loss 5.0000 20,480 tok/s eta 30s"
	if len(got) != 3 || got[0] != "start" || !strings.HasPrefix(got[1], "step 100/400 ") || got[2] != bar {
		t.Errorf("after a step the screen shows\n%s\nwant the step's line above\n%s", strings.Join(got, "\n"), bar)
	}
	r.Event("saved")
	r.Step(sample(101))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got = screen(out.String())
	if len(got) != 5 || got[2] != "saved" || !strings.HasPrefix(got[3], "step 101/400 ") || got[4] != "" {
		t.Errorf("after Close the screen shows\n%s\nwant four log lines and nothing else", strings.Join(got, "\n"))
	}
}

func TestLiveLineFitsItsTerminal(t *testing.T) {
	meter := newMeter(Options{})
	for _, s := range []Step{sample(1), sample(399), sample(400), {}} {
		m := meter.measure(s, time.Time{})
		for width := 1; width < 130; width++ {
			if n := len([]rune(m.bar(width))); n >= width {
				t.Errorf("step %d on %d columns: a line of %d", s.Step, width, n)
			}
		}
	}
}

func TestETAFollowsTheLastSteps(t *testing.T) {
	meter := newMeter(Options{})
	for i := range int64(100) {
		s := sample(i)
		if i >= 100-etaWindow {
			s.Duration = time.Second
		}
		meter.measure(s, time.Time{})
	}
	s := sample(100)
	s.Duration = time.Second
	if m := meter.measure(s, time.Time{}); m.eta != 300*time.Second {
		t.Errorf("eta %v after %d steps of 1s with 300 to go, want 5m0s", m.eta, etaWindow)
	}
}

func TestScoreIgnoresOneSpike(t *testing.T) {
	w := window{size: scoreWindow}
	for i := range 3 * scoreWindow { // the window wraps
		w.add(float64(i % 3))
	}
	before := w.score(4)
	w.add(1e9)
	if after := w.score(4); after != before || before < 1 {
		t.Errorf("the score of 4 among 0, 1, 2 is %v, with a spike among them %v", before, after)
	}
	flat := window{size: scoreWindow}
	for range scoreMin {
		flat.add(7)
	}
	if z := flat.score(8); !math.IsNaN(z) {
		t.Errorf("the score against equal values is %v, want NaN", z)
	}
}

// failing is a writer on a full disk.
type failing struct{}

var errFull = errors.New("no space left on device")

func (failing) Write([]byte) (int, error) { return 0, errFull }

func TestFailedOutputIsReportedOnceAndTheOthersGoOn(t *testing.T) {
	var out bytes.Buffer
	dir := t.TempDir()
	r := newRecorder(t, Options{Out: &out, JSONL: filepath.Join(dir, "steps.jsonl"), TensorBoard: dir})
	for _, o := range r.outputs {
		if j, ok := o.output.(*jsonl); ok {
			j.file.Close()
		}
	}
	r.Step(sample(1))
	r.Step(sample(2))
	if n := strings.Count(out.String(), "telemetry: JSON lines output ends here"); n != 1 {
		t.Errorf("the failure is reported %d times in\n%s", n, out.String())
	}
	if n := strings.Count(out.String(), "\n"); n != 3 || len(r.outputs) != 1 {
		t.Errorf("%d log lines and %d outputs, want 3 and the TensorBoard one:\n%s", n, len(r.outputs), out.String())
	}
}

func TestOutputThatCannotOpenIsLeftOut(t *testing.T) {
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRecorder(t, Options{Out: &out, JSONL: filepath.Join(file, "x"), TensorBoard: filepath.Join(file, "y")})
	r.Step(sample(1))
	if n := strings.Count(out.String(), "ends here, training goes on"); n != 2 {
		t.Errorf("%d reports, want one for each output:\n%s", n, out.String())
	}
}

func TestFailedLogIsTheErrorOfClose(t *testing.T) {
	r, err := New(t.Context(), Options{Out: failing{}})
	if err != nil {
		t.Fatal(err)
	}
	r.Step(sample(1))
	r.Event("still here")
	if err := r.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close: %v, want %v", err, errFull)
	}
}

func TestConcurrentUse(t *testing.T) {
	r := newRecorder(t, Options{Out: io.Discard, Terminal: true, JSONL: filepath.Join(t.TempDir(), "steps.jsonl")})
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			r.Event("goroutine %d", i)
			r.Step(sample(i))
			r.Validation(i, 2, time.Second)
		})
	}
	wg.Wait()
}

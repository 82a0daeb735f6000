package run

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/trainer/config"
)

// BenchmarkFirstStep is the time from the start of a process to the end of the first step of llama3-debug as configs/
// has it, the validation before that step included.
func BenchmarkFirstStep(b *testing.B) {
	dir := b.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("The quick brown fox jumps over the lazy dog.\n", 1<<15)), 0o644); err != nil {
		b.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	_, err := dataset.Prepare(b.Context(), dataset.PrepareOptions{
		Inputs: []string{text}, Output: data, TokenizerKind: dataset.KindByte, SequenceLength: 128,
	})
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		job, err := config.Load("../../configs/llama3-debug.yaml", []string{
			fmt.Sprintf("job.output=%s/out-%d", dir, i), "data.train.0.path=" + data, "data.validation.path=" + data,
			"tokenizer.kind=byte", "tokenizer.path=''",
		})
		if err != nil {
			b.Fatal(err)
		}
		c := startChild(b, job, 0)
		for c.lines.Scan() && !strings.HasPrefix(c.lines.Text(), "step 1/") {
			continue
		}
		b.StopTimer()
		if err := c.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		if !died(b, c.Wait()) {
			b.Fatal("the run ended before its first step")
		}
		b.StartTimer()
	}
}

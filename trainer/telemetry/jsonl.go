package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"
)

// jsonl appends one JSON object a line to a file. Each line is one write, so a reader never waits for it; only close
// syncs.
type jsonl struct{ file *os.File }

// number is a float64 that JSON can hold: null stands for NaN and the infinities.
type number float64

func (x number) MarshalJSON() ([]byte, error) {
	if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(x))
}

// The objects of the file, described in docs/telemetry.md.
type (
	resumeLine struct {
		Resume int64 `json:"resume"`
	}
	stepLine struct {
		Time            time.Time `json:"time"`
		Step            int64     `json:"step"`
		Steps           int64     `json:"steps"`
		Loss            number    `json:"loss"`
		LossZ           number    `json:"loss_z"`
		GradNorm        number    `json:"grad_norm"`
		GradNormZ       number    `json:"grad_norm_z"`
		LR              number    `json:"lr"`
		Tokens          int64     `json:"tokens"`
		TokensSeen      int64     `json:"tokens_seen"`
		TokensPerSecond number    `json:"tokens_per_second"`
		MFU             number    `json:"mfu"`
		MFUCausal       number    `json:"mfu_causal"`
		Duration        number    `json:"duration"`
		DataWait        number    `json:"data_wait"`
		Checkpoint      number    `json:"checkpoint_stall"`
		Memory          int64     `json:"memory"`
		ETA             number    `json:"eta"`
		Applied         bool      `json:"applied"`
	}
	validationLine struct {
		Time     time.Time `json:"time"`
		Step     int64     `json:"step"`
		Loss     number    `json:"validation_loss"`
		Duration number    `json:"validation_duration"`
	}
)

// openJSONL opens path for appending. What a crash left of a last line is cut off. In a file that has lines already,
// a line {"resume": step} says that those of later steps are superseded.
func openJSONL(path string, resume int64) (*jsonl, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	j := &jsonl{file}
	size, err := cutTornLine(file)
	if err == nil && size > 0 {
		err = j.append(resumeLine{resume})
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return j, nil
}

// cutTornLine truncates f after its last newline and returns its size then.
func cutTornLine(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	tail := make([]byte, min(info.Size(), 64<<10))
	start := info.Size() - int64(len(tail))
	if _, err := f.ReadAt(tail, start); err != nil && err != io.EOF {
		return 0, err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	if end == 0 && start > 0 {
		return 0, fmt.Errorf("%s: its last 64 KiB hold no line: not a file of JSON lines", f.Name())
	}
	return start + int64(end), f.Truncate(start + int64(end))
}

func (j *jsonl) append(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = j.file.Write(append(line, '\n'))
	return err
}

func (j *jsonl) step(m *measurement) error {
	return j.append(stepLine{
		Time: m.time, Step: m.Step.Step, Steps: m.Steps,
		Loss: number(m.Loss), LossZ: number(m.lossZ), GradNorm: number(m.GradNorm), GradNormZ: number(m.gradNormZ),
		LR: number(m.LR), Tokens: m.Tokens, TokensSeen: m.TokensSeen, TokensPerSecond: number(m.tokensPerSecond),
		MFU: number(m.mfuFull), MFUCausal: number(m.mfuCausal), Duration: number(m.Duration.Seconds()),
		DataWait: number(m.dataWait), Checkpoint: number(m.checkpoint), Memory: m.Memory,
		ETA: number(m.eta.Seconds()), Applied: m.Applied,
	})
}

func (j *jsonl) validation(v *validation) error {
	return j.append(validationLine{v.time, v.step, number(v.loss), number(v.duration.Seconds())})
}

func (j *jsonl) close() error { return errors.Join(j.file.Sync(), j.file.Close()) }

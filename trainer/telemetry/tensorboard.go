package telemetry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// tensorBoard writes one TensorBoard event file: records of a protobuf Event, framed as TFRecords are. TensorBoard
// joins the files of a directory by wall time and step.
type tensorBoard struct{ file *os.File }

// Fields of tensorflow's event.proto and summary.proto.
const (
	eventWallTime    = 1 // double, seconds since 1970
	eventStep        = 2 // int64
	eventFileVersion = 3 // string, the first event only
	eventSummary     = 5
	eventSessionLog  = 7
	summaryValue     = 1 // repeated
	valueTag         = 1 // string
	valueSimpleValue = 2 // float
	sessionStatus    = 1 // enum
	sessionStart     = 1
)

// openTensorBoard starts a new event file in dir. After a resume its session record makes TensorBoard drop what other
// files hold of later steps.
func openTensorBoard(dir string, resume int64) (*tensorBoard, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	now := time.Now()
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	name := fmt.Sprintf("events.out.tfevents.%d.%s.%d.*", now.Unix(), host, os.Getpid())
	file, err := os.CreateTemp(dir, name)
	if err != nil {
		return nil, err
	}
	t := &tensorBoard{file}
	version := protowire.AppendTag(event(now, 0), eventFileVersion, protowire.BytesType)
	version = protowire.AppendString(version, "brain.Event:2")
	session := protowire.AppendTag(nil, sessionStatus, protowire.VarintType)
	session = protowire.AppendVarint(session, sessionStart)
	start := protowire.AppendTag(event(now, resume+1), eventSessionLog, protowire.BytesType)
	start = protowire.AppendBytes(start, session)
	if err := errors.Join(file.Chmod(0o644), t.append(version), t.append(start)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return t, nil
}

type scalar struct {
	tag   string
	value float64
}

func (t *tensorBoard) step(m *measurement) error {
	return t.scalars(m.time, m.Step.Step, []scalar{
		{"loss", m.Loss}, {"loss_z", m.lossZ}, {"grad_norm", m.GradNorm}, {"grad_norm_z", m.gradNormZ}, {"lr", m.LR},
		{"tokens_per_second", m.tokensPerSecond}, {"tokens_seen", float64(m.TokensSeen)},
		{"mfu", m.mfuFull}, {"mfu_causal", m.mfuCausal},
		{"data_wait", m.dataWait}, {"checkpoint_stall", m.checkpoint}, {"memory", float64(m.Memory)},
	})
}

func (t *tensorBoard) validation(v *validation) error {
	return t.scalars(v.time, v.step, []scalar{{"validation_loss", v.loss}})
}

// scalars appends one event with those of s that are known and finite.
func (t *tensorBoard) scalars(now time.Time, step int64, s []scalar) error {
	var summary []byte
	for _, x := range s {
		if math.IsNaN(x.value) || math.IsInf(x.value, 0) {
			continue
		}
		value := protowire.AppendTag(nil, valueTag, protowire.BytesType)
		value = protowire.AppendString(value, x.tag)
		value = protowire.AppendTag(value, valueSimpleValue, protowire.Fixed32Type)
		value = protowire.AppendFixed32(value, math.Float32bits(float32(x.value)))
		summary = protowire.AppendTag(summary, summaryValue, protowire.BytesType)
		summary = protowire.AppendBytes(summary, value)
	}
	e := protowire.AppendTag(event(now, step), eventSummary, protowire.BytesType)
	return t.append(protowire.AppendBytes(e, summary))
}

// event is the start of an Event: its time and step.
func event(now time.Time, step int64) []byte {
	b := protowire.AppendTag(nil, eventWallTime, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(float64(now.UnixMicro())/1e6))
	b = protowire.AppendTag(b, eventStep, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(step))
}

// append writes one record: length, its checksum, the data, its checksum.
func (t *tensorBoard) append(data []byte) error {
	record := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	record = binary.LittleEndian.AppendUint32(record, maskedCRC(record))
	record = append(record, data...)
	record = binary.LittleEndian.AppendUint32(record, maskedCRC(data))
	_, err := t.file.Write(record)
	return err
}

func (t *tensorBoard) close() error { return errors.Join(t.file.Sync(), t.file.Close()) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is the crc32c of b, rotated and shifted by a constant as TFRecord does it.
func maskedCRC(b []byte) uint32 {
	crc := crc32.Checksum(b, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}

package telemetry

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// crcBitwise is crc32c from its polynomial, and the mask from its definition, to check maskedCRC and its table.
func crcBitwise(b []byte) uint32 {
	crc := ^uint32(0)
	for _, x := range b {
		crc ^= uint32(x)
		for range 8 {
			if crc&1 == 1 {
				crc = crc>>1 ^ 0x82f63b78
			} else {
				crc >>= 1
			}
		}
	}
	crc = ^crc
	return (crc>>15 | crc<<17) + 0xa282ead8
}

// fields decodes one protobuf message into its fields' values: uint64 for numbers, []byte for the rest.
func fields(t *testing.T, b []byte) map[protowire.Number][]any {
	t.Helper()
	out := map[protowire.Number][]any{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		var value any
		switch kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(b)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			value = uint64(x)
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(b)
		default:
			t.Fatalf("field %d has wire type %d", number, kind)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		out[number], b = append(out[number], value), b[n:]
	}
	return out
}

// readEvents returns the messages of a TFRecord file, after checking its checksums.
func readEvents(t *testing.T, b []byte) []map[protowire.Number][]any {
	t.Helper()
	var events []map[protowire.Number][]any
	for len(b) > 0 {
		if len(b) < 16 {
			t.Fatalf("%d bytes after the last record", len(b))
		}
		n := binary.LittleEndian.Uint64(b)
		if crcBitwise(b[:8]) != binary.LittleEndian.Uint32(b[8:]) || uint64(len(b)) < 16+n {
			t.Fatalf("record %d: bad length %d or its checksum", len(events), n)
		}
		data := b[12 : 12+n]
		if crcBitwise(data) != binary.LittleEndian.Uint32(b[12+n:]) {
			t.Fatalf("record %d: bad checksum", len(events))
		}
		events, b = append(events, fields(t, data)), b[16+n:]
	}
	return events
}

func TestTensorBoardReadsBack(t *testing.T) {
	dir := t.TempDir()
	r := newRecorder(t, Options{TensorBoard: dir, Resume: 6})
	s := sample(7)
	s.Loss = math.NaN()
	r.Step(s)
	r.Step(sample(300))
	r.Validation(300, 2.5, 0)

	names, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("event files %v, %v", names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	events := readEvents(t, b)
	if len(events) != 5 || string(events[0][3][0].([]byte)) != "brain.Event:2" {
		t.Fatalf("%d events, the first %v", len(events), events[0])
	}
	if start := fields(t, events[1][7][0].([]byte)); events[1][2][0].(uint64) != 7 || start[1][0].(uint64) != 1 {
		t.Errorf("session record %v, want START at step 7", events[1])
	}
	got := map[string]float64{}
	for _, e := range events[2:] {
		for _, v := range fields(t, e[5][0].([]byte))[1] {
			value := fields(t, v.([]byte))
			key := fmt.Sprintf("%d %s", e[2][0].(uint64), value[1][0].([]byte))
			got[key] = float64(math.Float32frombits(uint32(value[2][0].(uint64))))
		}
	}
	for key, want := range map[string]float64{
		"7 grad_norm": 1, "7 tokens_per_second": 20480, "300 loss": 3, "300 lr": 2.87e-3, "300 data_wait": 0.01,
		"300 checkpoint_stall": 0, "300 tokens_seen": 300 * 2048, "300 memory": 212 << 20, "300 validation_loss": 2.5,
	} {
		if x, ok := got[key]; !ok || math.Abs(x-want) > 1e-6*math.Abs(want) {
			t.Errorf("%s is %v, want %v", key, x, want)
		}
	}
	for _, key := range []string{"7 loss", "300 mfu"} {
		if x, ok := got[key]; ok {
			t.Errorf("%s is %v, want it left out: it is unknown", key, x)
		}
	}
}

// Every event file starts with the length 24 and its masked checksum: the version record is always that long.
func TestTensorBoardMagic(t *testing.T) {
	length := binary.LittleEndian.AppendUint64(nil, 24)
	if got := hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, maskedCRC(length))); got != "a37f4b22" {
		t.Errorf("masked crc32c of the length 24: %s, want a37f4b22", got)
	}
}

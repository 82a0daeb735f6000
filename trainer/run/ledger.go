package run

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// Record is one line of the ledger: what happened to a step's samples. The lines are JSON, each ending in a CRC-32C of
// what stands before it, so that a torn or changed line is noticed.
type Record struct {
	Generation int64 `json:"generation"`
	Step       int64 `json:"step"` // counted from 0
	// Rollback voids the records of Step and later: this generation starts there, from a checkpoint.
	Rollback bool    `json:"rollback,omitempty"`
	First    int64   `json:"first"`            // global sample ordinals [First, First+Count)
	Count    int64   `json:"count"`            //
	Digest   string  `json:"digest,omitempty"` // of the batch: see batchDigest
	Applied  bool    `json:"applied"`          // false: consumed, but loss or gradient was not finite
	Loss     float64 `json:"loss"`             // mean over the targets; 0 when it was not finite
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrLedger is a ledger whose lines before the last are damaged.
var ErrLedger = errors.New("damaged ledger")

// Ledger is the append-only record of the steps of a run. It belongs to the goroutine that trains.
type Ledger struct {
	f *os.File
}

// OpenLedger opens or creates the ledger at path for appending. An unfinished last line, of a process that died while
// writing it, is cut off.
func OpenLedger(path string) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	end, err := scanLedger(f, func(Record) {})
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	return &Ledger{f}, nil
}

// Append writes a record. It is durable after the next Sync.
func (l *Ledger) Append(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	line := fmt.Appendf(b, " %08x\n", crc32.Checksum(b, castagnoli))
	if _, err := l.f.Write(line); err != nil {
		return fmt.Errorf("ledger %s: %w", filepath.Base(l.f.Name()), err)
	}
	return nil
}

// Sync makes what was appended durable.
func (l *Ledger) Sync() error { return l.f.Sync() }

// Close syncs and closes the ledger.
func (l *Ledger) Close() error { return errors.Join(l.f.Sync(), l.f.Close()) }

// Lineage reads the ledger at path and returns the records that the surviving weights saw, in step order: later
// generations void what they rolled back.
func Lineage(path string) ([]Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var line []Record
	_, err = scanLedger(f, func(r Record) {
		if r.Rollback {
			for len(line) > 0 && line[len(line)-1].Step >= r.Step {
				line = line[:len(line)-1]
			}
			return
		}
		line = append(line, r)
	})
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	return line, nil
}

// maxLedgerLine bounds what a damaged ledger can make a reader hold.
const maxLedgerLine = 4096

// scanLedger calls each for every whole record and returns the offset after the last. A last line that is torn is left
// out; a bad line before it is ErrLedger.
func scanLedger(r io.Reader, each func(Record)) (end int64, err error) {
	in := bufio.NewReaderSize(r, maxLedgerLine)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return end, err
		}
		rec, ok := parseRecord(line)
		if !ok {
			if _, err := in.Peek(1); errors.Is(err, io.EOF) {
				return end, nil
			}
			return end, fmt.Errorf("line %d: checksum or form is wrong: %w", n, ErrLedger)
		}
		each(rec)
		end += int64(len(line))
	}
}

func parseRecord(line []byte) (r Record, ok bool) {
	body, sum, found := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("} "))
	if !found {
		return r, false
	}
	body = line[:len(body)+1]
	if fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) != string(sum) {
		return r, false
	}
	return r, json.Unmarshal(body, &r) == nil
}

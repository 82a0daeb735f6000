package run

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestLedgerLineage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	rec := func(gen, step int64) Record {
		return Record{Generation: gen, Step: step, First: step * 4, Count: 4, Digest: "00c0ffee", Applied: true, Loss: 1.5}
	}
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	for step := range int64(5) {
		if err := l.Append(rec(1, step)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The process dies in the middle of a line.
	b, _ := os.ReadFile(path)
	if err := os.WriteFile(path, b[:len(b)-7], 0o644); err != nil {
		t.Fatal(err)
	}
	l, err = OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{{Generation: 2, Step: 2, Rollback: true}, rec(2, 2), rec(2, 3)} {
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := Lineage(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Record{rec(1, 0), rec(1, 1), rec(2, 2), rec(2, 3)}; !reflect.DeepEqual(got, want) {
		t.Errorf("lineage = %v\nwant %v", got, want)
	}
}

func TestLedgerDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	for step := range int64(3) {
		if err := l.Append(Record{Generation: 1, Step: step}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(path)
	lineLen := len(whole) / 3
	for i := range whole {
		b := append([]byte(nil), whole...)
		b[i] ^= 4
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := Lineage(path)
		if i < 2*lineLen-1 { // not the last line, nor the newline that ends the one before
			if !errors.Is(err, ErrLedger) {
				t.Fatalf("byte %d changed: error %v, want ErrLedger", i, err)
			}
		} else if err == nil && len(got) > 2 {
			t.Fatalf("byte %d changed: %d records, none missing", i, len(got))
		}
	}
}

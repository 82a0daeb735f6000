package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
	"github.com/herdtrain/herd/tensor"
)

var ctx = context.Background()

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sampleState is a state with every field set.
func sampleState(step int64, parent Ref) State {
	return State{
		Step: step, Generation: 3, Incarnation: "6f9d1c1e-0b1f-4f0e-9a52-0d6a1c2b3d4e", Parent: parent,
		JobName: "llama3-debug", JobDigest: "blake3:1234", Config: "version: 1\njob: {name: llama3-debug}\n",
		TokenizerDigest: "blake3:5678", DatasetDigest: "blake3:9abc",
		Samples: 16 * step, Tokens: 16 * 128 * step, Seed: math.MaxUint64, RNGPolicy: "philox4x32-10",
		ValidationLoss: 2.5, OptimizerStep: step, DTypePolicy: "bf16 weights, fp32 master and moments",
		Layout: Layout{Data: 8, Tensor: 4, Pipeline: 2, Context: 1, Zero: 1}, CodeVersion: "v0.1.0",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
}

// sampleTensors depend on the step in every byte: a mix of two saves shows.
func sampleTensors(step int64) []Tensor {
	fill := func(n int) []byte {
		var b []byte
		for i := range n {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(step)+float32(i)/1024))
		}
		return b
	}
	return []Tensor{
		{Name: "model.embed.weight", DType: tensor.F32, Shape: []int64{4, 5}, Data: fill(20)},
		{Name: "adamw/m/model.embed.weight", DType: tensor.BF16, Shape: []int64{2, 1025}, Data: fill(1025)},
		{Name: "scale", DType: tensor.F64, Data: fill(2)},
		{Name: "ids", DType: tensor.I32, Shape: []int64{1}, Data: fill(1)},
	}
}

// save saves and commits.
func save(t testing.TB, fsys storage.FS, root string, step int64, parent Ref) Ref {
	t.Helper()
	ref, err := Save(ctx, fsys, root, sampleState(step, parent), sampleTensors(step))
	if err != nil {
		t.Fatal(err)
	}
	if err := (FileCommitter{fsys, root}).Commit(ctx, ref); err != nil {
		t.Fatal(err)
	}
	return ref
}

// same says how c differs from what save saved.
func same(c *Checkpoint, parent Ref) error {
	return sameAs(c, sampleState(c.State().Step, parent))
}

func sameAs(c *Checkpoint, want State) error {
	want.Attempt, want.ConfigDigest = c.State().Attempt, c.State().ConfigDigest
	if got := c.State(); !reflect.DeepEqual(got, want) {
		return fmt.Errorf("state %+v, want %+v", got, want)
	}
	return sameTensors(c)
}

func sameTensors(c *Checkpoint) error {
	tensors := sampleTensors(c.State().Step)
	if len(c.Tensors()) != len(tensors) {
		return fmt.Errorf("%d tensors, want %d", len(c.Tensors()), len(tensors))
	}
	for _, want := range tensors {
		info, ok := c.Info(want.Name)
		if !ok || info.DType != want.DType || len(info.Shape) != len(want.Shape) ||
			slices.ContainsFunc(info.Slices, func(s Slice) bool { return s.Begin%4096 != 0 }) {
			return fmt.Errorf("tensor %q: %+v", want.Name, info)
		}
		got := make([]byte, info.Bytes)
		if err := c.Read(ctx, want.Name, got); err != nil {
			return err
		}
		if !bytes.Equal(got, want.Data) {
			return fmt.Errorf("tensor %q differs", want.Name)
		}
	}
	return nil
}

func TestRoundTrip(t *testing.T) {
	for name, c := range map[string]struct {
		fs   storage.FS
		root string
	}{
		"os":  {storage.OS, filepath.Join(t.TempDir(), "run", Folder)},
		"mem": {storagetest.NewMem(), Folder},
	} {
		t.Run(name, func(t *testing.T) {
			first := save(t, c.fs, c.root, 10, Ref{})
			second := save(t, c.fs, c.root, 20, first)
			if second.Name != "step-00000020.gen-3.a-1" {
				t.Errorf("name %q", second.Name)
			}
			for ref, parent := range map[string]Ref{first.Name: {}, second.Name: first} {
				got, err := Open(ctx, c.fs, filepath.Join(c.root, ref))
				if err != nil {
					t.Fatal(err)
				}
				if err := same(got, parent); err != nil {
					t.Error(err)
				}
				if again := got.Ref(); again.Name != ref || !reflect.DeepEqual(again.Ancestors, parent.lineage()) {
					t.Errorf("Ref is %+v", again)
				}
				var last, total int64
				if err := got.Verify(ctx, func(d, n int64) { last, total = d, n }); err != nil || last != total ||
					total == 0 {
					t.Errorf("verify: %v, %d of %d", err, last, total)
				}
			}
			head, err := FileCommitter{c.fs, c.root}.Latest(ctx)
			if err != nil || !reflect.DeepEqual(head, second) {
				t.Errorf("latest is %+v, %v; want %+v", head, err, second)
			}
		})
	}
}

func TestReadErrors(t *testing.T) {
	m := storagetest.NewMem()
	ref := save(t, m, "r", 10, Ref{})
	c, err := Open(ctx, m, filepath.Join("r", ref.Name))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Read(ctx, "scales", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tensor that is not there: %v", err)
	}
	if err := c.Read(ctx, "scale", make([]byte, 7)); err == nil {
		t.Error("a tensor was read into too few bytes")
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Read(ended, "scale", make([]byte, 8)); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if err := c.Verify(ended, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("verify: %v", err)
	}
	if _, err := Open(ctx, m, "r/step-00000099.gen-1.a-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("open nothing: %v", err)
	}
}

// A second save of a step has a directory of its own, whatever became of the first.
func TestAttempts(t *testing.T) {
	m := storagetest.NewMem()
	first := save(t, m, "r", 10, Ref{})
	if err := m.Mkdir("r/step-00000010.gen-3.a-7"); err != nil {
		t.Fatal(err)
	}
	second := save(t, m, "r", 10, first)
	if second.Name != "step-00000010.gen-3.a-8" {
		t.Errorf("name %q", second.Name)
	}
	if gen, err := NextGeneration(m, "r"); gen != 4 || err != nil {
		t.Errorf("next generation %d, %v", gen, err)
	}
	if gen, err := NextGeneration(m, "nothing"); gen != 1 || err != nil {
		t.Errorf("next generation %d, %v", gen, err)
	}
}

func TestSaveRefuses(t *testing.T) {
	one := func(t Tensor) []Tensor { return []Tensor{t} }
	long := strings.Repeat("x", 600)
	part := func(b Box, bytes int) Tensor {
		return Tensor{Name: "a", DType: tensor.F32, Shape: []int64{2}, Box: b, Data: make([]byte, bytes)}
	}
	for want, c := range map[string]struct {
		change  func(*State)
		tensors []Tensor
	}{
		"generation 0":          {change: func(s *State) { s.Generation = 0 }},
		"samples -1":            {change: func(s *State) { s.Samples = -1 }},
		"job file has":          {change: func(s *State) { s.Config = strings.Repeat("a", maxConfig+1) }},
		"not valid UTF-8":       {change: func(s *State) { s.Config = "\xff" }},
		"no name of a check":    {change: func(s *State) { s.Parent.Name = "../x" }},
		"record 0 has":          {change: func(s *State) { s.RNGPolicy = strings.Repeat("a", maxManifestRecord) }},
		"has no dtype":          {tensors: one(Tensor{Name: "a"})},
		"has 3 bytes":           {tensors: one(Tensor{Name: "a", DType: tensor.F32, Data: make([]byte, 3)})},
		"at least 1":            {tensors: one(Tensor{Name: "a", DType: tensor.F32, Shape: []int64{0}})},
		"overflows":             {tensors: one(Tensor{Name: "a", DType: tensor.F32, Shape: []int64{1 << 31, 1 << 31}})},
		"9 dimensions":          {tensors: one(Tensor{Name: "a", DType: tensor.F32, Shape: make([]int64, 9)})},
		"no path":               {tensors: one(Tensor{Name: "a/../b", DType: tensor.F32, Data: make([]byte, 4)})},
		"does not print":        {tensors: one(Tensor{Name: "a\x00", DType: tensor.F32, Data: make([]byte, 4)})},
		"want at most 512":      {tensors: one(Tensor{Name: long, DType: tensor.F32, Data: make([]byte, 4)})},
		"both hold element":     {tensors: append(sampleTensors(1), sampleTensors(1)...)},
		"none of its 1 slices":  {tensors: one(part(Box{[]int64{0}, []int64{1}}, 4))},
		"not within shape":      {tensors: one(part(Box{[]int64{1}, []int64{2}}, 8))},
		"has 8 bytes":           {tensors: one(part(Box{[]int64{0}, []int64{1}}, 8))},
		"does not have the dim": {tensors: one(part(Box{[]int64{0, 0}, []int64{1, 2}}, 8))},
	} {
		m := storagetest.NewMem()
		st := sampleState(1, Ref{})
		if c.change != nil {
			c.change(&st)
		}
		_, err := Save(ctx, m, "r", st, c.tensors)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
		if list, _ := List(ctx, m, "r", Ref{}); len(list) != 0 {
			t.Errorf("%s: left %v", want, list)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	m := storagetest.NewMem()
	if _, err := Save(ended, m, "r", sampleState(1, Ref{}), sampleTensors(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"step-00000120.gen-3.a-1": true, "step-123456789.gen-1.a-10": true,
		"step-120.gen-3.a-1": false, "step-00000120.gen-0.a-1": false, "step-00000120.gen-3.a-1.tmp": false,
		"step-00000120.gen-03.a-1": false, "step--0000120.gen-3.a-1": false, "": false, "latest": false,
		" step-00000120.gen-3.a-1": false, "step-00000120.gen-+3.a-1": false,
		"step-99999999999999999999.gen-1.a-1": false,
	} {
		if _, ok := parseID(name); ok != want {
			t.Errorf("parseID(%q) is %v", name, ok)
		}
	}
}

package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
	"github.com/herdtrain/herd/tensor"
)

// pick copies a box out of a whole tensor, element by element.
func pick(t Tensor, b Box) []byte {
	var out []byte
	size := int64(t.DType.Size())
	for _, x := range b.elements(t.Shape) {
		out = append(out, t.Data[x*size:(x+1)*size]...)
	}
	return out
}

// drawShards draws tensors and deals random boxes of them to 1 to 5 writers.
func drawShards(t *rapid.T) (tensors []Tensor, shards [][]Tensor) {
	shards = make([][]Tensor, rapid.IntRange(1, 5).Draw(t, "writers"))
	for i := range rapid.IntRange(1, 4).Draw(t, "tensors") {
		whole := Tensor{
			Name: fmt.Sprintf("layer.%d/w", i), Shape: drawShape(t),
			DType: rapid.SampledFrom([]tensor.DType{tensor.F32, tensor.BF16, tensor.F64, tensor.I32}).Draw(t, "dtype"),
		}
		whole.Data = make([]byte, product(whole.Shape)*int64(whole.DType.Size()))
		for j := range whole.Data {
			whole.Data[j] = byte(rapid.Uint8().Draw(t, "byte"))
		}
		tensors = append(tensors, whole)
		for _, b := range drawPartition(t, Whole(whole.Shape), 4) {
			w := rapid.IntRange(0, len(shards)-1).Draw(t, "writer")
			part := whole
			part.Box, part.Data = b, pick(whole, b)
			at := rapid.IntRange(0, len(shards[w])).Draw(t, "place")
			shards[w] = slices.Insert(shards[w], at, part)
		}
	}
	return tensors, shards
}

// Whatever boxes tensors are written in, by whatever writers, they are read back in any other boxes.
func TestShards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tensors, shards := drawShards(t)
		m := storagetest.NewMem()
		ref, err := saveShards(m, "r", sampleState(10, Ref{}), shards)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Open(ctx, m, filepath.Join("r", ref.Name))
		if err != nil {
			t.Fatal(err)
		}
		if again := c.Ref(); again.Manifest != ref.Manifest || len(c.Tensors()) != len(tensors) {
			t.Fatalf("%+v with %d tensors, want %+v with %d", again, len(c.Tensors()), ref, len(tensors))
		}
		if err := c.Verify(ctx, nil); err != nil {
			t.Fatal(err)
		}
		for _, want := range tensors {
			info, ok := c.Info(want.Name)
			if !ok || !slices.Equal(info.Shape, want.Shape) || info.DType != want.DType ||
				info.Bytes != int64(len(want.Data)) {
				t.Fatalf("tensor %+v is described as %+v", want, info)
			}
			got := make([]byte, info.Bytes)
			if err := c.Read(ctx, want.Name, got); err != nil || !bytes.Equal(got, want.Data) {
				t.Fatalf("tensor %+v was read as %v, %v", want, got, err)
			}
			var parts []Part
			for range rapid.IntRange(0, 3).Draw(t, "parts") { // they may overlap
				b := drawBox(t, want.Shape)
				parts = append(parts, Part{b, make([]byte, b.Elements()*int64(want.DType.Size()))})
			}
			if err := c.ReadParts(ctx, want.Name, parts...); err != nil {
				t.Fatal(err)
			}
			for _, p := range parts {
				if !bytes.Equal(p.Data, pick(want, p.Box)) {
					t.Fatalf("box %v of %+v was read as %v", p.Box, want, p.Data)
				}
			}
		}
	})
}

// Slices larger than what is read at a time, of columns, read as rows; and damage in them.
func TestLargeSlices(t *testing.T) {
	whole := Tensor{Name: "w", DType: tensor.F32, Shape: []int64{701, 1003}, Data: make([]byte, 4*701*1003)}
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(whole.Data)
	var shards [][]Tensor
	for _, columns := range [][2]int64{{0, 500}, {500, 501}, {501, 1003}} {
		part := whole
		part.Box = Box{[]int64{0, columns[0]}, []int64{701, columns[1] - columns[0]}}
		part.Data = pick(whole, part.Box)
		shards = append(shards, []Tensor{part})
	}
	m := storagetest.NewMem()
	ref, err := saveShards(m, "r", sampleState(10, Ref{}), shards)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(ctx, m, filepath.Join("r", ref.Name))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(whole.Data))
	if err := c.Read(ctx, "w", got); err != nil || !bytes.Equal(got, whole.Data) {
		t.Errorf("the whole differs, %v", err)
	}
	left := Box{[]int64{3, 0}, []int64{650, 499}}
	right := Box{[]int64{699, 501}, []int64{2, 502}}
	parts := []Part{{left, make([]byte, 4*left.Elements())}, {right, make([]byte, 4*right.Elements())}}
	if err := c.ReadParts(ctx, "w", parts...); err != nil || !bytes.Equal(parts[0].Data, pick(whole, left)) ||
		!bytes.Equal(parts[1].Data, pick(whole, right)) {
		t.Errorf("boxes differ, %v", err)
	}
	if allocs := testing.AllocsPerRun(3, func() { _ = c.Read(ctx, "w", got) }); allocs > 1000 {
		t.Errorf("%v allocations", allocs)
	}

	spoil(t, m, ref, "data-00002.bin")
	if err := c.ReadParts(ctx, "w", parts[0]); err != nil {
		t.Errorf("a box beside the damage: %v", err)
	}
	if err := c.ReadParts(ctx, "w", parts[1]); err != nil {
		t.Errorf("a box in another chunk of the damaged slice: %v", err)
	}
	around := Part{Box{[]int64{350, 501}, []int64{2, 502}}, make([]byte, 4*2*502)}
	err = c.ReadParts(ctx, "w", around)
	var d *DamageError
	if !errors.As(err, &d) || filepath.Base(d.File) != "data-00002.bin" || d.Tensor != "w" || d.Begin != 0 ||
		d.Length != chunkSize {
		t.Errorf("a box of the damaged chunk: %v", err)
	}
	if err := c.Verify(ctx, nil); !errors.As(err, &d) || filepath.Base(d.File) != "data-00002.bin" {
		t.Errorf("verify: %v", err)
	}
}

// A reader reads the chunks that hold what it asks for, and no others: a rank's rows of a tensor that one writer stored
// cost about their own bytes.
func TestReadsLittle(t *testing.T) {
	const rows, columns = 4096, 1024 // 16 MiB, 256 rows to a chunk
	m := storagetest.NewMem()
	whole := Tensor{Name: "w", DType: tensor.F32, Shape: []int64{rows, columns}, Data: make([]byte, 4*rows*columns)}
	ref, err := saveShards(m, "r", sampleState(10, Ref{}), [][]Tensor{{whole}})
	if err != nil {
		t.Fatal(err)
	}
	for _, box := range []struct{ lo, hi, chunks int64 }{{0, 256, 1}, {255, 257, 2}, {1024, 2048, 4}, {0, rows, 16}} {
		counted := &counting{FS: m}
		c, err := Open(ctx, counted, filepath.Join("r", ref.Name))
		if err != nil {
			t.Fatal(err)
		}
		opened := counted.bytes
		part := Part{Box{[]int64{box.lo, 0}, []int64{box.hi - box.lo, columns}}, make([]byte, 4*columns*(box.hi-box.lo))}
		if err := c.ReadParts(ctx, "w", part); err != nil || counted.bytes-opened != box.chunks*chunkSize {
			t.Errorf("rows %d to %d: %d bytes were read, want %d chunks; %v", box.lo, box.hi, counted.bytes-opened, box.chunks,
				err)
		}
	}
}

// counting counts the bytes that are read.
type counting struct {
	storage.FS
	bytes int64
}

type countingReader struct {
	storage.Reader
	c *counting
}

func (c *counting) Open(name string) (storage.Reader, error) {
	r, err := c.FS.Open(name)
	return countingReader{r, c}, err
}

func (r countingReader) ReadAt(b []byte, off int64) (int, error) {
	r.c.bytes += int64(len(b))
	return r.Reader.ReadAt(b, off)
}

// What does not cover its tensors is neither sealed nor opened.
func TestShardsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, shards := drawShards(t)
		w := rapid.IntRange(0, len(shards)-1).Draw(t, "writer")
		if len(shards[w]) == 0 {
			t.Skip()
		}
		i := rapid.IntRange(0, len(shards[w])-1).Draw(t, "slice")
		victim, only := shards[w][i], true
		for _, s := range slices.Concat(shards...) {
			only = only && (s.Name != victim.Name || s.Box.Elements() == product(s.Shape))
		}
		to := rapid.IntRange(0, len(shards)-1).Draw(t, "to")
		var want string
		switch rapid.SampledFrom([]string{"missing", "twice", "dtype", "shape"}).Draw(t, "fault") {
		case "missing":
			if only {
				t.Skip() // the tensor is gone altogether
			}
			shards[w] = slices.Delete(slices.Clone(shards[w]), i, i+1)
			want = "slices holds element"
		case "twice":
			shards[to] = append(shards[to], victim)
			want = fmt.Sprintf("both hold element %v", victim.Box.Offset)
		case "dtype":
			other := victim
			other.DType, other.Data = tensor.F64, make([]byte, 8*victim.Box.Elements())
			if victim.DType == tensor.F64 {
				other.DType, other.Data = tensor.I32, make([]byte, 4*victim.Box.Elements())
			}
			shards[to] = append(shards[to], other)
			want = " of shape "
		case "shape":
			other := victim
			other.Shape = append(slices.Clone(victim.Shape), 1)
			other.Box = Box{append(slices.Clone(victim.Box.Offset), 0), append(slices.Clone(victim.Box.Extent), 1)}
			shards[to] = append(shards[to], other)
			want = " of shape "
		}
		refused := func(what string, err error) {
			var d *DamageError
			if !errors.As(err, &d) || !strings.Contains(err.Error(), want) ||
				!strings.Contains(err.Error(), fmt.Sprintf("tensor %q", victim.Name)) {
				t.Fatalf("%s: got %v, want an error with %q", what, err, want)
			}
		}
		m := storagetest.NewMem()
		_, err := saveShards(m, "r", sampleState(10, Ref{}), shards)
		refused("seal", err)
		if ids, err := directories(m, "r"); err != nil || len(ids) != 0 {
			t.Fatalf("left %v, %v", ids, err)
		}
		dir := sealBlindly(t, m, shards)
		_, err = Open(ctx, m, dir)
		refused("open", err)
	})
}

// sealBlindly makes a checkpoint of what writers wrote, whatever it is.
func sealBlindly(t *rapid.T, m *storagetest.Mem, shards [][]Tensor) string {
	st := sampleState(10, Ref{})
	dir, err := Create(m, "r", st)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := parseID(filepath.Base(dir))
	man := manifest{state: st, tensors: 1}
	man.state.Attempt, man.state.ConfigDigest = id.attempt, blake3.Sum256([]byte(st.Config))
	for w, tensors := range shards {
		files, err := Write(ctx, m, dir, w, tensors)
		if err != nil {
			t.Fatal(err)
		}
		man.writers = append(man.writers, files)
	}
	text, err := encodeManifest(man)
	if err == nil {
		err = storage.WriteFileFS(m, filepath.Join(dir, manifestName), text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Seal wants the files of each writer of this attempt, once.
func TestSealRefuses(t *testing.T) {
	st := sampleState(10, Ref{})
	m := storagetest.NewMem()
	shards := deal(sampleTensors(10), 2)
	attempt := func(step int64) (dir string, files []Files) {
		t.Helper()
		dir, err := Create(m, "r", st)
		if err != nil {
			t.Fatal(err)
		}
		for w, tensors := range deal(sampleTensors(step), 2) {
			f, err := Write(ctx, m, dir, w, tensors)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		return dir, files
	}
	_, old := attempt(9)
	dir, files := attempt(10)
	cut := files[1]
	cut.DataSize--
	empty, err := Create(m, "r", st)
	if err != nil {
		t.Fatal(err)
	}
	other := st
	other.Step++
	for what, c := range map[string]struct {
		dir   string
		st    State
		files []Files
		want  string
	}{
		"a writer is missing":    {dir, st, files[:1], "slices holds element"},
		"the first is missing":   {dir, st, files[1:], "one of 1 is where that of 0 should be"},
		"one twice":              {dir, st, []Files{files[0], files[1], files[1]}, "one of 1 is where that of 2"},
		"none":                   {dir, st, nil, "no writer"},
		"of another attempt":     {dir, st, []Files{old[0], files[1]}, "data-00000.index is damaged: its digest"},
		"of another size":        {dir, st, []Files{files[0], cut}, "data-00001.bin is damaged: it has"},
		"files that are missing": {empty, st, files, "it is missing"},
		"of another step":        {dir, other, files, "not one of step 11"},
		"not a checkpoint":       {"r", st, files, "not one of step 10"},
	} {
		if _, err := Seal(ctx, m, c.dir, c.st, c.files); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
		if _, err := Open(ctx, m, c.dir); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: open: %v", what, err)
		}
	}
	if _, err := Seal(ctx, m, dir, st, files); err != nil {
		t.Fatal(err)
	}
	if _, err := Seal(ctx, m, dir, st, files); err == nil || !strings.Contains(err.Error(), "it has a manifest") {
		t.Errorf("sealed a second time: %v", err)
	}
	if _, err := Write(ctx, m, dir, 1, shards[1]); err == nil {
		t.Error("a writer's files were overwritten")
	}
	if _, err := Write(ctx, m, dir, maxWriters, nil); err == nil {
		t.Error("a number past the last was taken")
	}
	if err := new(Files).UnmarshalBinary(make([]byte, FilesSize+1)); err == nil {
		t.Error("a byte too many was taken")
	}
}

// What reading costs at the layout of the save, and at another.
func BenchmarkRead(b *testing.B) {
	whole := Tensor{Name: "w", DType: tensor.F32, Shape: []int64{2048, 2048}, Data: make([]byte, 4<<22)}
	for name, boxes := range map[string][]Box{
		"whole": grid(whole.Shape), "rows": grid(whole.Shape, 8), "columns": grid(whole.Shape, 1, 8),
		"tiles": grid(whole.Shape, 32, 32),
	} {
		b.Run(name, func(b *testing.B) {
			var tensors []Tensor
			for _, box := range boxes {
				part := whole
				part.Box, part.Data = box, make([]byte, 4*box.Elements())
				tensors = append(tensors, part)
			}
			m := storagetest.NewMem()
			ref, err := saveShards(m, "r", sampleState(10, Ref{}), [][]Tensor{tensors})
			if err != nil {
				b.Fatal(err)
			}
			c, err := Open(ctx, m, filepath.Join("r", ref.Name))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(whole.Data)))
			for b.Loop() {
				if err := c.Read(ctx, "w", whole.Data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

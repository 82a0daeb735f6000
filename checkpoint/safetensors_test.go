package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

// safeFile is a safetensors file with a header and so many bytes of data.
func safeFile(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func TestSafeTensorsRefused(t *testing.T) {
	one := `"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	for want, file := range map[string][]byte{
		"want at least 8":                  []byte("1234567"),
		"its header has 18446744073709551": append(bytes.Repeat([]byte{255}, 8), "{}"...),
		"its header has 2 bytes, want":     safeFile("{}", 0)[:9],
		"want a JSON object":               safeFile("[]", 0),
		`tensor "w": EOF`:                  safeFile(`{"w":`, 0),
		"follows its object":               safeFile(`{} {}`, 0),
		"is there twice":                   safeFile("{"+one+","+one+"}", 8),
		"unknown dtype \"PICKLE\"":         safeFile(strings.Replace("{"+one+"}", "F32", "PICKLE", 1), 8),
		"want 12 for F32 of shape [3]":     safeFile(strings.Replace("{"+one+"}", "[2]", "[3]", 1), 8),
		"overflows":                        safeFile(strings.Replace("{"+one+"}", "[2]", "[4611686018427387905,4]", 1), 8),
		"negative":                         safeFile(strings.Replace("{"+one+"}", "[2]", "[-2]", 1), 8),
		"9 dimensions":                     safeFile(strings.Replace("{"+one+"}", "[2]", "[1,1,1,1,1,1,1,1,2]", 1), 8),
		"data_offsets [0]":                 safeFile(strings.Replace("{"+one+"}", "[0,8]", "[0]", 1), 8),
		"begins at byte 8 of the data":     safeFile(strings.Replace("{"+one+"}", "[0,8]", "[8,16]", 1), 16),
		"the file has 9 for them":          safeFile("{"+one+"}", 9),
		"begins at byte 0 of the data, the one before ends at 8": safeFile("{"+one+","+strings.Replace(one, "w", "v", 1)+"}", 8),
		"no path":        safeFile(strings.Replace("{"+one+"}", "w", "../w", 1), 8),
		"does not print": safeFile(strings.Replace("{"+one+"}", "w", `w\u0000`, 1), 8),
		"__metadata__":   safeFile(`{"__metadata__":{"a":1},`+one+"}", 8),
	} {
		m := storagetest.NewMem()
		put(t, m, "d/model.safetensors", file)
		if _, err := OpenSafeTensors(m, "d", "model"); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "model.safetensors") || !errors.Is(err, ErrCorrupt) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	m := storagetest.NewMem()
	put(t, m, "d/model.safetensors", safeFile("{"+one+"}", 8))
	if s, err := OpenSafeTensors(m, "d", "model"); err != nil || len(s.Tensors()) != 1 {
		t.Errorf("the base of these: %v", err)
	}
}

func TestSafeIndexRefused(t *testing.T) {
	one := safeFile(`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8)
	for want, index := range map[string]string{
		"not an index":            `{"weight_map":3}`,
		"names no tensor":         `{}`,
		"of the same folder":      `{"weight_map":{"w":"../a.safetensors"}}`,
		`is in "a.bin"`:           `{"weight_map":{"w":"a.bin"}}`,
		"c.safetensors not found": `{"weight_map":{"w":"c.safetensors"}}`,
		"names 2 tensors":         `{"weight_map":{"w":"a.safetensors","v":"a.safetensors"}}`,
		`it says ""`:              `{"weight_map":{"v":"a.safetensors"}}`,
	} {
		m := storagetest.NewMem()
		put(t, m, "d/a.safetensors", one)
		put(t, m, "d/model.safetensors.index.json", []byte(index))
		if _, err := OpenSafeTensors(m, "d", "model"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", index, err, want)
		}
	}
	m := storagetest.NewMem()
	put(t, m, "d/pytorch_model.bin", []byte("PK"))
	if _, err := OpenSafeTensors(m, "d", "model"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "pytorch_model.bin is a pickle") ||
		!strings.Contains(err.Error(), "save_pretrained") {
		t.Errorf("a pickle: %v", err)
	}
}

// put writes a file and the folder that it is in.
func put(t testing.TB, m *storagetest.Mem, path string, b []byte) {
	t.Helper()
	if err := storage.MkdirAll(m, filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	replaceFile(t, m, path, b)
}

// What is written is read back in every type, in one file or in shards; each failure leaves nothing that opens.
func TestSafeTensorsRoundTrip(t *testing.T) {
	list := []SafeTensor{{Name: "a.b", Shape: []int64{3, 5}}, {Name: "scalar", Shape: nil}, {Name: "z", Shape: []int64{7}}}
	random := rand.New(rand.NewPCG(1, 2))
	values := map[string][]byte{}
	for _, x := range list {
		for range product(x.Shape) {
			v := float32(random.IntN(256)-128) / 16 // in every type
			values[x.Name] = binary.LittleEndian.AppendUint32(values[x.Name], math.Float32bits(v))
		}
	}
	for dtype := range narrowings {
		for _, shard := range []int64{0, 1, 40} {
			write := func(at int64) (*storagetest.Mem, *storagetest.Failing, error) {
				m := storagetest.NewMem()
				f := &storagetest.Failing{FS: m, At: at, Err: syscall.ENOSPC}
				if err := m.Mkdir("d"); err != nil {
					t.Fatal(err)
				}
				return m, f, WriteSafeTensors(ctx, f, "d", list, SafeOptions{
					Stem: "model", DType: dtype, ShardSize: shard,
					Read: func(_ context.Context, x SafeTensor, first int64, dst []byte) error {
						copy(dst, values[x.Name][4*first:])
						return nil
					},
				})
			}
			m, calls, err := write(0)
			if err != nil {
				t.Fatal(err)
			}
			s, err := OpenSafeTensors(m, "d", "model")
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range list {
				got := make([]byte, len(values[x.Name]))
				info, ok := s.Info(x.Name)
				if err := s.ReadF32(ctx, x.Name, 0, got); err != nil || !bytes.Equal(got, values[x.Name]) || !ok || info.DType != dtype {
					t.Errorf("%s, shards of %d, %s: %v, %v, %+v", dtype, shard, x.Name, got, err, info)
				}
			}
			if err := s.ReadF32(ctx, "z", 5, make([]byte, 8)); err != nil {
				t.Error(err)
			}
			if err := s.ReadF32(ctx, "z", 6, make([]byte, 8)); err == nil {
				t.Error("elements past the end were read")
			}
			for at := int64(1); at <= calls.Calls(); at++ {
				m, _, err := write(at)
				if s, e := OpenSafeTensors(m, "d", "model"); err != nil && e == nil && len(s.Tensors()) != len(list) {
					t.Errorf("%s, shards of %d, call %d fails: %v, but %d tensors open", dtype, shard, at, err, len(s.Tensors()))
				}
			}
		}
	}
	if err := WriteSafeTensors(ctx, storagetest.NewMem(), "d", list, SafeOptions{DType: "I32"}); err == nil {
		t.Error("weights were written as I32")
	}
}

// Every half is exact in fp32 and comes back; between two of them the nearest is taken, the even one of a tie.
func TestHalves(t *testing.T) {
	for h := range uint32(0x7c00) {
		x, y := math.Float32frombits(fromF16(uint16(h))), math.Float32frombits(fromF16(uint16(h+1)))
		if want := valueF16(uint16(h)); float64(x) != want {
			t.Fatalf("%#04x is %v, want %v", h, x, want)
		}
		middle := float32((float64(x) + float64(y)) / 2)
		if h == 0x7bff { // the largest; from 65520 on it is infinite
			middle = 65520
		}
		even := h + h&1
		for v, want := range map[float32]uint32{
			x: h, middle: even, math.Nextafter32(middle, 0): h, math.Nextafter32(middle, math.MaxFloat32): h + 1,
		} {
			if got := toF16(math.Float32bits(v)); uint32(got) != want {
				t.Fatalf("%v is %#04x, want %#04x", v, got, want)
			}
			if got := toF16(math.Float32bits(-v)); uint32(got) != want|0x8000 {
				t.Fatalf("%v is %#04x, want %#04x", -v, got, want|0x8000)
			}
		}
	}
	if !math.IsNaN(float64(math.Float32frombits(fromF16(0x7e01)))) || toF16(math.Float32bits(float32(math.NaN())))&0x7fff <= 0x7c00 {
		t.Error("no number became a number")
	}
	if toF16(0x7f800000) != 0x7c00 || fromF16(0xfc00) != 0xff800000 {
		t.Error("infinite values")
	}
}

// valueF16 is the value of a positive finite half by its definition.
func valueF16(h uint16) float64 {
	if h>>10 == 0 {
		return math.Ldexp(float64(h), -24)
	}
	return math.Ldexp(1+float64(h&0x3ff)/1024, int(h>>10)-15)
}

func FuzzSafeHeader(f *testing.F) {
	f.Add([]byte(`{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`), int64(8))
	f.Fuzz(func(t *testing.T, header []byte, size int64) {
		list, err := parseSafeHeader(header, size)
		if err != nil {
			return
		}
		at := int64(0)
		for _, x := range list {
			if x.begin != at || x.bytes != safeSizes[x.DType]*product(x.Shape) || checkName(x.Name) != nil {
				t.Fatalf("accepted %+v", list)
			}
			at += x.bytes
		}
		if at != size {
			t.Fatalf("%d bytes in %d", at, size)
		}
	})
}

func FuzzSafeIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":8},"weight_map":{"w":"a.safetensors"}}`))
	one := safeFile(`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8)
	f.Fuzz(func(t *testing.T, index []byte) {
		m := storagetest.NewMem()
		put(t, m, "d/a.safetensors", one)
		put(t, m, "d/model.safetensors.index.json", index)
		s, err := OpenSafeTensors(m, "d", "model")
		if err == nil && (len(s.Tensors()) != 1 || s.Tensors()[0].Name != "w") {
			t.Fatalf("accepted %s", fmt.Sprint(s.Tensors()))
		}
	})
}

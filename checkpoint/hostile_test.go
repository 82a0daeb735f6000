package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	checkpointv1 "github.com/herdtrain/herd/proto/checkpoint/v1"
	"github.com/herdtrain/herd/storage/storagetest"
)

// sign ends the text of a `latest` file as it should.
func sign(body string) string {
	return body + fmt.Sprintf("%s%08x\n", latestCRC, crc32.Checksum([]byte(body), castagnoli))
}

// rawRecords makes a record file of any content whose crc holds.
func rawRecords(magic string, version, count uint32, records []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(magic), version)
	b = binary.LittleEndian.AppendUint32(b, count)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(records)))
	b = append(b, records...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func record(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return record(b)
}

// hostile is a checkpoint whose manifest vouches for an index of somebody's making.
func hostile(t *testing.T, index []byte, tensors int64) (*storagetest.Mem, string) {
	t.Helper()
	m := storagetest.NewMem()
	ref := save(t, m, "r", 10, Ref{})
	dir := filepath.Join("r", ref.Name)
	data := readFile(t, m, filepath.Join(dir, "data-00000.bin"))
	replaceFile(t, m, filepath.Join(dir, "data-00000.index"), index)
	st := sampleState(10, Ref{})
	st.Attempt, st.ConfigDigest = 1, blake3.Sum256([]byte(st.Config))
	text, err := encodeManifest(manifest{st, tensors, []Files{{
		DataSize: int64(len(data)), Data: blake3.Sum256(data), IndexSize: int64(len(index)), Index: blake3.Sum256(index),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, m, filepath.Join(dir, "manifest"), text)
	return m, dir
}

// openIn opens dir and returns how many bytes were allocated meanwhile.
func openIn(m *storagetest.Mem, dir string) (uint64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Open(ctx, m, dir)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

func refuse(t *testing.T, what string, m *storagetest.Mem, dir, want string, is error) {
	t.Helper()
	allocated, err := openIn(m, dir)
	if !errors.Is(err, is) || !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("%s: got %v, want %v with %q", what, err, is, want)
	}
	if allocated > 1<<20 {
		t.Errorf("%s: %d bytes were allocated", what, allocated)
	}
}

// enlarge makes a slice of n elements.
func enlarge(s *checkpointv1.Slice, n int64) {
	s.GlobalShape[0], s.Extent[0], s.Length, s.ChunkCrc32C = n, n, 4*n, make([]uint32, 4*n>>20)
}

// half makes a slice the first half of its tensor.
func half(s *checkpointv1.Slice) { s.Extent[0], s.Length = 1, 4 }

func TestHostileIndex(t *testing.T) {
	good := func() *checkpointv1.Slice {
		return &checkpointv1.Slice{
			Name: "w", Dtype: "f32", GlobalShape: []int64{2}, Offset: []int64{0}, Extent: []int64{2}, Length: 8,
			ChunkCrc32C: []uint32{0},
		}
	}
	for what, c := range map[string]struct {
		change func(*checkpointv1.Slice)
		want   string
	}{
		"name up and out":      {func(s *checkpointv1.Slice) { s.Name = "../../etc/passwd" }, "no path"},
		"absolute name":        {func(s *checkpointv1.Slice) { s.Name = "/etc/passwd" }, "no path"},
		"empty name":           {func(s *checkpointv1.Slice) { s.Name = "" }, "no path"},
		"NUL in the name":      {func(s *checkpointv1.Slice) { s.Name = "w\x00" }, "does not print"},
		"long name":            {func(s *checkpointv1.Slice) { s.Name = strings.Repeat("w", 513) }, "want at most 512"},
		"unknown dtype":        {func(s *checkpointv1.Slice) { s.Dtype = "pickle" }, `unknown dtype "pickle"`},
		"rank 9":               {func(s *checkpointv1.Slice) { s.GlobalShape = make([]int64, 9) }, "9 dimensions"},
		"negative extent":      {func(s *checkpointv1.Slice) { s.GlobalShape[0] = -2 }, "at least 1"},
		"shape overflow":       {func(s *checkpointv1.Slice) { s.GlobalShape = []int64{1 << 40, 1 << 40} }, "overflows"},
		"shape wraps to 8":     {func(s *checkpointv1.Slice) { s.GlobalShape = []int64{1<<62 + 2} }, "overflows"},
		"slice beside":         {func(s *checkpointv1.Slice) { s.Offset[0] = 1 }, "not within shape"},
		"slice too large":      {func(s *checkpointv1.Slice) { s.Extent[0] = 1 << 40 }, "not within shape"},
		"slice of nothing":     {func(s *checkpointv1.Slice) { s.Extent[0] = 0 }, "not within shape"},
		"slice before":         {func(s *checkpointv1.Slice) { s.Offset[0] = -1 }, "not within shape"},
		"slice past numbers":   {func(s *checkpointv1.Slice) { s.Offset[0] = math.MaxInt64 }, "not within shape"},
		"slice of a half":      {half, `in tensor "w": none of its 1 slices holds element [1]`},
		"a huge tensor's bit":  {func(s *checkpointv1.Slice) { s.GlobalShape[0] = 1 << 60 }, "holds element [2]"},
		"offset rank":          {func(s *checkpointv1.Slice) { s.Offset = nil }, "does not have the dimensions"},
		"extent rank":          {func(s *checkpointv1.Slice) { s.Extent = []int64{2, 1} }, "does not have the dimensions"},
		"wrong length":         {func(s *checkpointv1.Slice) { s.Length = 9 }, "9 bytes, want 8"},
		"begin past the end":   {func(s *checkpointv1.Slice) { s.Begin = 1 << 40 }, "not within"},
		"end past the end":     {func(s *checkpointv1.Slice) { enlarge(s, 1<<20) }, "not within"},
		"end past all numbers": {func(s *checkpointv1.Slice) { s.Begin = math.MaxInt64 / 4096 * 4096 }, "not within"},
		"negative begin":       {func(s *checkpointv1.Slice) { s.Begin = -4096 }, "not after"},
		"a crc too many":       {func(s *checkpointv1.Slice) { s.ChunkCrc32C = []uint32{0, 0} }, "2 crc32c of chunks, want 1"},
		"crcs of a sixteenth":  {func(s *checkpointv1.Slice) { enlarge(s, 1<<22); s.ChunkCrc32C = []uint32{0} }, "want 16"},
		"odd begin":            {func(s *checkpointv1.Slice) { s.Begin = 4 }, "not a multiple"},
	} {
		s := good()
		c.change(s)
		m, dir := hostile(t, rawRecords("herdindx", 2, 1, marshal(t, s)), 1)
		refuse(t, what, m, dir, c.want, ErrCorrupt)
	}

	// The base of these is sound.
	m, dir := hostile(t, rawRecords("herdindx", 2, 1, marshal(t, good())), 1)
	if _, err := openIn(m, dir); err != nil {
		t.Fatal(err)
	}
	one := marshal(t, good())
	twice := append(append([]byte(nil), one...), one...)
	second := good()
	second.Begin = 4096
	apart := append(append([]byte(nil), one...), marshal(t, second)...)
	second.Dtype = "i32"
	otherType := append(append([]byte(nil), one...), marshal(t, second)...)
	second.Dtype, second.GlobalShape = "f32", []int64{3}
	otherShape := append(append([]byte(nil), one...), marshal(t, second)...)
	empty := make([]byte, 4<<20) // a million records of no bytes
	for what, c := range map[string]struct {
		index   []byte
		tensors int64
		want    string
		is      error
	}{
		"overlapping slices":     {rawRecords("herdindx", 2, 2, twice), 2, "not after", ErrCorrupt},
		"a slice twice":          {rawRecords("herdindx", 2, 2, apart), 1, "both hold element [0]", ErrCorrupt},
		"slices of other types":  {rawRecords("herdindx", 2, 2, otherType), 1, "is of i32 of shape [2], slice", ErrCorrupt},
		"slices of other shapes": {rawRecords("herdindx", 2, 2, otherShape), 1, "is of f32 of shape [3], slice", ErrCorrupt},
		"fewer than counted":     {rawRecords("herdindx", 2, 1, one), 2, "counts 2 tensors", ErrCorrupt},
		"a record count of 2³²":  {rawRecords("herdindx", 2, math.MaxUint32, one), 1, "after 1 of 4294967295", ErrCorrupt},
		"bytes behind":           {rawRecords("herdindx", 2, 1, twice), 1, "follow the last", ErrCorrupt},
		"a record of 4 GB":       {rawRecords("herdindx", 2, 1, []byte("\xff\xff\xff\xff1234")), 1, "4294967295", ErrCorrupt},
		"a record past the end":  {rawRecords("herdindx", 2, 1, []byte{9, 0, 0, 0, 1}), 1, "want at most 1", ErrCorrupt},
		"a record too large":     {rawRecords("herdindx", 2, 1, record(make([]byte, maxSlice+1))), 1, "262145", ErrCorrupt},
		"records of no bytes":    {rawRecords("herdindx", 2, 1<<20, empty), 1 << 20, "no path", ErrCorrupt},
		"no protobuf":            {rawRecords("herdindx", 2, 1, record([]byte{0xff})), 1, "record 0", ErrCorrupt},
		"a pickle":               {[]byte("\x80\x04\x95 a pickle, as long as a file"), 1, "begins with", ErrCorrupt},
		"a manifest":             {rawRecords("herdmani", 1, 1, one), 1, "begins with", ErrCorrupt},
		"version 0":              {rawRecords("herdindx", 0, 1, one), 1, "version 0", ErrCorrupt},
		"a later version":        {rawRecords("herdindx", 3, 1, one), 1, "version 3", ErrVersion},
		"an index of more bytes": {make([]byte, maxIndex+1), 1, "want 28 to", ErrCorrupt},
	} {
		m, dir := hostile(t, c.index, c.tensors)
		refuse(t, what, m, dir, c.want, c.is)
	}
}

func TestHostileManifest(t *testing.T) {
	config := []byte("version: 1\n")
	digest := Digest(blake3.Sum256(config))
	zero := make([]byte, 32)
	good := func() *checkpointv1.Manifest {
		return &checkpointv1.Manifest{
			Step: 10, Generation: 3, Attempt: 1, ParentManifestBlake3: zero, ConfigDigest: digest.String(),
		}
	}
	const name = "step-00000010.gen-3.a-1"
	writer := marshal(t, &checkpointv1.Writer{DataBlake3: zero, IndexBlake3: zero})
	file := func(h *checkpointv1.Manifest, count uint32, rest ...[]byte) []byte {
		b := append(marshal(t, h), record(config)...)
		for _, r := range rest {
			b = append(b, r...)
		}
		return rawRecords("herdmani", 1, count, b)
	}
	try := func(what string, text []byte, want string, is error) {
		t.Helper()
		m := storagetest.NewMem()
		for _, dir := range []string{"r", "r/" + name} {
			if err := m.Mkdir(dir); err != nil {
				t.Fatal(err)
			}
		}
		replaceFile(t, m, "r/"+name+"/manifest", text)
		refuse(t, what, m, "r/"+name, want, is)
	}
	try("files that are missing", file(good(), 3, writer), "data-00000.bin is damaged: it is missing", ErrCorrupt)
	try("no writer", file(good(), 2), "names no writer", ErrCorrupt)
	try("an empty writer", file(good(), 3, record(nil)), "a digest of 0 bytes", ErrCorrupt)
	try("a million empty writers", file(good(), 1<<20, make([]byte, 4<<20)), "a digest of 0 bytes", ErrCorrupt)
	try("negative size", file(good(), 3, marshal(t, &checkpointv1.Writer{
		DataSize: -1, DataBlake3: zero, IndexBlake3: zero})), "sizes -1", ErrCorrupt)
	try("a later version", rawRecords("herdmani", 7, 0, []byte("who knows")), "version 7", ErrVersion)
	try("a huge header", rawRecords("herdmani", 1, 1, record(make([]byte, 16385))), "16385 bytes", ErrCorrupt)
	try("a huge file", make([]byte, maxManifest+1), "want 28 to", ErrCorrupt)
	try("an index", rawRecords("herdindx", 2, 0, nil), "begins with", ErrCorrupt)
	for what, c := range map[string]struct {
		change func(*checkpointv1.Manifest)
		want   string
	}{
		"another step":         {func(h *checkpointv1.Manifest) { h.Step = 11 }, "manifest of step-00000011"},
		"negative step":        {func(h *checkpointv1.Manifest) { h.Step = -1 }, "step -1"},
		"generation 0":         {func(h *checkpointv1.Manifest) { h.Generation = 0 }, "generation 0"},
		"negative cursor":      {func(h *checkpointv1.Manifest) { h.Samples = -1 }, "samples -1"},
		"parent up and out":    {func(h *checkpointv1.Manifest) { h.Parent = "../../secret" }, "no name of a checkpoint"},
		"ancestor, no parent":  {func(h *checkpointv1.Manifest) { h.Ancestors = []string{name} }, "no name of a checkpoint"},
		"8,000 ancestors":      {func(h *checkpointv1.Manifest) { h.Ancestors = make([]string, 8000) }, "8000 ancestors"},
		"9 ancestors":          {func(h *checkpointv1.Manifest) { h.Parent, h.Ancestors = name, names(9) }, "9 ancestors"},
		"another config":       {func(h *checkpointv1.Manifest) { h.ConfigDigest = Digest{}.String() }, "not the one of"},
		"a digest of one byte": {func(h *checkpointv1.Manifest) { h.ParentManifestBlake3 = []byte{1} }, "of 1 bytes"},
		"a digest of no form":  {func(h *checkpointv1.Manifest) { h.ConfigDigest = "sha1:00" }, `digest "sha1:00"`},
	} {
		h := good()
		c.change(h)
		try(what, file(h, 3, writer), c.want, ErrCorrupt)
	}
}

func names(n int) (list []string) {
	for i := range n {
		list = append(list, id{int64(i), 1, 1}.String())
	}
	return list
}

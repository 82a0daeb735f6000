package run

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/llama"
)

// maxLogits bounds the elements of the logits that are compared.
const maxLogits = 64 << 20

// CompareLogits runs the model on the token ids of a safetensors file and gives the largest absolute difference from the
// logits stored there: input_ids, I32 or I64, [sequences, length]; logits, F32, BF16 or F16, [sequences, length, vocab].
func (m *Model) CompareLogits(ctx context.Context, path string) (largest float64, err error) {
	dir, name := filepath.Split(filepath.Clean(path))
	stem, ok := strings.CutSuffix(name, ".safetensors")
	if !ok {
		return 0, fmt.Errorf("%s: want a .safetensors file with input_ids and logits", path)
	}
	files, err := checkpoint.OpenSafeTensors(storage.OS, filepath.Clean(dir), stem)
	if err != nil {
		return 0, err
	}
	defer files.Close()
	ids, ok1 := files.Info("input_ids")
	want, ok2 := files.Info("logits")
	vocab := int64(m.row.Len())
	if !ok1 || !ok2 || len(ids.Shape) != 2 || len(want.Shape) != 3 || want.Shape[0] != ids.Shape[0] ||
		want.Shape[1] != ids.Shape[1] || want.Shape[2] != vocab || ids.Shape[1] > int64(m.length) ||
		ids.Shape[0]*ids.Shape[1] > maxLogits/vocab {
		return 0, fmt.Errorf("%s holds input_ids %v and logits %v; want [S, T] with T at most %d, and [S, T, %d]", path,
			ids.Shape, want.Shape, m.length, vocab)
	}
	tokens, err := files.ReadIDs(ctx, "input_ids")
	if err != nil {
		return 0, err
	}
	length := int(ids.Shape[1])
	for s := range int(ids.Shape[0]) {
		cache, err := m.newCache()
		if err != nil {
			return 0, err
		}
		for i := range length {
			id := tokens[s*length+i]
			if id < 0 || int64(id) >= vocab {
				return 0, fmt.Errorf("%s: token id %d, want 0 to %d", path, id, vocab-1)
			}
			got, err := m.next(ctx, []int32{id}, cache)
			if err != nil {
				return 0, err
			}
			row := make([]byte, 4*vocab)
			if err := files.ReadF32(ctx, "logits", int64(s*length+i)*vocab, row); err != nil {
				return 0, err
			}
			for j, x := range got {
				y := math.Float32frombits(binary.LittleEndian.Uint32(row[4*j:]))
				if d := math.Abs(float64(x) - float64(y)); !(d <= largest) {
					largest = d
				}
			}
		}
	}
	return largest, nil
}

// next gives the model tokens that follow those in the cache, and returns the logits after the last.
func (m *Model) next(ctx context.Context, ids []int32, cache *llama.Cache) ([]float32, error) {
	m.stage.Load(llama.Input{Sequences: 1, Length: len(ids), IDs: ids, Cache: cache})
	m.stage.Forward()
	m.dev.Cast(m.q, m.row, m.stage.Logits(len(ids)-1).Buffer)
	row := make([]float32, m.row.Len())
	m.dev.Download(m.q, tensor.HostBytes(tensor.HostBuffer(row)), m.row)
	return row, m.q.Sync(ctx)
}

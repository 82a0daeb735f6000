// Package devicetest is the conformance suite of tensor.Device: every operation is held against its formula, written
// out in float64, for F32, BF16 and F64, over random odd shapes and views with gaps.
package devicetest

import (
	"context"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"github.com/herdtrain/herd/tensor"
)

// Run tests the devices that open makes; the suite closes them.
func Run(t *testing.T, open func() tensor.Device) {
	t.Run("queues", func(t *testing.T) { testQueues(t, open) })
	dev := open()
	defer func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}()
	first := Digests(t, dev)
	for name, d := range Digests(t, dev) {
		if d != first[name] {
			t.Errorf("%s: two runs differ", name)
		}
	}
}

// operations are the tests of an operation for one dtype and, by number, one shape.
var operations = []struct {
	name string
	test func(s *suite)
}{
	{"Cast", testCast},
	{"Copy", testCopy},
	{"Add", testAdd},
	{"Gemm", testGemm},
	{"Embed", testEmbed},
	{"RMSNorm", testRMSNorm},
	{"AddRMSNorm", testAddRMSNorm},
	{"RMSNormBackward", testRMSNormBackward},
	{"RoPE", testRoPE},
	{"Attention", testAttention},
	{"Attention in parts", testAttentionInParts},
	{"Attention of pieces", testAttentionOfPieces},
	{"Attention, large scores", testLargeScores},
	{"SwiGLU", testSwiGLU},
	{"CrossEntropy", testCrossEntropy},
	{"LogSumExp", testLogSumExp},
	{"CrossEntropyShard", testCrossEntropyShard},
	{"Vocabulary in shards", testVocabularyInShards},
	{"Sum", testSum},
	{"Gate", testGate},
	{"AdamW", testAdamW},
}

// shapes is how many shapes an operation is tested on, and fewShapes in short mode.
const shapes, fewShapes = 5, 2

// Digests runs every test of an operation on the Compute queue of dev and returns, by test, a digest of the bits that
// the operations gave, to compare with those of a device that should give the same.
func Digests(t *testing.T, dev tensor.Device) map[string]uint64 {
	digests := map[string]uint64{}
	count := shapes
	if testing.Short() {
		count = fewShapes
	}
	for _, op := range operations {
		for _, dt := range []tensor.DType{tensor.F32, tensor.BF16, tensor.F64} {
			name := op.name + "/" + dt.String()
			t.Run(name, func(t *testing.T) {
				h := fnv.New64a()
				for i := range count {
					rng := rand.New(rand.NewPCG(uint64(i), 1))
					q := dev.Queue(tensor.Compute)
					op.test(&suite{TB: t, dev: dev, q: q, dt: dt, rng: rng, digest: h, large: i == 0})
				}
				digests[name] = h.Sum64()
			})
		}
	}
	return digests
}

// suite is what the test of an operation works with.
type suite struct {
	testing.TB
	dev    tensor.Device
	q      tensor.Queue
	dt     tensor.DType // of activations and weights
	rng    *rand.Rand
	digest hash.Hash64 // of everything read from the device
	large  bool        // whether to choose a shape that is worth several threads
}

// size is a random size of at most small, or of large to 2·large in a large test.
func (s *suite) size(small, large int) int {
	if s.large {
		return large + s.rng.IntN(large)
	}
	return 1 + s.rng.IntN(small)
}

// sync waits for the device.
func (s *suite) sync() {
	s.Helper()
	if err := s.q.Sync(context.Background()); err != nil {
		s.Fatal(err)
	}
}

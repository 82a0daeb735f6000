package dataset

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestPermutationIsBijection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 300).Draw(t, "n")
		p := newPermutation(n, rapid.Uint64().Draw(t, "seed"), "test")
		epoch := rapid.Int64Range(0, 1<<40).Draw(t, "epoch")
		seen := make([]bool, n)
		for i := range n {
			at := p.at(i, epoch)
			if at < 0 || at >= n || seen[at] {
				t.Fatalf("image %d of %d is out of range or taken", at, i)
			}
			seen[at] = true
		}
	})
}

func TestPermutationOfLargeRange(t *testing.T) {
	const n = 1<<40 + 12345
	p := newPermutation(n, 7, "test")
	seen := map[int64]bool{}
	for i := range int64(1000) {
		at := p.at(n-1-i, 3)
		if at < 0 || at >= n || seen[at] {
			t.Fatalf("image %d is out of range or taken", at)
		}
		seen[at] = true
	}
}

// The order of a dataset is part of the format: a job that is resumed by another build must see the same.
func TestPermutationIsFixed(t *testing.T) {
	p := newPermutation(10, 42, "dataset/order/0/blake3:00")
	got := [2][10]int64{}
	for epoch := range got {
		for i := range got[epoch] {
			got[epoch][i] = p.at(int64(i), int64(epoch))
		}
	}
	want := [2][10]int64{{1, 9, 0, 3, 6, 2, 8, 7, 4, 5}, {5, 2, 0, 7, 4, 1, 8, 3, 6, 9}}
	if got != want {
		t.Errorf("order %v, want %v", got, want)
	}
}

// Each image of each position should be about equally frequent over epochs: χ² with (n−1)² degrees of freedom.
func TestPermutationIsUniform(t *testing.T) {
	const n, epochs = 7, 7000
	p := newPermutation(n, 1, "test")
	counts := [n][n]int{}
	for e := range int64(epochs) {
		for i := range counts {
			counts[i][p.at(int64(i), e)]++
		}
	}
	chi := 0.0
	for _, row := range counts {
		for _, c := range row {
			chi += (float64(c) - epochs/n) * (float64(c) - epochs/n) / (epochs / n)
		}
	}
	if chi > 75 { // 36 degrees of freedom: beyond this with probability 0.0002
		t.Errorf("χ² = %.1f", chi)
	}
}

func TestMixtureCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Float64Range(0.01, 10), 1, 9).Draw(t, "weights")
		m, err := newMixture(weights)
		if err != nil {
			t.Fatal(err)
		}
		levels := math.Ceil(math.Log2(float64(len(weights))))
		counts := make([]int64, len(weights))
		for i := range int64(400) {
			source, count := m.at(i)
			if count != counts[source] {
				t.Fatalf("ordinal %d is number %d of source %d, which had %d", i, count, source, counts[source])
			}
			counts[source]++
			for j, w := range weights {
				if want := w / total(weights) * float64(i+1); math.Abs(float64(counts[j])-want) > levels/2+1e-6 {
					t.Fatalf("after %d samples source %d had %d, its weight asks for %.2f", i+1, j, counts[j], want)
				}
			}
		}
	})
}

func TestMixtureFarAway(t *testing.T) {
	m, err := newMixture([]float64{1, 3})
	if err != nil {
		t.Fatal(err)
	}
	var counts [2]int64
	for i := int64(1) << 60; i < 1<<60+400; i++ {
		source, count := m.at(i)
		counts[source]++
		if want := []float64{0.25, 0.75}[source] * float64(i); math.Abs(float64(count)-want) > 1000 {
			t.Fatalf("ordinal %d: count %d, want about %.0f", i, count, want)
		}
	}
	if counts != [2]int64{100, 300} {
		t.Errorf("counts %v, want 100 and 300", counts)
	}
}

func TestMixtureErrors(t *testing.T) {
	for _, weights := range [][]float64{{}, {0}, {1, -1}, {math.NaN()}, {math.Inf(1)}} {
		if _, err := newMixture(weights); err == nil {
			t.Errorf("weights %v are accepted", weights)
		}
	}
	m, err := newMixture([]float64{1e300, 1e-300, 1e300})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(100) {
		if source, _ := m.at(i); source == 1 {
			t.Errorf("ordinal %d goes to a source of weight 1e-600", i)
		}
	}
}

package optim

import (
	"math"
	"testing"
)

func TestSchedule(t *testing.T) {
	cosine := Schedule{Kind: "cosine", LR: 1, WarmupSteps: 10, Steps: 111, FinalRatio: 0.1}
	linear := Schedule{Kind: "linear", LR: 2, WarmupSteps: 0, Steps: 101, FinalRatio: 0}
	wsd := Schedule{Kind: "wsd", LR: 1, WarmupSteps: 10, Steps: 101, FinalRatio: 0.5, DecaySteps: 21}
	constant := Schedule{Kind: "constant", LR: 3, WarmupSteps: 2, Steps: 10}
	for _, c := range []struct {
		s    Schedule
		step int64
		want float64
	}{
		{cosine, 0, 0.1}, {cosine, 9, 1}, {cosine, 10, 1}, {cosine, 60, 0.55}, {cosine, 110, 0.1}, {cosine, 500, 0.1},
		{linear, 0, 2}, {linear, 25, 1.5}, {linear, 100, 0},
		{wsd, 9, 1}, {wsd, 50, 1}, {wsd, 80, 1}, {wsd, 90, 0.75}, {wsd, 100, 0.5},
		{constant, 0, 1.5}, {constant, 1, 3}, {constant, 9, 3},
		{Schedule{Kind: "cosine", LR: 1, WarmupSteps: 0, Steps: 1, FinalRatio: 0.1}, 0, 1},
		{Schedule{Kind: "cosine", LR: 1, WarmupSteps: 5, Steps: 5, FinalRatio: 0.1}, 4, 1},
	} {
		if got := c.s.Rate(c.step); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s rate(%d) = %v, want %v", c.s.Kind, c.step, got, c.want)
		}
	}
}

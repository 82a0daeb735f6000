package optim

import (
	"fmt"
	"math"
)

// Schedule gives the learning rate of each step: a linear warm-up from LR/WarmupSteps to LR, then one of the kinds down
// to FinalRatio·LR at the last step.
type Schedule struct {
	Kind        string // constant, cosine, linear, wsd
	LR          float64
	WarmupSteps int64
	Steps       int64   // of the whole run
	FinalRatio  float64 // unused by constant
	DecaySteps  int64   // wsd: length of the linear decay at the end
}

// Kinds are the schedules that Rate knows.
var Kinds = []string{"constant", "cosine", "linear", "wsd"}

// Rate is the learning rate of step s, counted from 0.
func (c Schedule) Rate(s int64) float64 {
	if s < c.WarmupSteps {
		return c.LR * float64(s+1) / float64(c.WarmupSteps)
	}
	start := c.WarmupSteps
	if c.Kind == "wsd" {
		start = max(start, c.Steps-c.DecaySteps)
	}
	// How far the decay has come: 0 at its first step, 1 at the run's last.
	t := 0.0
	if n := c.Steps - 1 - start; n > 0 {
		t = min(max(float64(s-start)/float64(n), 0), 1)
	} else if s > start {
		t = 1
	}
	switch c.Kind {
	case "constant":
		return c.LR
	case "cosine":
		return c.LR * (c.FinalRatio + (1-c.FinalRatio)*(1+math.Cos(math.Pi*t))/2)
	case "linear", "wsd":
		return c.LR * (1 - (1-c.FinalRatio)*t)
	}
	panic(fmt.Sprintf("optim: unknown schedule %q", c.Kind))
}

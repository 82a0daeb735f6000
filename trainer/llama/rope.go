package llama

import "math"

// Frequencies are the HeadDim/2 angular frequencies of RoPE in radians per position: theta^(−2j/HeadDim), stretched by
// RopeScaling where there is one. Wavelengths shorter than OriginalLength/HighFreqFactor stay, those longer than
// OriginalLength/LowFreqFactor are stretched by Factor, and those between are blended.
func (c Config) Frequencies() []float64 {
	f := make([]float64, c.HeadDim/2)
	for j := range f {
		f[j] = math.Pow(c.RopeTheta, -2*float64(j)/float64(c.HeadDim))
		if s := c.RopeScaling; s != nil {
			f[j] = s.stretch(f[j])
		}
	}
	return f
}

func (s *RopeScaling) stretch(f float64) float64 {
	wave, orig := 2*math.Pi/f, float64(s.OriginalLength)
	switch {
	case wave < orig/s.HighFreqFactor:
		return f
	case wave > orig/s.LowFreqFactor:
		return f / s.Factor
	}
	t := (orig/wave - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor)
	return (1-t)*f/s.Factor + t*f
}

// ropeTable is cos and sin of every position's angles, [positions, HeadDim/2, 2].
func (c Config) ropeTable(positions int) []float64 {
	freq := c.Frequencies()
	t := make([]float64, 0, positions*len(freq)*2)
	for pos := range positions {
		for _, f := range freq {
			sin, cos := math.Sincos(float64(pos) * f)
			t = append(t, cos, sin)
		}
	}
	return t
}

package config

import (
	"fmt"
	"reflect"
	"strings"
)

// derive fills in the fields of the model that follow from others.
func (l *loader) derive() {
	m, origins := &l.job.Model, l.job.origins
	if _, ok := origins["model.kv_heads"]; !ok {
		m.KVHeads = m.Heads
		origins["model.kv_heads"] = origin{reason: keyAt["model.kv_heads"].follows}
	}
	_, given := origins["model.head_dim"]
	over := origins["model.dim"].written() || origins["model.heads"].written()
	if origins["model.head_dim"].written() || given && !over || !l.ok("model.dim", "model.heads") {
		return
	}
	m.HeadDim = m.Dim / m.Heads
	origins["model.head_dim"] = origin{reason: keyAt["model.head_dim"].follows}
	if m.Dim%m.Heads != 0 || !keyAt["model.head_dim"].rule.holds(int64(m.HeadDim)) {
		l.wrong("model.heads", "model.head_dim: does not follow from dim / heads", fmt.Sprintf("%d / %d", m.Dim, m.Heads),
			keyAt["model.head_dim"].rule.want+", or a head_dim of its own")
	}
}

// missing records each required key of the section v that has no value.
func (l *loader) missing(v reflect.Value, path string) {
	fields(v, path, func(field reflect.Value, path string) {
		_, given := l.job.origins[path]
		switch k := keyAt[generic(path)]; {
		case l.isBad(path):
		case field.Kind() == reflect.Struct:
			l.missing(field, path)
		case field.Kind() == reflect.Pointer && !field.IsNil():
			l.missing(field.Elem(), path)
		case field.Kind() == reflect.Slice && given:
			for i := range field.Len() {
				l.missing(field.Index(i), join(path, fmt.Sprint(i)))
			}
		case k.required && !given:
			l.wrong(path, path+" is missing ("+k.about+")", "", k.rule.want)
		}
	})
}

// wrong records a fault of the value at path. Where the value was not written, the section around it is the place.
func (l *loader) wrong(path, what, found, want string) {
	l.fault(path, l.job.place(path), what, found, want)
}

// ok reports whether all of paths hold values without a fault.
func (l *loader) ok(paths ...string) bool {
	for _, p := range paths {
		if _, given := l.job.origins[p]; !given || l.isBad(p) {
			return false
		}
	}
	return true
}

// check records what is wrong between the values of several keys.
func (l *loader) check() {
	l.checkModel()
	l.checkSchedule()
	j := l.job
	if l.ok("tokenizer.kind", "tokenizer.path") {
		switch {
		case j.Tokenizer.Kind == "bpe" && j.Tokenizer.Path == "":
			l.wrong("tokenizer.path", "tokenizer.path is missing (kind bpe has a file)", "", "the path of the tokenizer's file")
		case j.Tokenizer.Kind == "byte" && j.Tokenizer.Path != "":
			l.wrong("tokenizer.path", "tokenizer.path: kind byte has no file", fmt.Sprintf("%q", j.Tokenizer.Path), `""`)
		}
	}
	if l.ok("data.sequence_length", "model.max_length") && j.Data.SequenceLength > j.Model.MaxLength {
		l.wrong("data.sequence_length", "data.sequence_length: longer than the model's sequences",
			fmt.Sprint(j.Data.SequenceLength), fmt.Sprintf("at most model.max_length (%d)", j.Model.MaxLength))
	}
	if l.ok("train.global_batch", "train.micro_batch") && j.Train.MicroBatch > j.Train.GlobalBatch {
		l.wrong("train.micro_batch", "train.micro_batch: larger than the global batch", fmt.Sprint(j.Train.MicroBatch),
			fmt.Sprintf("at most train.global_batch (%d)", j.Train.GlobalBatch))
	}
	if l.ok("checkpoint.keep_best", "checkpoint.every") && j.Checkpoint.KeepBest > 0 {
		const what = "checkpoint.keep_best: the saved weights are not validated"
		switch v := j.Data.Validation; {
		case v == nil:
			l.wrong("checkpoint.keep_best", what, "no data.validation", "data.validation, or 0")
		case l.ok("data.validation.every") && j.Checkpoint.Every%int64(v.Every) != 0:
			l.wrong("checkpoint.keep_best", what, fmt.Sprintf("checkpoint.every %d, data.validation.every %d", j.Checkpoint.Every, v.Every),
				"checkpoint.every as a multiple of data.validation.every, or 0")
		}
	}
	const most = 1 << 62
	if l.ok("train.steps", "train.global_batch", "data.sequence_length") &&
		float64(j.Train.Steps)*float64(j.Train.GlobalBatch)*float64(j.Data.SequenceLength) > most {
		l.wrong("train.steps", "train.steps: too many tokens in all", fmt.Sprint(j.Train.Steps),
			"fewer than 2^62 tokens (steps × global_batch × sequence_length)")
	}
}

func (l *loader) checkModel() {
	m := l.job.Model
	if l.ok("model.heads", "model.kv_heads") && m.Heads%m.KVHeads != 0 {
		l.wrong("model.kv_heads", "model.kv_heads: does not divide the heads", fmt.Sprint(m.KVHeads),
			fmt.Sprintf("a divisor of model.heads (%d)", m.Heads))
	}
	const scaling = "model.rope_scaling"
	if s := m.RopeScaling; s != nil && l.ok(scaling+".low_freq_factor", scaling+".high_freq_factor") &&
		s.HighFreqFactor <= s.LowFreqFactor {
		l.wrong(scaling+".high_freq_factor", scaling+".high_freq_factor: too low", fmt.Sprint(s.HighFreqFactor),
			fmt.Sprintf("more than low_freq_factor (%v)", s.LowFreqFactor))
	}
	for path := range l.bad {
		if path == "" || path == "model" || strings.HasPrefix(path, "model.") {
			return
		}
	}
	if err := m.Config().Validate(); err != nil {
		l.wrong("model", "model: "+err.Error(), "", "")
	}
}

func (l *loader) checkSchedule() {
	s, steps := l.job.Schedule, l.job.Train.Steps
	if l.ok("schedule.warmup_steps", "train.steps") && s.WarmupSteps > steps {
		l.wrong("schedule.warmup_steps", "schedule.warmup_steps: longer than the job", fmt.Sprint(s.WarmupSteps),
			fmt.Sprintf("at most train.steps (%d)", steps))
		return
	}
	if !l.ok("schedule.kind", "schedule.decay_steps", "schedule.warmup_steps", "train.steps") {
		return
	}
	rest, found := steps-s.WarmupSteps, fmt.Sprint(s.DecaySteps)
	switch {
	case s.Kind != "wsd" && s.DecaySteps != 0:
		l.wrong("schedule.decay_steps", "schedule.decay_steps: only wsd has it", found, "0 with kind "+s.Kind)
	case s.Kind == "wsd" && (s.DecaySteps < 1 || s.DecaySteps > rest):
		l.wrong("schedule.decay_steps", "schedule.decay_steps: does not fit", found,
			fmt.Sprintf("1 to %d, the steps after warm-up", rest))
	}
}

package config

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

// key is what is to know about one key of a job file.
type key struct {
	path     string // items of a list are called N
	rule     rule   // what a value must be
	now      *rule  // where narrower: what this version can do of it
	required bool
	def      string // default, in YAML
	follows  string // where neither required nor def: what the value follows from, in words
	resume   bool   // may change between a run and its resumption
	about    string
}

const (
	changes = true // of key.resume
	must    = true // of key.required
)

// keys is every key of a job file, in the order of Job: its rule, its default, and whether it may change on resume.
// The bounds of the sizes keep every count in this project within 63 bits.
var keys = []key{
	{path: "version", rule: integer(1, Version), required: must, about: "version of the job file"},

	{path: "job.name", rule: jobName, required: must, about: "name of the job"},
	{path: "job.output", rule: someText, required: must, resume: changes, about: "directory of checkpoints and logs"},
	{path: "job.seed", rule: anySeed, def: "42", about: "seed of initial weights and data order"},

	{path: "model.preset", rule: oneOf(Presets()...), follows: none, resume: changes,
		about: "published shape to start from"},
	{path: "model.dim", rule: integer(1, 1<<18), required: must, about: "width of the residual stream"},
	{path: "model.layers", rule: integer(1, 1<<12), required: must, about: "number of blocks"},
	{path: "model.heads", rule: integer(1, 1<<12), required: must, about: "query heads"},
	{path: "model.kv_heads", rule: integer(1, 1<<12), follows: "heads", about: "key and value heads; divides heads"},
	{path: "model.head_dim", rule: even(integer(2, 1<<10)), follows: "dim / heads", about: "width of a head"},
	{path: "model.ffn", rule: integer(1, 1<<20), required: must, about: "width of the SwiGLU"},
	{path: "model.vocab", rule: integer(1, 1<<24), required: must,
		about: "tokens of the vocabulary, special ones included"},
	{path: "model.max_length", rule: integer(1, 1<<24), required: must, about: "longest sequence in tokens"},
	{path: "model.rope_theta", rule: positive, def: "500000", about: "base of the rotary embedding"},
	{path: "model.rope_scaling", rule: aSection, follows: none,
		about: "llama3 stretching of the rotary embedding; null: none"},
	{path: "model.rope_scaling.factor", rule: atLeastOne, required: must, about: "how much to stretch long wavelengths"},
	{path: "model.rope_scaling.low_freq_factor", rule: positive, def: "1",
		about: "wavelengths above original_length over this are stretched in full"},
	{path: "model.rope_scaling.high_freq_factor", rule: positive, def: "4",
		about: "wavelengths below original_length over this stay; above low_freq_factor"},
	{path: "model.rope_scaling.original_length", rule: integer(1, 1<<24), def: "8192",
		about: "longest sequence before stretching, in tokens"},
	{path: "model.norm_eps", rule: positive, def: "1e-5", about: "epsilon of RMSNorm"},
	{path: "model.tied", rule: trueFalse, def: "false", about: "the output head is the embedding"},
	{path: "model.sliding_window", rule: integer(0, 1<<24), def: "0", about: "attention window in tokens; 0: none"},

	{path: "init.from", rule: anyText, def: `""`, resume: changes,
		about: "weights that a fresh run begins with: a directory in Hugging Face's or Meta's format, a checkpoint, or a run"},

	{path: "tokenizer.kind", rule: oneOf("bpe", "byte"), def: "bpe", about: "tokenizer that made the data"},
	{path: "tokenizer.path", rule: anyText, def: `""`, about: "its file; required for bpe, empty for byte"},

	{path: "data.sequence_length", rule: integer(1, 1<<24), required: must,
		about: "tokens of a sequence; at most model.max_length"},
	{path: "data.train", rule: aList, required: must, about: "shard sets to train on"},
	{path: "data.train.N.path", rule: someText, required: must, about: "directory of a shard set"},
	{path: "data.train.N.weight", rule: positive, def: "1", about: "share of the mixture, relative to the other weights"},
	{path: "data.validation", rule: aSection, follows: none, resume: changes,
		about: "shard set to measure on; absent or null: none"},
	{path: "data.validation.path", rule: someText, required: must, resume: changes, about: "directory of the shard set"},
	{path: "data.validation.every", rule: integer(1, 1<<40), def: "100", resume: changes,
		about: "steps between two measurements"},
	{path: "data.validation.sequences", rule: integer(1, 1<<32), def: "64", resume: changes,
		about: "sequences of a measurement"},
	{path: "data.document_mask", rule: trueFalse, def: "true", about: "no attention across the documents of a sequence"},

	{path: "train.steps", rule: integer(1, 1<<40), required: must, resume: changes,
		about: "optimizer steps of the whole job"},
	{path: "train.global_batch", rule: integer(1, 1<<20), required: must, about: "sequences of a step"},
	{path: "train.micro_batch", rule: integer(1, 1<<20), def: "1", resume: changes,
		about: "sequences computed at once, at most global_batch"},
	{path: "train.precision", rule: oneOf("bf16", "fp32"), def: "bf16", about: "type of weights and activations"},

	{path: "optimizer.kind", rule: oneOf("adamw"), def: "adamw", about: "optimizer"},
	{path: "optimizer.lr", rule: positive, def: "3e-4", resume: changes, about: "peak learning rate"},
	{path: "optimizer.betas", rule: beta, def: "[0.9, 0.95]", resume: changes,
		about: "decay of the two moments, per step"},
	{path: "optimizer.eps", rule: positive, def: "1e-8", resume: changes, about: "epsilon of AdamW"},
	{path: "optimizer.weight_decay", rule: nonNegative, def: "0.1", resume: changes,
		about: "decoupled decay; none on norms"},
	{path: "optimizer.clip_norm", rule: nonNegative, def: "1", resume: changes,
		about: "greatest gradient norm; 0: no clipping"},

	{path: "schedule.kind", rule: oneOf("constant", "cosine", "linear", "wsd"), def: "cosine", resume: changes,
		about: "course of the learning rate after warm-up"},
	{path: "schedule.warmup_steps", rule: integer(0, 1<<40), def: "0", resume: changes,
		about: "steps of linear warm-up; at most train.steps"},
	{path: "schedule.final_ratio", rule: ratio, def: "0.1", resume: changes,
		about: "last learning rate over the peak; not for constant"},
	{path: "schedule.decay_steps", rule: integer(0, 1<<40), def: "0", resume: changes,
		about: "steps of the falling end; required for wsd, 0 otherwise"},

	{path: "parallel.data", rule: orAuto(integer(1, 1<<20)), def: "auto", resume: changes,
		about: "data-parallel degree; auto: what the ranks leave"},
	{path: "parallel.tensor", rule: integer(1, 1<<12), def: "1", resume: changes,
		about: "tensor-parallel degree"},
	{path: "parallel.sequence", rule: trueFalse, def: "false", resume: changes,
		about: "sequence parallelism: tensor ranks share the tokens of what is not cut by heads or columns"},
	{path: "parallel.pipeline", rule: integer(1, 1<<12), def: "1", resume: changes,
		about: "pipeline stages"},
	{path: "parallel.context", rule: integer(1, 1<<12), def: "1", resume: changes,
		about: "context-parallel degree: ranks over which the tokens of a sequence are spread"},
	{path: "parallel.context_exchange", rule: oneOf("all-gather", "ring"), def: "all-gather", resume: changes,
		about: "how context ranks come by each other's keys and values"},
	{path: "parallel.zero", rule: integer(0, 3), def: "1", resume: changes,
		about: "ZeRO stage: 1 shards the optimizer, 2 the gradients too, 3 the weights too"},
	{path: "parallel.shard", rule: orAuto(integer(1, 1<<20)), def: "auto", resume: changes,
		about: "ranks that hold one copy of what ZeRO shards; auto: all data ranks"},
	{path: "parallel.pipeline_schedule", rule: oneOf("1f1b", "gpipe", "interleaved", "zb-h1"), def: "1f1b",
		resume: changes, about: "order of a pipeline's work"},
	{path: "parallel.virtual", rule: orAuto(integer(1, 1<<12)), def: "auto", resume: changes,
		about: "chunks of layers on a stage; auto: 2 if interleaved, else 1"},
	{path: "parallel.recompute", rule: oneOf("none", "selective", "full"), def: "none",
		resume: changes, about: "what to compute again in backward: selective is gate and up, full each layer from its input"},

	{path: "numerics", rule: oneOf("fast", "canonical"), def: "fast",
		about: "canonical: the same bits at every layout; slow, for proofs"},

	{path: "checkpoint.every", rule: integer(0, 1<<40), def: "1000", resume: changes,
		about: "steps between two saves; 0: only at the end"},
	{path: "checkpoint.keep", rule: integer(1, 1<<20), def: "3", resume: changes,
		about: "checkpoints to keep; the last two verified ones stay in any case"},
	{path: "checkpoint.keep_every", rule: integer(0, 1<<40), def: "0", resume: changes,
		about: "and those of steps that are multiples of this; 0: none"},
	{path: "checkpoint.keep_best", rule: integer(0, 1<<20), def: "0", resume: changes,
		about: "and those of the lowest validation loss; checkpoint.every must be a multiple of data.validation.every then"},
	{path: "checkpoint.mirror", rule: anyText, def: `""`, resume: changes,
		about: "where checkpoints are copied: a directory, or s3://BUCKET/PREFIX"},

	{path: "device", rule: oneOf("auto", "cpu", "cuda"), now: ref(oneOf("auto", "cpu")), def: "auto", resume: changes,
		about: "where to compute"},

	{path: "coordinator.mode", rule: oneOf("embedded", "address", "etcd"), now: ref(oneOf("embedded")), def: "embedded",
		resume: changes, about: "where ranks meet"},

	{path: "telemetry.tensorboard", rule: trueFalse, def: "true", resume: changes, about: "write TensorBoard event files"},
	{path: "telemetry.jsonl", rule: trueFalse, def: "true", resume: changes, about: "write one JSON line a step"},
	{path: "telemetry.prometheus", rule: listen, def: `""`, resume: changes, about: "address of the metrics endpoint"},
}

func ref(r rule) *rule { return &r }

// reserved are keys of later versions.
var reserved = []string{
	"elastic", "data.stages", "coordinator.address", "coordinator.endpoints", "coordinator.host",
	"coordinator.patience",
}

var keyAt = func() map[string]*key {
	m := map[string]*key{}
	for i := range keys {
		m[keys[i].path] = &keys[i]
	}
	return m
}()

// defaultAt is key.def as a node. Nobody changes it.
var defaultAt = func() map[string]*yaml.Node {
	m := map[string]*yaml.Node{}
	for _, k := range keys {
		if k.def == "" {
			continue
		}
		n, err := parseYAML([]byte(k.def))
		if err != nil {
			panic("config: the default of " + k.path + ": " + err.message)
		}
		m[k.path] = n
	}
	return m
}()

// generic is path with the numbers of list items replaced by N.
func generic(path string) string {
	parts := strings.Split(path, ".")
	for i, p := range parts {
		if isIndex(p) {
			parts[i] = "N"
		}
	}
	return strings.Join(parts, ".")
}

func isIndex(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// join is the path of a key or an item in the section at path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

package llama

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// base is a config.json of Llama-3.2-1B, as transformers 4 writes it.
const base = `{"architectures":["LlamaForCausalLM"],"attention_bias":false,"bos_token_id":128000,"eos_token_id":[128001,128008],
"head_dim":64,"hidden_act":"silu","hidden_size":2048,"intermediate_size":8192,"max_position_embeddings":131072,
"mlp_bias":false,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,
"rms_norm_eps":1e-05,"rope_scaling":{"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,
"original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":true,
"torch_dtype":"bfloat16","vocab_size":128256}`

var oneB = Config{
	Dim: 2048, Layers: 16, Heads: 32, KVHeads: 8, HeadDim: 64, FFN: 8192, Vocab: 128256, MaxLength: 131072, RopeTheta: 500000,
	RopeScaling: &RopeScaling{32, 1, 4, 8192}, NormEps: 1e-5, Tied: true,
}

func TestHubConfig(t *testing.T) {
	five := strings.Replace(base, `"rope_scaling":{`, `"rope_parameters":{"rope_theta":500000.0,`, 1)
	five = strings.Replace(five, `"rope_theta":500000.0,"tie`, `"tie`, 1)
	old := strings.Replace(base, `"rope_type":"llama3"`, `"type":"llama3"`, 1)
	for name, text := range map[string]string{
		"transformers 4": base, "transformers 5": five, "an old type": old, "ours": string(oneB.HubConfig("BF16", Tokens{1, 2})),
	} {
		if got, err := ParseHubConfig([]byte(text)); err != nil || !reflect.DeepEqual(got, oneB) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	window := oneB
	window.Window, window.RopeScaling, window.Tied = 4096, nil, false
	if got, err := ParseHubConfig(window.HubConfig("F16", Tokens{-1, -1})); err != nil || !reflect.DeepEqual(got, window) {
		t.Errorf("Mistral: %+v, %v", got, err)
	}
	for want, change := range map[string][2]string{
		"model_type":          {`"model_type":"llama"`, `"model_type":"qwen2"`},
		"hidden_act":          {`"silu"`, `"gelu"`},
		"attention_bias":      {`"attention_bias":false`, `"attention_bias":true`},
		"mlp_bias":            {`"mlp_bias":false`, `"mlp_bias":true`},
		"rope type is \"yarn": {`"llama3"`, `"yarn"`},
		"quantization_config": {`"vocab_size"`, `"quantization_config":{"bits":4},"vocab_size"`},
		"kv_heads":            {`"num_key_value_heads":8`, `"num_key_value_heads":5`},
		"dim is 0":            {`"hidden_size":2048`, `"hidden_size":0`},
		"cannot unmarshal":    {`2048`, `"wide"`},
	} {
		text := strings.Replace(base, change[0], change[1], 1)
		if _, err := ParseHubConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", change[1], err, want)
		}
	}
}

// The published params.json of four models give the widths of their feed-forward layers.
func TestMetaParams(t *testing.T) {
	for text, ffn := range map[string]int{
		`{"dim":4096,"multiple_of":256,"n_heads":32,"n_layers":32,"norm_eps":1e-05,"vocab_size":32000}`:                                                                                           11008,
		`{"dim":4096,"ffn_dim_multiplier":1.3,"multiple_of":1024,"n_heads":32,"n_kv_heads":8,"n_layers":32,"norm_eps":1e-05,"rope_theta":500000.0,"vocab_size":128256}`:                           14336,
		`{"dim":16384,"ffn_dim_multiplier":1.2,"multiple_of":4096,"n_heads":128,"n_kv_heads":8,"n_layers":126,"norm_eps":1e-05,"rope_theta":500000.0,"use_scaled_rope":true,"vocab_size":128256}`: 53248,
		`{"dim":2048,"ffn_dim_multiplier":1.5,"multiple_of":256,"n_heads":32,"n_kv_heads":8,"n_layers":16,"norm_eps":1e-05,"rope_theta":500000.0,"use_scaled_rope":true,"vocab_size":128256}`:     8192,
	} {
		c, err := ParseMetaParams([]byte(text))
		if err != nil || c.FFN != ffn {
			t.Errorf("%s: %+v, %v; want ffn %d", text, c, err, ffn)
		}
		if c.Dim == 2048 {
			c.Tied = true
			if !reflect.DeepEqual(c, oneB) {
				t.Errorf("%+v, want %+v", c, oneB)
			}
		}
		if _, err := c.MetaParams(); err != nil {
			t.Error(err)
		}
	}
	for ffn := 1; ffn < 5000; ffn++ { // whatever the width
		c := oneB
		c.FFN = ffn
		if _, err := c.MetaParams(); err != nil {
			t.Fatal(err)
		}
	}
	c := oneB
	c.Window = 8
	if _, err := c.MetaParams(); err == nil || !strings.Contains(err.Error(), "sliding window") {
		t.Errorf("a sliding window: %v", err)
	}
	if _, err := ParseMetaParams([]byte(`{"dim":64,"n_heads":0}`)); err == nil {
		t.Error("no heads")
	}
}

// The rows of Meta's format in order, by the definition of the permutation: view(heads, hd/2, 2).transpose(1, 2).
func TestMetaRows(t *testing.T) {
	for _, f := range oneB.In(Meta) {
		if wants := strings.Contains(f.Name, "q_proj") || strings.Contains(f.Name, "k_proj"); wants != (f.HeadDim != 0) {
			t.Errorf("%s: HeadDim %d", f.Name, f.HeadDim)
		}
	}
	f := Foreign{HeadDim: 6}
	var rows []int64
	for i := range int64(12) {
		rows = append(rows, f.Row(i))
		if f.ForeignRow(f.Row(i)) != i {
			t.Errorf("row %d does not come back", i)
		}
	}
	if want := []int64{0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}; !slices.Equal(rows, want) {
		t.Errorf("rows %v, want %v", rows, want)
	}
	names := map[string]bool{}
	for _, f := range oneB.In(Meta) {
		names[f.Foreign] = true
	}
	for _, want := range []string{"tok_embeddings.weight", "norm.weight", "layers.15.attention.wq.weight", "layers.0.attention.wo.weight",
		"layers.3.feed_forward.w1.weight", "layers.3.feed_forward.w2.weight", "layers.3.feed_forward.w3.weight",
		"layers.9.attention_norm.weight", "layers.9.ffn_norm.weight"} {
		if !names[want] {
			t.Errorf("%s is missing", want)
		}
	}
}

func FuzzHubConfig(f *testing.F) {
	f.Add([]byte(base))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := ParseHubConfig(text); err == nil {
			if back, err := ParseHubConfig(c.HubConfig("F32", Tokens{-1, -1})); err != nil || !reflect.DeepEqual(back, c) {
				t.Errorf("%+v came back as %+v, %v", c, back, err)
			}
		}
	})
}

func FuzzMetaParams(f *testing.F) {
	f.Add([]byte(`{"dim":4096,"ffn_dim_multiplier":1.3,"multiple_of":1024,"n_heads":32,"n_kv_heads":8,"n_layers":32,"vocab_size":9}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := ParseMetaParams(text); err == nil && c.Validate() != nil {
			t.Errorf("accepted %+v", c)
		}
	})
}

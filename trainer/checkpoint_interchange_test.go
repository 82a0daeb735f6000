package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/herdtrain/herd/checkpoint"
)

// hubDigests are the SHA-256 of exports that transformers has loaded and compared: scripts/golden/interchange.py.
func hubDigests(t *testing.T) (models map[string]map[string]string) {
	t.Helper()
	b, err := os.ReadFile("testdata/hub/digests.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &models); err != nil {
		t.Fatal(err)
	}
	return models
}

// TestInterchange imports models that transformers saved, compares their logits with its own, and exports them: the
// files are to the byte those that transformers accepted, and hold the original weights. Meta's format comes back as the
// same tensors.
func TestInterchange(t *testing.T) {
	dtypes := map[string]string{"tied": "f32", "sharded": "bf16", "mistral": "f16"}
	for name, digests := range hubDigests(t) {
		t.Run(name, func(t *testing.T) {
			hub, out := filepath.Join("testdata", "hub", name), filepath.Join(t.TempDir(), "run")
			text, _ := runCheckpoint(t, 0, "import", hub, out, "--check-logits", filepath.Join(hub, "logits.safetensors"))
			wantAll(t, text, "step-00000000.gen-1.a-1 is committed", "from hf format", "logits differ by")
			text, _ = runCheckpoint(t, 0, "verify", out)
			wantAll(t, text, "undamaged")
			seen := 0
			for _, form := range []string{"hf-0", "hf-1", "meta-0"} {
				format, shard, _ := strings.Cut(form, "-")
				if format == "meta" && name == "mistral" {
					_, errs := runCheckpoint(t, 1, "export", out, filepath.Join(t.TempDir(), "x"), "--format", "meta")
					wantAll(t, errs, "no sliding window")
					continue
				}
				to := filepath.Join(t.TempDir(), "export")
				runCheckpoint(t, 0, "export", out, to, "--format", format, "--dtype", dtypes[name], "--shard-size", shard)
				files, err := os.ReadDir(to)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					b, err := os.ReadFile(filepath.Join(to, f.Name()))
					if err != nil {
						t.Fatal(err)
					}
					seen++
					if got, want := fmt.Sprintf("%x", sha256.Sum256(b)), digests[form+"/"+f.Name()]; got != want {
						t.Errorf("%s/%s has digest %s, want %s", form, f.Name(), got, want)
					}
				}
				if format == "meta" {
					back := filepath.Join(t.TempDir(), "back")
					text, _ := runCheckpoint(t, 0, "import", to, back, "--json")
					wantAll(t, text, `"format": "meta"`)
					text, _ = runCheckpoint(t, 0, "diff", out, back)
					wantAll(t, text, "tensors are equal, bit for bit")
				}
			}
			if seen != len(digests) {
				t.Errorf("%d files were exported, want %d", seen, len(digests))
			}
			text, _ = runCheckpoint(t, 0, "inspect", out)
			wantAll(t, text, "from hf format, no moments", "model.embed_tokens.weight")
			trainer(t, 0, "generate", "--checkpoint", out, "--prompt", "One", "--max-tokens", "3", "--temperature", "0")
		})
	}
}

func TestImportRefuses(t *testing.T) {
	hub := func(t *testing.T, change func(dir string)) string {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("testdata/hub/tied")); err != nil {
			t.Fatal(err)
		}
		change(dir)
		return dir
	}
	replace := func(file, old, new string) func(string) {
		return func(dir string) {
			path := filepath.Join(dir, file)
			b, err := os.ReadFile(path)
			if err == nil && !bytes.Contains(b, []byte(old)) {
				t.Fatalf("%q is not in %s", old, file)
			}
			if err == nil {
				err = os.WriteFile(path, bytes.Replace(b, []byte(old), []byte(new), 1), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for want, change := range map[string]func(string){
		`model_type is "gpt2"`:                      replace("config.json", `"llama"`, `"gpt2"`),
		"has shape [260 48], want":                  replace("config.json", `"hidden_size": 48`, `"hidden_size": 96`),
		"layers.2.input_layernorm":                  replace("config.json", `"num_hidden_layers": 2`, `"num_hidden_layers": 3`),
		"lm_head.weight is missing":                 replace("config.json", `"tie_word_embeddings": true`, `"tie_word_embeddings": false`),
		"is damaged: its header":                    replace("model.safetensors", `"dtype":"F32"`, `"dtype":"X32"`),
		"nope.weight is no tensor":                  replace("model.safetensors", "model.norm.weight", "model.nope.weight"),
		"is a pickle, which may run":                func(dir string) { os.Rename(filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "m.bin")) },
		"a model of Hugging Face has a config.json": func(dir string) { os.Remove(filepath.Join(dir, "config.json")) },
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, errs := runCheckpoint(t, 1, "import", hub(t, change), out)
		wantAll(t, errs, want)
		if _, err := os.Stat(filepath.Join(out, checkpoint.Folder)); err == nil {
			t.Errorf("%s: there are checkpoints", want)
		}
	}
	huge := hub(t, replace("config.json", `"num_hidden_layers": 2`, `"num_hidden_layers": 1000000000`))
	_, errs := runCheckpoint(t, 2, "import", huge, filepath.Join(t.TempDir(), "out"))
	wantAll(t, errs, "config.json describes no model that can be trained", "model.layers: out of range, found 1000000000")
	other := hub(t, replace("config.json", `"rms_norm_eps": 1e-05`, `"rms_norm_eps": 0.5`))
	_, errs = runCheckpoint(t, 1, "import", other, filepath.Join(t.TempDir(), "out"), "--check-logits", filepath.Join(other, "logits.safetensors"))
	wantAll(t, errs, "logits differ by up to", "want at most 1e-04")
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "notes"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	runCheckpoint(t, 0, "import", "testdata/hub/tied", out)
	_, errs = runCheckpoint(t, 1, "export", out, full)
	wantAll(t, errs, "holds notes: want an empty directory")
	_, errs = runCheckpoint(t, 1, "import", "testdata/hub/tied", out)
	wantAll(t, errs, "holds a run already")
	_, errs = runCheckpoint(t, 2, "export", out, full, "--dtype", "int8")
	wantAll(t, errs, "bf16, f16 or f32")
}

"""Models that transformers saved, and a check of what the trainer makes of them.

Run it with scripts/golden/make.sh (or `make golden`), after `make build`. It
writes for each tiny model of MODELS, into trainer/testdata/hub/<name>:

  config.json, generation_config.json, *.safetensors   as save_pretrained does
  logits.safetensors   input_ids, and the logits of transformers in fp32

and then has bin/trainer import and export each, checks that transformers loads
the export in Hugging Face's format with logits within 1e-4, that the one in
Meta's format holds the same weights by an independent permutation, and records
the SHA-256 of the exported files in trainer/testdata/hub/digests.json, which
the tests compare with.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

ROOT = pathlib.Path(__file__).parents[2]
OUT = ROOT / "trainer/testdata/hub"
TRAINER = ROOT / "bin/trainer"

COMMON = dict(
    hidden_size=48, intermediate_size=112, num_hidden_layers=2, num_attention_heads=6, vocab_size=260,
    rms_norm_eps=1e-5, bos_token_id=256, eos_token_id=257, attn_implementation="eager",
)  # fmt: skip
ROPE = dict(
    rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)  # fmt: skip
MODELS = {
    # Grouped queries, llama3 rope, tied, a head that is not hidden/heads wide.
    "tied": (LlamaForCausalLM, LlamaConfig, torch.float32, "10GB", dict(
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True, max_position_embeddings=131072,
        rope_parameters=dict(rope_theta=500000.0, **ROPE))),
    "sharded": (LlamaForCausalLM, LlamaConfig, torch.bfloat16, "100KB", dict(
        num_key_value_heads=6, tie_word_embeddings=False, max_position_embeddings=4096,
        rope_parameters=dict(rope_theta=10000.0, rope_type="default"))),
    "mistral": (MistralForCausalLM, MistralConfig, torch.float16, "10GB", dict(
        num_key_value_heads=3, tie_word_embeddings=False, max_position_embeddings=32768, sliding_window=8,
        rope_parameters=dict(rope_theta=10000.0, rope_type="default"))),
}  # fmt: skip
DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


def logits(folder, ids):
    """Of the saved weights, in fp32: a model that is cast has RoPE tables that were rounded with it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(ids, use_cache=False).logits.contiguous()


def make(name):
    kind, config, dtype, shard, more = MODELS[name]
    torch.manual_seed(len(name))
    model = kind(config(**COMMON, **more))
    for p in model.parameters():  # larger than the default, so that attention is not flat
        p.data.normal_(0, 0.3) if p.dim() > 1 else p.data.uniform_(0.5, 1.5)
    model = model.to(dtype)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=shard, safe_serialization=True)
    ids = torch.randint(0, 256, (2, 24))
    save_file({"input_ids": ids.to(torch.int32), "logits": logits(folder, ids)}, folder / "logits.safetensors")


def run(*args):
    subprocess.run([TRAINER, "checkpoint", *map(str, args)], check=True)


def tensors(folder, stem):
    index = folder / f"{stem}.safetensors.index.json"
    files = {f"{stem}.safetensors"}
    if index.exists():
        files = set(json.loads(index.read_text())["weight_map"].values())
    out = {}
    for file in sorted(files):
        out |= load_file(folder / file)
    return out


def unpermute(w, heads, head_dim):
    """Hugging Face's order of rows to Meta's (the inverse of convert_llama_weights_to_hf.py)."""
    return w.view(heads, 2, head_dim // 2, -1).transpose(1, 2).reshape(w.shape)


def check(name, work):
    folder, dtype = OUT / name, MODELS[name][2]
    run("import", folder, work / "run", "--check-logits", folder / "logits.safetensors")
    digests = {}
    forms = [("hf", "0"), ("hf", "1"), ("meta", "0")]
    if name == "mistral":
        forms.pop()  # Meta's format has no sliding window
    for form, shard in forms:
        to = work / f"{form}-{shard}"
        run("export", work / "run", to, "--format", form, "--dtype", DTYPES[dtype], "--shard-size", shard)
        for file in sorted(to.iterdir()):
            digests[f"{to.name}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    want = load_file(folder / "logits.safetensors")
    original = tensors(folder, "model")
    for to in (work / "hf-0", work / "hf-1"):
        got = tensors(to, "model")
        assert got.keys() == original.keys(), (got.keys(), original.keys())
        for key, value in original.items():
            assert got[key].dtype == value.dtype and torch.equal(got[key], value), key
        with safe_open(next(to.glob("*.safetensors")), "pt") as f:
            assert f.metadata() == {"format": "pt"}
        assert (logits(to, want["input_ids"].long()) - want["logits"]).abs().max() < 1e-4
    if not (work / "meta-0").exists():
        return digests
    meta, config = tensors(work / "meta-0", "consolidated"), AutoConfig.from_pretrained(folder)
    assert len(meta) == len(original)
    assert torch.equal(meta["tok_embeddings.weight"], original["model.embed_tokens.weight"])
    for i in range(config.num_hidden_layers):
        q, k = (original[f"model.layers.{i}.self_attn.{x}_proj.weight"] for x in "qk")
        assert torch.equal(meta[f"layers.{i}.attention.wq.weight"], unpermute(q, config.num_attention_heads, config.head_dim))
        assert torch.equal(meta[f"layers.{i}.attention.wk.weight"], unpermute(k, config.num_key_value_heads, config.head_dim))
        assert torch.equal(meta[f"layers.{i}.feed_forward.w2.weight"], original[f"model.layers.{i}.mlp.down_proj.weight"])
    return digests


def main():
    digests = {}
    for name in MODELS:
        make(name)
        with tempfile.TemporaryDirectory() as work:
            digests[name] = check(name, pathlib.Path(work))
    (OUT / "digests.json").write_text(json.dumps(digests, indent=2) + "\n")
    print(f"{OUT}: {', '.join(MODELS)}")


if __name__ == "__main__":
    main()

"""Golden numerics of Hugging Face transformers' LlamaForCausalLM, in fp32.

Run it with scripts/golden/make.sh (or `make golden`), which has the pinned
versions. It takes an output folder, trainer/llama/testdata/golden by default,
and writes for each tiny model of MODELS:

  <name>.json         the config, one batch, its loss, and a training trajectory
  <name>.safetensors  under Hugging Face's names: the weights (NAME), the
                      gradients of the batch's loss (grad.NAME), the logits of
                      the first forward pass (logits), and the weights after
                      the trajectory (final.NAME)

Before writing, each model is checked against reference.py, an independent
float64 forward pass. README.md says what the fields mean.
"""

import json
import os
import pathlib
import sys

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file

import reference

OUT = pathlib.Path(__file__).parents[2] / "trainer/llama/testdata/golden"

# What one model changes of these. "documents" holds, for each sequence of the
# batch, where its documents start (in the length + 1 tokens that are drawn).
BASE = dict(
    dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=64, vocab=96,
    rope_theta=10000.0, norm_eps=1e-5, tied=False, sliding_window=0, rope_scaling=None,
)  # fmt: skip


def llama3(factor):
    return dict(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192)


# Three rope wavelengths matter to llama3 scaling: short ones are kept, long
# ones divided by the factor, those between 2048 and 8192 positions blended.
MODELS = {
    "mha": dict(kv_heads=4),
    "gqa": dict(),
    "tied": dict(tied=True),
    "rope8": dict(dim=16, heads=2, kv_heads=1, head_dim=128, ffn=40, rope_theta=500000.0, rope_scaling=llama3(8.0)),
    "rope32": dict(heads=2, kv_heads=1, head_dim=64, ffn=48, rope_theta=500000.0, rope_scaling=llama3(32.0), tied=True),
    "mistral": dict(sliding_window=8),
    "document": dict(),
}
LENGTHS = {"rope8": 96, "rope32": 96}  # the others: 32
# A document of one token (5), and one that starts at the last target (32).
DOCUMENTS = {"document": [[0, 5, 6, 20], [0, 15, 32]]}

BATCH = 2
TRAJECTORY = dict(steps=20, lr=3e-3, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.1, clip_norm=1.0)


def build(config):
    """The Hugging Face model of a config, its weights not yet drawn."""
    rope = dict(rope_type="default", rope_theta=config["rope_theta"])
    if scaling := config["rope_scaling"]:
        rope |= dict(
            rope_type="llama3",
            factor=scaling["factor"],
            low_freq_factor=scaling["low_freq_factor"],
            high_freq_factor=scaling["high_freq_factor"],
            original_max_position_embeddings=scaling["original_max_position"],
        )
    kwargs = dict(
        hidden_size=config["dim"],
        num_hidden_layers=config["layers"],
        num_attention_heads=config["heads"],
        num_key_value_heads=config["kv_heads"],
        head_dim=config["head_dim"],
        intermediate_size=config["ffn"],
        vocab_size=config["vocab"],
        rms_norm_eps=config["norm_eps"],
        tie_word_embeddings=config["tied"],
        rope_parameters=rope,
        max_position_embeddings=131072,
        attn_implementation="eager",
        dtype=torch.float32,
    )
    if config["sliding_window"]:
        mistral = transformers.MistralConfig(sliding_window=config["sliding_window"], **kwargs)
        return transformers.MistralForCausalLM(mistral)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**kwargs))


def draw_weights(model, generator):
    """Norm weights near 1, every matrix N(0, 1/fan_in): logits of order 1."""
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(1 + 0.1 * noise if noise.dim() == 1 else noise * noise.shape[-1] ** -0.5)


def draw_batch(config, length, starts, generator):
    """input_ids, targets (-1: none) and first, each [batch, length]."""
    tokens = torch.randint(config["vocab"], (BATCH, length + 1), generator=generator)
    first = torch.zeros_like(tokens)
    for row, sequence in zip(first, starts or []):
        for start in sequence:
            row[start:] = start
    same = first[:, 1:] == first[:, :-1]  # the next token is of the same document
    return tokens[:, :-1], torch.where(same, tokens[:, 1:], -1), first[:, :-1]


def additive_mask(first):
    """[batch, 1, length, length]: 0 inside a document up to the query, else the lowest float."""
    position = torch.arange(first.shape[1])
    seen = (position[None, None, :] <= position[None, :, None]) & (position[None, None, :] >= first[:, :, None])
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def golden(name, seed):
    """The contents of <name>.json and <name>.safetensors."""
    config = BASE | MODELS[name]
    generator = torch.Generator().manual_seed(seed)
    model = build(config).train()
    draw_weights(model, generator)
    starts = DOCUMENTS.get(name)
    input_ids, targets, first = draw_batch(config, LENGTHS.get(name, 32), starts, generator)
    mask = additive_mask(first) if starts else None
    parameters = dict(model.named_parameters())  # a tied lm_head is not listed
    tensors = {key: value.detach().clone() for key, value in parameters.items()}

    # Position ids count from the start of the sequence, documents or not.
    def forward():
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    def is_norm(key):
        return key.endswith("norm.weight")

    optimizer = torch.optim.AdamW(
        [
            dict(params=[p for k, p in parameters.items() if not is_norm(k)], weight_decay=TRAJECTORY["weight_decay"]),
            dict(params=[p for k, p in parameters.items() if is_norm(k)], weight_decay=0.0),
        ],
        lr=TRAJECTORY["lr"],
        betas=tuple(TRAJECTORY["betas"]),
        eps=TRAJECTORY["eps"],
        foreach=False,
    )
    losses, norms = [], []
    for step in range(TRAJECTORY["steps"]):
        optimizer.zero_grad()
        logits, loss = forward()
        loss.backward()
        if step == 0:
            tensors["logits"] = logits.detach().clone()
            tensors |= {"grad." + key: value.grad.clone() for key, value in parameters.items()}
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), TRAJECTORY["clip_norm"], foreach=False)
        optimizer.step()
        losses.append(rounded(loss))
        norms.append(rounded(norm))
    tensors |= {"final." + key: value.detach().clone() for key, value in parameters.items()}

    document = dict(
        name=name,
        config=config,
        batch=BATCH,
        length=input_ids.shape[1],
        input_ids=input_ids.flatten().tolist(),
        targets=targets.flatten().tolist(),
        first=first.flatten().tolist(),
        loss=losses[0],
        trajectory=TRAJECTORY | dict(losses=losses, grad_norms=norms),
        versions=dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__),
    )
    return document, tensors


def rounded(scalar):
    return float(f"{scalar.item():.9g}")  # nine digits hold an fp32 exactly


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(MODELS, start=1):
        document, tensors = golden(name, seed)
        reference.check(document, tensors)
        fields = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
        (out / f"{name}.json").write_text("{\n" + ",\n".join(fields) + "\n}\n")
        save_file(tensors, out / f"{name}.safetensors", metadata={"format": "pt"})
        (out / f"{name}.safetensors").chmod(0o644)  # save_file leaves it 0600


if __name__ == "__main__":
    main()

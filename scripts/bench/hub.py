"""Writes a directory in Hugging Face's format with the shape of Llama 3.1 8B and random bf16 weights, without any
library: hub.py DIR [--layers N]. Sixteen gigabytes with all 32 layers."""

import argparse
import json
import os
import pathlib
import struct

DIM, HEADS, KV, FFN, VOCAB = 4096, 32, 8, 14336, 128256


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=32)
    args = parser.parse_args()
    kv = DIM // HEADS * KV
    shapes = {"model.embed_tokens.weight": [VOCAB, DIM], "lm_head.weight": [VOCAB, DIM], "model.norm.weight": [DIM]}
    for i in range(args.layers):
        p = f"model.layers.{i}."
        for name, shape in {
            "self_attn.q_proj": [DIM, DIM], "self_attn.k_proj": [kv, DIM], "self_attn.v_proj": [kv, DIM],
            "self_attn.o_proj": [DIM, DIM], "mlp.gate_proj": [FFN, DIM], "mlp.up_proj": [FFN, DIM],
            "mlp.down_proj": [DIM, FFN], "input_layernorm": [DIM], "post_attention_layernorm": [DIM],
        }.items():  # fmt: skip
            shapes[p + name + ".weight"] = shape
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        n = 2 * (shape[0] if len(shape) == 1 else shape[0] * shape[1])
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Numbers from 2^-8 to 2^-7, of either sign: the high byte is 0x3b or 0xbb, the low one random.
    noise = os.urandom(4 << 20)
    block = bytearray(8 << 20)
    block[0::2] = noise
    block[1::2] = bytes(0x3B | (b & 0x80) for b in noise[::-1])
    args.dir.mkdir(parents=True, exist_ok=True)
    with open(args.dir / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for first in range(0, at, len(block)):
            f.write(block[: at - first])
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=DIM, intermediate_size=FFN,
        num_hidden_layers=args.layers, num_attention_heads=HEADS, num_key_value_heads=KV, vocab_size=VOCAB,
        max_position_embeddings=8192, rope_theta=500000.0, rms_norm_eps=1e-5, tie_word_embeddings=False, hidden_act="silu",
    )  # fmt: skip
    (args.dir / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()

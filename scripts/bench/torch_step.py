"""One run of the peer: training steps of Hugging Face's LlamaForCausalLM in PyTorch, on the CPU.

peer.py starts it and gives it the job as JSON on the command line; it prints its measurements as JSON. A step does what
this trainer's does: forward, mean cross-entropy over all tokens, backward, gradient clipping by the global norm, AdamW
with decoupled decay of all but the norms.
"""

import itertools
import json
import pathlib
import statistics
import sys
import tempfile
import time

import torch
import torch.nn.functional as F
import transformers
from torch.profiler import ProfilerActivity, profile

LEAST_STEPS = 3


def memory(field):
    """Memory of this process in RAM, in bytes: VmRSS now, VmHWM at its peak."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field + ":"))


def build(model):
    config = transformers.LlamaConfig(
        hidden_size=model["dim"],
        num_hidden_layers=model["layers"],
        num_attention_heads=model["heads"],
        num_key_value_heads=model["kv_heads"],
        head_dim=model["head_dim"],
        intermediate_size=model["ffn"],
        vocab_size=model["vocab"],
        max_position_embeddings=model["max_length"],
        rms_norm_eps=model["norm_eps"],
        rope_parameters=dict(rope_type="default", rope_theta=model["rope_theta"]),
        tie_word_embeddings=model["tied"],
        attn_implementation="sdpa",
        dtype=torch.float32,
    )
    return transformers.LlamaForCausalLM(config).train()


def optimizer_of(model, o):
    norms = [p for p in model.parameters() if p.dim() == 1]
    matrices = [p for p in model.parameters() if p.dim() > 1]
    groups = [dict(params=matrices, weight_decay=o["weight_decay"]), dict(params=norms, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=o["lr"], betas=tuple(o["betas"]), eps=o["eps"], fused=True)


def peak_of(passes):
    """The most bytes of tensors alive at once during passes(): activations and workspace.

    Tensors that were there before (weights, moments) and those that passes() leaves behind (gradients) do not count.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        passes()
    with tempfile.TemporaryDirectory() as folder:
        trace = pathlib.Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    events = sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: (e["ts"], e["args"]["Ev Idx"]))
    alive, sizes = {}, []  # address of what is alive → its index in sizes, the changes
    for address, size in ((e["args"]["Addr"], e["args"]["Bytes"]) for e in events):
        sizes.append(size)
        if size > 0:
            alive[address] = len(sizes) - 1
        elif alive.pop(address, None) is None:
            sizes[-1] = 0
    for index in alive.values():
        sizes[index] = 0
    return max(itertools.accumulate(sizes))


def main():
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    libraries = memory("VmRSS")
    model = build(job["model"])
    optimizer = optimizer_of(model, job["optimizer"])
    shape = (job["micro_batch"], job["length"])
    ids, targets = (torch.randint(job["model"]["vocab"], shape) for _ in range(2))

    def loss_of(ids, targets):
        # Autocast, with weights, gradients and moments in fp32, is how PyTorch trains in bf16 with fp32 master weights.
        with torch.autocast("cpu", torch.bfloat16, enabled=job["precision"] == "bf16"):
            logits = model(input_ids=ids, use_cache=False).logits
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    if job["compile"]:
        loss_of = torch.compile(loss_of)

    def passes():
        loss = loss_of(ids, targets)
        loss.backward()
        return loss.item()

    def step():
        optimizer.zero_grad()
        loss = passes()
        if clip_norm := job["optimizer"]["clip_norm"]:  # 0: not clipped
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        return loss

    step()
    first_step_at = time.time()
    step()
    peak = memory("VmHWM")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew, without what compiling took
    seconds, begin = [], time.perf_counter()
    while len(seconds) < LEAST_STEPS or time.perf_counter() - begin < job["duration"]:
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    peak_of_steps = memory("VmHWM")
    optimizer.zero_grad()
    parameters = sum(p.numel() for p in model.parameters())
    state = 4 * 4 * parameters  # weights, gradients, two moments
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    compiled = "compiled" if job["compile"] else "eager"
    capability = torch.backends.cpu.get_cpu_capability()
    report = dict(
        device=f"{versions}, {compiled}, {capability}, {torch.get_num_threads()} threads",
        parameters=parameters,
        steps=len(seconds),
        tokens_per_second=ids.numel() / statistics.median(seconds),
        loss=loss,
        first_step_at=first_step_at,
        activations_bytes=peak_of(passes),
        rss_above_state_bytes=peak_of_steps - libraries - state,
        peak_rss_bytes=max(peak, peak_of_steps),
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()

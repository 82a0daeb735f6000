"""A float64 forward pass of the Llama 3 model, written from its definition.

It shares no code with transformers. llama.py checks every golden file against
it: logits, loss, all gradients (by autograd, and by central finite differences
on a few entries), and the training trajectory. The differences it prints are
fp32's rounding, so they also tell a consumer which tolerances are sensible.
"""

import math

import torch
import torch.nn.functional as F

# Largest differences allowed, relative to the largest value of a tensor.
LOGITS, LOSS, GRADIENT, FINITE, TRAJECTORY, SCALING = 1e-5, 1e-6, 1e-5, 1e-5, 1e-4, 1e-3


def inverse_frequencies(config):
    half = config["head_dim"] // 2
    result = []
    for i in range(half):
        frequency = config["rope_theta"] ** (-i / half)
        if scaling := config["rope_scaling"]:
            turns = scaling["original_max_position"] * frequency / (2 * math.pi)
            low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
            keep = min(max((turns - low) / (high - low), 0.0), 1.0)
            frequency *= keep + (1 - keep) / scaling["factor"]
        result.append(frequency)
    return torch.tensor(result, dtype=torch.float64)


def rms_norm(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def rotate(x, angle):
    """x: [batch, head, length, head_dim], whose pairs are (i, i + head_dim/2)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def logits(config, weights, input_ids, first):
    c, (batch, length) = config, input_ids.shape
    position = torch.arange(length)
    query, key = position[None, :, None], position[None, None, :]
    seen = (key <= query) & (key >= first[:, :, None])
    if c["sliding_window"]:
        seen &= key > query - c["sliding_window"]
    angle = position[:, None].double() * inverse_frequencies(c)

    x = weights["model.embed_tokens.weight"][input_ids]
    for layer in range(c["layers"]):
        w = {k.split(".", 3)[3]: v for k, v in weights.items() if k.startswith(f"model.layers.{layer}.")}
        h = rms_norm(x, w["input_layernorm.weight"], c["norm_eps"])
        q, k, v = (
            (h @ w[f"self_attn.{p}_proj.weight"].T).view(batch, length, -1, c["head_dim"]).transpose(1, 2)
            for p in "qkv"
        )
        q, k = rotate(q, angle), rotate(k, angle)
        k, v = (t.repeat_interleave(c["heads"] // c["kv_heads"], 1) for t in (k, v))
        score = q @ k.transpose(-1, -2) / math.sqrt(c["head_dim"])
        attention = score.masked_fill(~seen[:, None], -math.inf).softmax(-1) @ v
        x = x + attention.transpose(1, 2).reshape(batch, length, -1) @ w["self_attn.o_proj.weight"].T
        h = rms_norm(x, w["post_attention_layernorm.weight"], c["norm_eps"])
        gate, up = h @ w["mlp.gate_proj.weight"].T, h @ w["mlp.up_proj.weight"].T
        x = x + (F.silu(gate) * up) @ w["mlp.down_proj.weight"].T
    head = weights["model.embed_tokens.weight" if c["tied"] else "lm_head.weight"]
    return rms_norm(x, weights["model.norm.weight"], c["norm_eps"]) @ head.T


def difference(got, want):
    return ((got.double() - want).abs().max() / want.abs().max()).item()


def train(weights, loss_of, t):
    """The losses and gradient norms before each AdamW update; the weights are updated in place."""
    (b1, b2), losses, norms = t["betas"], [], []
    moments = {k: (torch.zeros_like(w), torch.zeros_like(w)) for k, w in weights.items()}
    for step in range(1, t["steps"] + 1):
        loss = loss_of(weights)
        gradients = dict(zip(weights, torch.autograd.grad(loss, weights.values())))
        norm = sum(g.square().sum() for g in gradients.values()).sqrt().item()
        losses.append(loss.item())
        norms.append(norm)
        with torch.no_grad():
            for k, w in weights.items():
                g, (m, v) = gradients[k] * min(1.0, t["clip_norm"] / (norm + 1e-6)), moments[k]
                m.mul_(b1).add_(g, alpha=1 - b1)
                v.mul_(b2).addcmul_(g, g, value=1 - b2)
                if not k.endswith("norm.weight"):
                    w.mul_(1 - t["lr"] * t["weight_decay"])
                w.sub_(t["lr"] * (m / (1 - b1**step)) / ((v / (1 - b2**step)).sqrt() + t["eps"]))
    return losses, norms


def check(document, tensors):
    """Raises unless the golden values of a model agree with this file's."""
    config, shape = document["config"], (document["batch"], document["length"])
    input_ids, targets, first = (torch.tensor(document[k]).view(shape) for k in ("input_ids", "targets", "first"))
    names = [k for k in tensors if not k.startswith(("grad.", "final.", "logits"))]
    weights = {k: tensors[k].double().requires_grad_() for k in names}

    def loss_of(weights):
        result = logits(config, weights, input_ids, first)
        return F.cross_entropy(result.flatten(0, 1), targets.flatten(), ignore_index=-1)

    worst = {}
    with torch.no_grad():
        want = logits(config, weights, input_ids, first)
        worst["logits"] = difference(tensors["logits"], want), LOGITS
    loss = loss_of(weights)
    worst["loss"] = abs(document["loss"] / loss.item() - 1), LOSS
    gradients = dict(zip(names, torch.autograd.grad(loss, weights.values())))
    worst["gradient"] = max(difference(tensors["grad." + k], gradients[k]) for k in names), GRADIENT

    # Central differences at the entries with each tensor's largest gradients.
    finite, step = 0.0, 1e-5
    with torch.no_grad():
        for k in names:
            scale = gradients[k].abs().max().item()
            for i in gradients[k].abs().flatten().topk(2).indices.tolist():
                entry = weights[k].view(-1)[i]
                kept = entry.item()
                entry.fill_(kept + step)
                above = loss_of(weights).item()
                entry.fill_(kept - step)
                below = loss_of(weights).item()
                entry.fill_(kept)
                got = tensors["grad." + k].flatten()[i].item()
                finite = max(finite, abs(got - (above - below) / (2 * step)) / scale)
    worst["finite difference"] = finite, FINITE

    if config["rope_scaling"]:  # the file is of no use if scaling hardly shows
        with torch.no_grad():
            unscaled = logits(config | {"rope_scaling": None}, weights, input_ids, first)
        shown = difference(unscaled, want)
        assert shown > SCALING, f"{document['name']}: rope scaling moves the logits by only {shown:.1e}"

    t = document["trajectory"]
    losses, norms = train(weights, loss_of, t)
    for key, got in (("losses", losses), ("grad_norms", norms)):
        worst[key] = max(abs(g / w - 1) for g, w in zip(t[key], got)), TRAJECTORY
    worst["final"] = max(difference(tensors["final." + k], weights[k].detach()) for k in names), TRAJECTORY

    count = sum(weights[k].numel() for k in names)
    print(f"{document['name']}: {count} parameters, loss {document['loss']:.4f} -> {t['losses'][-1]:.4f}", end="")
    print(f", grad norm {min(t['grad_norms']):.2f}..{max(t['grad_norms']):.2f}")
    print("   " + ", ".join(f"{key} {value:.1e}" for key, (value, _) in worst.items()))
    for key, (value, limit) in worst.items():
        assert value < limit, f"{document['name']}: {key} differs by {value:.2e}, over {limit:.0e}"

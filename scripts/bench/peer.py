"""Times this trainer beside PyTorch: whole training steps of the same models, shapes and threads.

Run it with scripts/bench/peer.sh, which has the versions. Every run is a process of its own, and the runs alternate
(ours, eager, compiled, ours, …), so that a change of the machine's speed meets all of them; a ratio is the median of
the rounds' ratios. It needs no package; torch_step.py, which it starts, needs torch and transformers.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent
PATIENCE = 1800  # seconds for one run

# Processors that others may use before a comparison is called unfair. OpenMP's threads wait for one another spinning:
# one busy neighbour slows PyTorch many times more than a program whose threads share out their work.
QUIET = 0.05

PEERS = ("eager", "compiled")

# Variables that steer the libraries of either side, and are left behind by other work on a machine.
STEERING = ("ATEN_", "DNNL_", "GOMP_", "HERD_", "KMP_", "MKL_", "NVPL_", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_")
STEERING += ("TORCH", "GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "MALLOC_", "LD_PRELOAD", "THP_MEM_ALLOC")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    models = "llama3-26m:4x256,llama3-124m:1x256"
    p.add_argument("--models", default=models, help="NAME:SEQUENCESxLENGTH of a step, with commas; NAME is of configs/")
    p.add_argument("--precisions", default="fp32,bf16", help="fp32, bf16, with commas")
    p.add_argument("--peers", default=",".join(PEERS), help="eager, compiled, with commas")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seconds", type=float, default=10, help="of measured steps in a run; at least three steps")
    p.add_argument("--kernels", default="", help="of this trainer, as HERD_CPU")
    p.add_argument("--trainer", default=ROOT / "bin/trainer", type=pathlib.Path)
    p.add_argument("--json", type=pathlib.Path, help="also write every run to this file, a line of JSON each")
    args = p.parse_args()
    shape = re.compile(r"(.+):([1-9]\d*)x([1-9]\d*)")
    args.models = [shape.fullmatch(model) or p.error(f"--models: {model}") for model in args.models.split(",")]
    args.precisions, args.peers = args.precisions.split(","), args.peers.split(",")
    if not set(args.precisions) <= {"fp32", "bf16"} or not set(args.peers) <= set(PEERS):
        p.error("--precisions are fp32 and bf16, --peers are eager and compiled")
    if args.rounds < 1 or args.threads < 1:
        p.error("--rounds and --threads must be at least 1")
    return args


def clean_environment():
    dropped = sorted(name for name in os.environ if name.startswith(STEERING))
    if dropped:
        print("not passed on:", " ".join(dropped), file=sys.stderr)
    return {name: value for name, value in os.environ.items() if name not in dropped}


def others():
    """Seconds of processor time that the machine has spent on anything but the children of this process."""
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    mine = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - mine.ru_utime - mine.ru_stime


def run(command, environment):
    """The JSON that a command prints, and beside it

    first_step: the seconds from its start to the end of its first step,
    disturbed: how many processors others used, or the host took away, while it ran.
    """
    start, before = time.time(), others()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nended with {done.returncode}\n{done.stderr}")
    report = json.loads(done.stdout)
    report["disturbed"] = max(0.0, (others() - before) / (time.time() - start))
    if "first_step_at" in report:
        report["first_step"] = report["first_step_at"] - start
    return report


def job_of(trainer, name, environment):
    """The sections model and optimizer of configs/NAME.yaml, every value filled in."""
    file = ROOT / "configs" / f"{name}.yaml"
    explained = run([trainer, "config", "explain", "--config", file, "--json"], environment)
    job = dict(model={}, optimizer={})
    for value in explained["values"]:
        section, _, key = value["path"].partition(".")
        if section in job and key not in ("preset", "kind"):
            job[section][key] = None if value["value"] == "none" else json.loads(value["value"])
    if job["model"]["rope_scaling"] is not None or job["model"]["sliding_window"]:
        sys.exit(f"{name}: the peer has no RoPE scaling and no sliding window")
    return job, file


def ours(args, file, shape, environment):
    command = [args.trainer, "bench", "step", "--json", "--config", file, "--precision", shape["precision"]]
    command += ["--micro-batch", str(shape["micro_batch"]), "--length", str(shape["length"])]
    command += ["--threads", str(args.threads), "--duration", f"{args.seconds}s", "--kernels", args.kernels]
    report = run(command, environment)
    uses = {m["use"]: m["bytes"] for m in report["memory"]}
    state = sum(uses[use] for use in ("weights", "gradients", "optimizer"))
    same = ("device", "parameters", "steps", "loss", "first_step", "disturbed", "peak_rss_bytes")
    return {key: report[key] for key in same} | dict(
        tokens_per_second=report["tokens_per_second"]["median"],
        activations_bytes=report["memory_bytes"] - state,
        rss_above_state_bytes=report["peak_rss_bytes"] - state,
    )


def peer(args, job, side, environment):
    job = job | dict(threads=args.threads, duration=args.seconds, compile=side == "compiled")
    return run([sys.executable, HERE / "torch_step.py", json.dumps(job)], environment)


def compare(args, name, shape, environment, log):
    """Alternating runs: {"ours": [one report a round], "eager": …}."""
    job, file = job_of(args.trainer, name, environment)
    reports = {side: [] for side in ["ours", *args.peers]}
    with tempfile.TemporaryDirectory() as cache:  # so that the first compiled run compiles
        threads = str(args.threads)
        peers = environment | dict(TORCHINDUCTOR_CACHE_DIR=cache, OMP_NUM_THREADS=threads, KINETO_LOG_LEVEL="99")
        for number in range(args.rounds):
            for side in reports:
                if side == "ours":
                    report = ours(args, file, shape, environment)
                else:
                    report = peer(args, job | shape, side, peers)
                reports[side].append(report)
                log(dict(model=name, **shape, threads=args.threads, round=number + 1, side=side) | report)
                if (n := report["parameters"]) != (mine := reports["ours"][0]["parameters"]):
                    sys.exit(f"{name}: {side} has {n} parameters, ours {mine}")
    return reports


def table(reports):
    """Lines of text: a header, a line for each side, and the speed beside the faster peer."""
    columns = {side: {key: [r[key] for r in rounds] for key in rounds[0]} for side, rounds in reports.items()}
    mine = columns["ours"]
    header = "tokens/s", "min–max", "ours/it", "act+work", "ours/it", "above state", "peak", "first step", "later"
    rows = [("", *header)]
    for side, c in columns.items():
        speed, (first, *later) = c["tokens_per_second"], c["first_step"]
        activations, above, peak = (
            statistics.median(c[key]) for key in ("activations_bytes", "rss_above_state_bytes", "peak_rss_bytes")
        )
        rows.append((
            side,
            f"{statistics.median(speed):.1f}",
            f"{min(speed):.1f}–{max(speed):.1f}",
            f"{ratio(mine['tokens_per_second'], speed):.2f}",
            mib(activations),
            f"{mine['activations_bytes'][0] / activations:.2f}",
            mib(above),
            mib(peak),
            f"{first:.2f} s",
            f"{statistics.median(later):.2f} s" if later else "",
        ))  # fmt: skip
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
    if peers := [c["tokens_per_second"] for side, c in columns.items() if side != "ours"]:
        faster = [max(speeds) for speeds in zip(*peers)]
        best = statistics.median(mine["tokens_per_second"]) / max(faster)
        lines.append(
            f"ours / the faster peer of each round: {ratio(mine['tokens_per_second'], faster):.2f}; "
            f"our median / the best round of a peer: {best:.2f}"
        )
    if (worst := max(max(c["disturbed"]) for c in columns.values())) > QUIET:
        lines.append(f"NOT A FAIR COMPARISON: other programs used up to {worst:.2f} processors during a run")
    return lines


def ratio(a, b):
    return statistics.median(x / y for x, y in zip(a, b))


def mib(size):
    return f"{size / 2**20:.1f} MiB"


def main():
    args = arguments()
    environment = clean_environment()
    lines = args.json.open("w") if args.json else None

    def log(report):
        text = "{model} {precision} round {round} {side}: {tokens_per_second:.1f} tokens/s in {steps} steps"
        print(text.format(**report), f"others {report['disturbed']:.2f}", sep=", ", file=sys.stderr)
        if lines:
            print(json.dumps(report), file=lines, flush=True)

    for model in args.models:
        name, sequences, length = model.groups()
        for precision in args.precisions:
            shape = dict(micro_batch=int(sequences), length=int(length), precision=precision)
            reports = compare(args, name, shape, environment, log)
            title = f"{name}, {precision}, {sequences}×{length} tokens a step"
            print(f"{title}, {args.threads} threads, {args.rounds} rounds")
            for rounds in reports.values():
                print(" ", rounds[0]["device"])
            print("\n".join(table(reports)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()

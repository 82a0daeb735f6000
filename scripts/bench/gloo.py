"""Collectives of two processes: Herd's over shared memory beside PyTorch's gloo (loopback TCP), in alternating rounds.

Bus bandwidth as nccl-tests defines it: all-reduce 2(n-1)/n of the buffer, all-gather (n-1)/n of the gathered buffer,
per second. Started by gloo.sh, which builds the benchmark.
"""

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LARGE = 16 << 20  # elements: 64 MiB
SMALL = 256  # 1 KiB


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def timed(op, rounds):
    for _ in range(3):
        op()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        op()
        times.append(time.perf_counter() - start)
    return times


def rank_main(rank, port, large_rounds, small_rounds, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    full = torch.arange(LARGE, dtype=torch.float32)
    pieces = list(full.chunk(2))
    mine = pieces[rank].clone()
    small = torch.ones(SMALL)
    reduced = timed(lambda: dist.all_reduce(full), large_rounds)
    gathered = timed(lambda: dist.all_gather(pieces, mine), large_rounds)
    latency = timed(lambda: dist.all_reduce(small), small_rounds)
    if rank == 0:
        size = 4 * LARGE / 1e9
        results["all-reduce"] = size / statistics.mean(reduced)
        results["all-gather"] = size / 2 / statistics.mean(gathered)
        results["small"] = statistics.median(latency) * 1e6
    dist.destroy_process_group()


def gloo(args):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(rank_main, (free_port(), args.large, args.small, results), nprocs=2)
        return dict(results)


def herd(args):
    def bench(pattern, rounds):
        command = [args.herd, "-test.run", "^$", "-test.bench", pattern, "-test.benchtime", f"{rounds}x"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def metric(text, name, unit):
        found = re.search(rf"^Benchmark{name}\S*\s.*?([0-9.e+-]+) {unit}", text, re.M)
        if not found:
            sys.exit(f"no {unit} of {name} in:\n{text}")
        return float(found.group(1))

    large, small = bench("SharedMemory", args.large), bench("SmallAllReduce", args.small)
    return {
        "all-reduce": metric(large, "SharedMemory/all-reduce", "busGB/s"),
        "all-gather": metric(large, "SharedMemory/all-gather", "busGB/s"),
        "small": metric(small, "SmallAllReduce", "median-µs"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--herd", required=True, help="the compiled test binary of ./collective")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of both, of which the median counts")
    parser.add_argument("--large", type=int, default=30, help="operations of 64 MiB a round")
    parser.add_argument("--small", type=int, default=5000, help="operations of 1 KiB a round")
    args = parser.parse_args()
    ours, theirs = [], []
    for _ in range(args.repeats):
        ours.append(herd(args))
        theirs.append(gloo(args))
    print(f"two processes, torch {torch.__version__}, median of {args.repeats} rounds")
    for name, label, unit in (
        ("all-reduce", "all-reduce 64 MiB", "GB/s bus"),
        ("all-gather", "all-gather 64 MiB", "GB/s bus"),
        ("small", "all-reduce 1 KiB", "µs median"),
    ):
        a = statistics.median(r[name] for r in ours)
        b = statistics.median(r[name] for r in theirs)
        ratio = b / a if unit.startswith("µs") else a / b
        print(f"{label:18} herd {a:8.2f}   gloo {b:8.2f} {unit:10} {ratio:6.1f} times as good")


if __name__ == "__main__":
    main()

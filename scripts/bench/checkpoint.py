"""Saves and loads 2 GiB of random fp32 tensors with torch.distributed.checkpoint, and with this trainer, by turns.

checkpoint.py [--dir DIR] [--size MIB] [--rounds N]: needs torch (scripts/bench/requirements.txt), twice --size of disk and
memory. Both sides write from memory and sync; what is read was dropped from the page cache.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

import torch
import torch.distributed.checkpoint as dcp

TRAINER = pathlib.Path(__file__).parents[2] / "bin/trainer"
TENSORS = 48


def forget(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def peer(folder, state, size):
    begin = time.perf_counter()
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    save = size / (time.perf_counter() - begin) / 1e6
    forget(folder)
    begin = time.perf_counter()
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    load = size / (time.perf_counter() - begin) / 1e6
    shutil.rmtree(folder)
    return save, load


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default="/tmp")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    n = (args.size << 20) // TENSORS // 4096
    state = {f"layers.{i}": torch.rand(n, 1024) for i in range(TENSORS)}
    size = TENSORS * n * 4096
    work = pathlib.Path(tempfile.mkdtemp(dir=args.dir))
    ratios = {"save": [], "load": []}
    try:
        for _ in range(args.rounds):
            out = subprocess.run(
                [TRAINER, "bench", "checkpoint", "--dir", work, "--size", str(args.size), "--rounds", "1", "--json"],
                check=True, capture_output=True,
            ).stdout  # fmt: skip
            ours = json.loads(out)
            theirs = dict(zip(("save", "load"), peer(work / "dcp", state, size)))
            for key in ratios:
                ratios[key].append(ours[key]["median"] / theirs[key])
                print(f"{key}: {ours[key]['median']:.0f} MB/s, torch.distributed.checkpoint {theirs[key]:.0f}")
    finally:
        shutil.rmtree(work)
    for key, list_ in ratios.items():
        print(f"{key}: {statistics.median(list_):.2f} times torch.distributed.checkpoint, the median of {args.rounds} rounds")


if __name__ == "__main__":
    main()

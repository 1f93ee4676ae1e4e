"""Cells of a grid whose GPU is full, or fails: each is to say so, and to end well when tried again.

A process fills the GPU but for some memory, and goes once a cell has run out of it. Beside that
cell another one runs into an assertion on the device, after which its process can use the GPU no
more. Then the same with so little memory left that not even a context can be made.

    python scripts/gpu_faults.py                    # within a minute on one GPU
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from rich.console import Console

from hypercrl.base.gpu_faults import GPU_FAULT
from hypercrl.bench import Cell, Grid, LocalWorkers, Status, run_grid

ROOT = Path(__file__).parents[1]
GIB = 2**30
SMALL = (
    "preset=smoke",
    "device=cuda",
    "seed=0",
    "dynamics.hidden=[16]",
    "protocol.num_tasks=1",
    "protocol.random_steps=20",
    "protocol.planned_steps=20",
    "protocol.update_every=10",
    "protocol.updates=6",
    "protocol.final_episodes=1",
)
LARGE_BATCH = f"protocol.batch_size={2**24}"
"""A training step on so many transitions takes 2.4 GiB at the very least, more than 6 in fact."""

BALLAST = """
import sys, torch
left = int(sys.argv[1])
held = []
for chunk in (2**30, 2**24):
    while torch.cuda.mem_get_info()[0] > left + chunk:
        held.append(torch.empty(chunk, dtype=torch.uint8, device="cuda"))
print("full", flush=True)
sys.stdin.read()
"""
FAILS_ONCE = """
import torch
from pathlib import Path
from hypercrl.methods.finetune import Finetune

HERE = Path(__file__).with_name("failed")


class FailsOnce(Finetune):
    def training_step(self, batch):
        if not HERE.exists():
            HERE.touch()
            batch.obs[torch.full((1,), len(batch.obs), device="cuda")]
            torch.cuda.synchronize()
        return super().training_step(batch)
"""


@contextmanager
def ballast(left: int) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the GPU's memory but for so many bytes, until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", BALLAST, str(left)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "full\n":
            raise RuntimeError("the GPU's memory could not be filled")
        yield process
    finally:
        process.kill()
        process.wait()


class Relieving(LocalWorkers):
    """Ends the ballast once a cell has run out of memory."""

    heavy: subprocess.Popen[str]

    def finished(self) -> list[tuple[Cell, int]]:
        ended = super().finished()
        if any(code == GPU_FAULT and "memory" in cell.last_words() for cell, code in ended):
            self.heavy.kill()
            self.heavy.wait()
        return ended


def tried(wanted: Mapping[Cell, str], left: int) -> bool:
    """Run cells on the first GPU beside a ballast; whether all ended well in their second attempt.

    Args:
        wanted: cell → words of the reason that its first attempt is to end with.
        left: bytes that the ballast leaves.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[:1]
    workers = Relieving(len(wanted), first)
    with ballast(left) as workers.heavy, closing(workers):
        board = run_grid(list(wanted), workers, 0, Console())
    good = True
    for progress in board:
        fine = (
            (progress.status, progress.attempts) == (Status.DONE, 2)
            and wanted[progress.cell] in progress.reason
            and progress.cell.done
        )
        good &= fine
        print(f"{'as it should' if fine else 'NOT AS IT SHOULD'}: {progress.cell.name}, ", end="")
        print(f"{progress.status.value} in attempt {progress.attempts}; {progress.reason}\n")
    return good


def main() -> int:
    if not torch.cuda.is_available():
        sys.exit("gpu_faults: there is no GPU here")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "on_the_gpu.py").write_text(FAILS_ONCE)
        paths = (ROOT, ROOT / "envs", ROOT / "kernels", place)
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, paths), before])
        sys.path.append(scratch)  # settings are looked at here, before the cells are
        (large,) = Grid((*SMALL, "method=finetune", LARGE_BATCH), place / "large").cells
        (fails,) = Grid((*SMALL, 'method="on_the_gpu:FailsOnce"'), place / "fails").cells
        (small,) = Grid((*SMALL, "method=finetune"), place / "small").cells
        full = tried({large: "out of memory", fails: "device-side assert"}, 4 * GIB)
        context = tried({small: "out of memory"}, GIB // 16)
    return 0 if full and context else 1


if __name__ == "__main__":
    sys.exit(main())

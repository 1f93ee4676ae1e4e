"""What forms of the sparse memories recall, beside single memories, from about as many bytes.

    python scripts/recall_forms.py --out DIR [--device cuda] [--workers 12] [--limit 145]

Checked first on a GPU: contexts, gradients and captured steps of each form against the CPU's.
Then every cell is one `hypercrl recall` in a process of its own, the most wanted first, several at
once; none is begun that would not end within the limit, in seconds. The table and the figure are
those of `hypercrl bench suite=recall`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.console import Console

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.memory import MEMORIES, MemoryEncoder, make_memory
from hypercrl.report.recall import write_recall

MOM_AS_ITS_AUTHORS = "memory=mom memory.convolution=routed memory.shared_decay=true"
CELLS = [
    *(  # 16 KiB
        (f"{form} memory.width={width}", seed)
        for seed in (0, 1, 2)
        for form, width in (
            ("memory=gla", 64),
            ("memory=deltanet", 56),
            ("memory=sse memory.rows=0", 28),
            ("memory=sse", 28),
            ("memory=sse memory.rows=14", 28),
            ("memory=mom", 28),
            (MOM_AS_ITS_AUTHORS, 20),
            ("memory=hybrid memory.linear=sse memory.ratio=5 memory.layers=6", 12),
        )
    ),
    *(  # 80 KiB
        (f"{form} memory.width=64", seed)
        for seed in (0, 1, 2)
        for form in ("memory=sse", "memory=sse memory.rows=0", "memory=mom", MOM_AS_ITS_AUTHORS)
    ),
]
INPUTS = 22
CHECKED: dict[str, dict[str, object]] = {
    "sse": {"rows": 8, "selected": 2},
    "mom": {"convolution": "routed", "shared_decay": True},
    "hybrid": {"linear": "sse", "settings": {"rows": 8}},
}


def contexts(memory: MemoryEncoder, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Contexts of a sequence, and every parameter's gradient."""
    out, _ = memory.encode(tokens)
    (out.square().mean() + memory.auxiliary_loss()).backward()
    return [out.detach(), *(p.grad for p in memory.parameters() if p.grad is not None)]


def check(device: torch.device) -> None:
    """Exits with 1 where a form differs on the device."""
    for name, settings in CHECKED.items():
        config = MEMORIES[name][1](name=name, **settings)  # pyright: ignore
        exact, own = (
            make_memory(config, INPUTS, torch.Generator().manual_seed(0)) for _ in range(2)
        )
        own = own.to(device)
        tokens = torch.randn(4, 64, INPUTS, generator=torch.Generator().manual_seed(1))
        pairs = zip(contexts(exact, tokens), contexts(own, tokens.to(device)), strict=True)
        error = max(float((b.cpu() - a).norm() / a.norm()) for a, b in pairs)
        with torch.no_grad():
            state = own.initial(4)
            whole, _ = own.encode(tokens.to(device))
        step = CapturedFunction(
            lambda token, own=own, state=state: (own.step(state, token)["context"],)
        )
        steps = torch.stack([step(tokens[:, t].to(device))[0].clone() for t in range(64)], 1)
        apart = float((steps - whole).norm() / whole.norm())
        print(f"{name} {settings}: {error:.1e} from the CPU, steps {apart:.1e} from the sequence")
        if not max(error, apart) < 1e-2:
            sys.exit(1)


class Cells:
    """Runs cells as long as there is time for one more."""

    def __init__(self, out: Path, words: list[str], limit: float) -> None:
        self.out, self.words = out, words
        self.end, self.longest = time.monotonic() + limit, 0.0

    def run(self, cell: tuple[str, int]) -> Path | None:
        """The cell's result.json; None where it had no time or failed."""
        form, seed = cell
        began = time.monotonic()
        if began + 1.1 * self.longest > self.end:
            return None
        folder = self.out / "runs" / str(CELLS.index(cell))
        line = [sys.executable, "-m", "hypercrl", "recall", *form.split(), f"seed={seed}"]
        line += [*self.words, f"run_dir={folder}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                line, env=environment, capture_output=True, text=True, timeout=self.end - began
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode:
            print(f"{form}: {done.stderr.strip().splitlines()[-1]}")
            return None
        self.longest = max(self.longest, time.monotonic() - began)
        return folder / "result.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder, new")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--limit", type=float, default=145.0, help="seconds, of all")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    began = time.monotonic()
    device = torch.device(arguments.device)
    if device.type == "cuda":
        check(device)
    words = ["preset=quick", f"pairs={arguments.pairs}", f"steps={arguments.steps}"]
    left = arguments.limit - (time.monotonic() - began)
    cells = Cells(arguments.out, [*words, f"device={device}"], left)
    with ThreadPoolExecutor(arguments.workers) as pool:
        results = [path for path in pool.map(cells.run, CELLS) if path is not None]
    print(f"{len(results)} of {len(CELLS)} cells in {time.monotonic() - began:.0f} s")
    write_recall(results, arguments.out, Console(width=120))


if __name__ == "__main__":
    main()

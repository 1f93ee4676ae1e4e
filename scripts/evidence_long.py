"""What many tasks do to a method: tasks learned late, other orders and widths, idle units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from evidence_figures import error_against_learned
from evidence_grid import METHODS, SEQUENCES, variants_of
from evidence_records import cell_of

from hypercrl.metrics import Array, forgetting, just_trained
from hypercrl.report.benchmark import REFERENCE, Benchmark
from hypercrl.report.formats import UNDEFINED, fixed, mean, significant, size, spread
from hypercrl.report.runs import Result

Rows = list[list[str]]
GROWN = "since learned"
QUARTERS = ("first quarter", "second", "third", "last")

LEARNED_LATE = """
**As the n-th task or as the first.** Success right after a task was learned{less}; means over the
tasks of each quarter of the sequence. Behind it the prediction error{multiple} (geometric mean),
and what has become of it by the end, 1 being as just learned; the bytes that a task adds, and how
much longer training on a task takes in the last quarter than in the first (beside other runs, of
which fewer are left then).
"""
LESS = ", less that of `single`, to which every task is the first"
MULTIPLE = " as a multiple of `single`'s"
USED = """
**What is used of the networks.** Share of dormant units (Sokar et al. 2023, τ = 0.025) and
effective rank (Roy and Vetterli 2007), means over hidden layers, of the network that has just been
learned, on its transitions, and of the hypernetwork, for the embeddings so far; after the first,
the middle and the last task.
"""
VARIANTS = """
**Other settings of the same sequence.** {differ}. Behind the error what has become of it since each
task was learned, 1 being as just learned (geometric means).
"""


def geometric_mean(errors: Array) -> float:
    """Of errors of any shape: one that diverged does not stand for all of them."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(errors).mean())) if errors.size else math.nan


def grown(errors: Array) -> str:
    """How many times the error [S, N + 1, N] of an earlier task is at the end what it was just
    after that task; of one task there is none."""
    if errors.shape[-1] == 1 or not len(errors):
        return UNDEFINED
    return fixed(geometric_mean(np.array([error_against_learned(e)[-1] for e in errors])))


def learned_late(benchmark: Benchmark) -> tuple[str, list[str], Rows]:
    """Text, header and rows: beside the reference where it was run."""
    there = bool(benchmark.results(REFERENCE))
    alone, alone_logs = _just_learned(benchmark, REFERENCE) if there else (0.0, 0.0)
    sign = "+" if there else ""
    rows = []
    for method in benchmark.methods:
        success, logs = _just_learned(benchmark, method)
        quarters = np.array_split(success - alone, 4)
        errors = [np.exp(part.mean()) for part in np.array_split(logs - alone_logs, 4)]
        rows.append(
            [
                method,
                *(f"{part.mean():{sign}z.2f}" for part in quarters),
                " ".join(fixed(e) if there else significant(e) for e in errors),
                grown(benchmark.matrices(method, "prediction_error")),
                *_costs_of_a_task(benchmark.results(method)),
            ]
        )
    header = ["", *QUARTERS, "error of each", GROWN, "bytes a task", "time, last ÷ first"]
    text = LEARNED_LATE.format(less=LESS if there else "", multiple=MULTIPLE if there else "")
    return text, header, rows


def _just_learned(benchmark: Benchmark, method: str) -> tuple[Array, Array]:
    """Right after each task's own training success and log of the error, [N], means over seeds."""
    success, errors = (
        np.stack([just_trained(matrix) for matrix in benchmark.matrices(method, quantity)])
        for quantity in ("success", "prediction_error")
    )
    return success.mean(0), np.log(errors).mean(0)


def _costs_of_a_task(results: Sequence[Result]) -> list[str]:
    added = [(r.memory_bytes[-1] - r.memory_bytes[0]) / (len(r.memory_bytes) - 1) for r in results]
    quarters = [np.array_split(r.training_seconds, 4) for r in results]
    return [size(mean(added)), fixed(mean([q[-1].mean() / q[0].mean() for q in quarters]))]


def _learned(matrices: Array) -> Array:
    """[S, N]: right after each task's own training."""
    return np.stack([just_trained(matrix) for matrix in matrices])


def used(records: Sequence[Mapping[str, Any]]) -> tuple[str, list[str], Rows] | None:
    """The same of plasticity; None where no run has logged it."""
    rows = []
    logged = [record for record in records if _logged(record)]
    for of in dict.fromkeys((cell_of(r).method, cell_of(r).sequence) for r in logged):
        mine = [r["plasticity"] for r in logged if (cell_of(r).method, cell_of(r).sequence) == of]
        for network in ("network", "hypernetwork"):
            measures = [f"{network}_dormant", f"{network}_effective_rank"]
            runs = [run for run in mine if measures[0] in run]
            if not runs:
                continue
            cells = []
            for name in measures:
                values = np.array([run[name] for run in runs], float).mean(0)
                cells.append(" ".join(significant(values[i]) for i in _three(len(values))))
            rows.append([*of, network, str(len(runs)), *cells])
    header = ["", "", "of the", "seeds", "dormant units", "effective rank"]
    return (USED, header, rows) if rows else None


def _logged(record: Mapping[str, Any]) -> bool:
    """Whether it was logged: runs of earlier commits have not."""
    return bool(record.get("plasticity"))


def _three(count: int) -> list[int]:
    return [0, count // 2, count - 1]


def variants(base: str, benchmarks: Mapping[str, Benchmark]) -> tuple[str, list[str], Rows] | None:
    """The sequence beside those that are it with other settings; None where none has runs."""
    names = variants_of(base, benchmarks)
    if not names:
        return None
    methods = {method for name in names for method in benchmarks[name].methods}
    rows = []
    for method in [m for m in METHODS if m in methods]:
        for name in (base, *names):
            if name in benchmarks and method in benchmarks[name].methods:
                rows.append([method, name, *_outcome(benchmarks[name], method)])
    words = {name: set(SEQUENCES[name].words) - set(SEQUENCES[base].words) for name in names}
    alike = set.intersection(*words.values()) if len(names) > 1 else set()
    said = {"all of them": _in_code(alike)}
    said |= {f"`{n}`": _in_code(words[n] - alike) or SEQUENCES[n].said for n in names}
    differ = "; ".join(f"{name}: {what}" for name, what in said.items() if what)
    header = ["", "", "seeds", "least success of a task", "mean", "forgetting"]
    header += ["error", GROWN, "kept"]
    return VARIANTS.format(differ=differ), header, rows


def _in_code(words: set[str]) -> str:
    return f"`{' '.join(sorted(words))}`" if words else ""


def _outcome(benchmark: Benchmark, method: str) -> list[str]:
    success = benchmark.matrices(method, "success")
    errors = benchmark.matrices(method, "prediction_error")
    by_task = success[:, -1].mean(0)
    return [
        str(len(success)),
        fixed(by_task.min()),
        fixed(by_task.mean()),
        spread([forgetting(m) for m in success]),
        significant(geometric_mean(errors[:, -1])),
        grown(errors),
        size(mean([r.memory_bytes[-1] for r in benchmark.results(method)])),
    ]

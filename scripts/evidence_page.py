"""docs/results/evidence.md and its figures, from what is kept of the cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from evidence_capacity import by_label, capacity, write_table
from evidence_figures import LOOKS, in_order, over_tasks_seen, overview
from evidence_grid import FIRST, METHODS, SEQUENCES, variants_of
from evidence_long import learned_late, used, variants
from evidence_records import cell_of, matrix

from hypercrl.base.files import write_atomically
from hypercrl.metrics import (
    Array,
    average_performance,
    forgetting,
    interquartile_mean,
    interquartile_mean_interval,
    probability_of_improvement,
    probability_of_improvement_interval,
    zero_shot_forward_transfer,
)
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.comparison import SEEDS_FOR_INTERVAL
from hypercrl.report.formats import (
    UNDEFINED,
    count,
    duration,
    fixed,
    mean,
    significant,
    size,
    spread,
)
from hypercrl.report.runs import Result, Run
from hypercrl.report.style import to_png
from hypercrl.report.trade_offs import trade_offs

DOCS = Path(__file__).resolve().parents[1] / "docs"
COMPARED = 3
"""Methods from which on a figure of their costs says more than the table."""
LONG = 10
"""Tasks beyond which success is drawn over tasks seen, and not listed task by task."""
MANY = "push100"
"""Which docs/results/many_tasks.md is about."""
AGAINST = "hnet"
AHEAD_ON = ("door", "push20")
"""Where it is to be ahead of the original's coreset."""
FORGOTTEN = {"push100": 0.05}
"""Where it may forget more than 0.03."""

HEAD = """# The evidence

Who remembers, at what cost? One agent learns the tasks of a sequence one after another and is then
asked to do all of them. In a sequence all methods have the same environment steps, planner and
updates, and differ in what they keep. [Which method to take](../method_choice.md) follows from it;
what becomes of [a hundred tasks](many_tasks.md) has a page of its own.
"""
READ = """## How to read it

Success is that of ten episodes a task after the last task, mean over seeds; IQM its interquartile
mean over seeds × tasks, with a 95 % bootstrap interval stratified by task. P(hnet >) is how likely
a run of hnet is to beat one of the method on the same task (a tie counts half), with the same
bootstrap; both as in rliable (Agarwal et al. 2021). The normalised return is 0 for the untrained
agent and 1 for `single` on that task; [metrics](../metrics.md) has the others. Not learned are
tasks of all runs with success below one half right after their own training, before anything could
be forgotten; on doors [this is chance](hard_tasks.md#doors-that-are-not-learned). Bytes are what
method and replay keep after the last task; a run's time is that beside others on one GPU, or on a
processor where the settings say `device=cpu` (two cores, busy with ten times as many programs).

Made by `python scripts/evidence.py table` from [one line a run](evidence); the grid and its
settings are [scripts/evidence_grid.py](../../scripts/evidence_grid.py), and
`scripts/reproduce.sh evidence` makes more of it.
"""
KEEPS = {
    "hnet": "a hypernetwork that writes a network a task; no data",
    "multitask": "all transitions of all tasks",
    "single": "a network a task, each learned alone: the reference",
    "coreset": "as few transitions a task as the original's",
    "coreset_bytes": "transitions, as many bytes as hnet's parameters",
    "finetune": "one network, nothing else",
    "lora": "the first task's network, and a change of low rank a task; no data",
    "hnet_replay": "hnet, and transitions",
    "chunked_hnet": "a smaller hypernetwork that writes in chunks; no data",
    "packnet": "one network, its weights shared out among tasks; no data",
    "ewc": "one network, and which weights mattered; no data",
    "derpp": "transitions and what was predicted of them",
    "reservoir": "transitions, drawn evenly over time",
    "ftl": "sums over all transitions; a linear model",
}
LEARNED = 0.5
"""Success right after its own training from which on a task counts as learned."""
NEAR = 0.03
"""Of the best: as good as it."""


def write_page(records: Mapping[str, Mapping[str, Any]], docs: Path = DOCS) -> Path:
    """Write the page and its figures.

    Args:
        records: what is kept, by the names of the cells.
        docs: folder of the documents.
    """
    by_sequence = {
        name: [r for r in records.values() if cell_of(r).sequence == name] for name in SEQUENCES
    }
    benchmarks = {name: benchmark_of(name, mine) for name, mine in by_sequence.items() if mine}
    own = {name: each for name, each in benchmarks.items() if not SEQUENCES[name].of}
    whole = {name: with_variants(name, benchmarks) for name in own}
    parts = [HEAD, _in_short(own, whole, docs / "images"), _targets(whole)]
    for name in own:
        parts.append(_section(name, benchmarks, whole[name], by_sequence, docs / "images"))
    if MANY in own:
        write_table(docs / "results" / "many_tasks.md", by_label(MANY, by_sequence))
    parts += [READ, _cells_done(records)]
    page = docs / "results" / "evidence.md"
    write_atomically(page, ("\n".join(parts).rstrip() + "\n").encode())
    return page


def with_variants(name: str, benchmarks: Mapping[str, Benchmark]) -> Benchmark:
    """A long sequence, and beside its methods those of its variants that have seeds enough."""
    base = benchmarks[name]
    if len(base.tasks) <= LONG:
        return base
    more = [
        replace(run, method=SEQUENCES[other].label(method))
        for other in variants_of(name, benchmarks)
        for method, runs in benchmarks[other].methods.items()
        if len(runs) >= SEEDS_FOR_INTERVAL
        for run in runs
    ]
    order = in_order([run.method for run in (*base.runs, *more)])
    ordered = sorted((*base.runs, *more), key=lambda run: (order.index(run.method), run.seed))
    return replace(base, runs=tuple(ordered))


def _in_short(
    own: Mapping[str, Benchmark], benchmarks: Mapping[str, Benchmark], images: Path
) -> str:
    """The answer first: how far each is behind the best, and what it keeps for that."""
    methods = in_order(m for b in benchmarks.values() for m in b.methods)
    success = {
        name: {m: benchmark.matrices(m, "success")[:, -1] for m in benchmark.methods}
        for name, benchmark in benchmarks.items()
    }
    best = {name: max(final.mean() for final in of.values()) for name, of in success.items()}
    compared = {name: of for name, of in success.items() if set(FIRST) <= set(of)}
    behind = {
        m: max(best[name] - of[m].mean() for name, of in compared.items())
        for m in methods
        if compared and all(m in of for of in compared.values())
    }
    longest = max(own.values(), key=lambda b: (len(b.methods) > 3, len(b.tasks)))

    def cell(name: str, method: str) -> str:
        if method not in success[name]:
            return ""
        final = success[name][method]
        near = final.mean() >= best[name] - NEAR - 1e-9
        text = f"**{fixed(final.mean())}**" if near else fixed(final.mean())
        return text if len(final) >= SEEDS_FOR_INTERVAL else f"({text})"

    def kept(method: str) -> str:
        sizes = [r.memory_bytes[-1] for r in longest.results(method)]
        return size(mean(sizes)) if sizes else ""

    several = {name: b for name, b in benchmarks.items() if len(b.methods) > 2}
    write_atomically(images / "evidence_overview.png", to_png(overview(several)))
    keeps = {m: KEEPS.get(m, "the same with other settings") for m in methods}
    rows = [[m, keeps[m], kept(m), *(cell(name, m) for name in benchmarks)] for m in methods]
    header = ["", "keeps", f"after {len(longest.tasks)} tasks"]
    header += [f"{name}, {_tasks(len(b.tasks))}" for name, b in benchmarks.items()]
    ranks = ", ".join(f"{m} {fixed(gap)}" for m, gap in sorted(behind.items(), key=_second))
    lines = [
        "## In short\n",
        f"The most that a method's success is below the best method's, over "
        f"{', '.join(compared)}: **{ranks}**.\n",
        "![success after the last task, by sequence and method](../images/evidence_overview.png)\n",
        f"Hollow, and in brackets: fewer than {SEEDS_FOR_INTERVAL} seeds. Mean success after the "
        f"last task, bold within {NEAR} of the best:\n",
        table(header, rows),
    ]
    return "\n".join(lines)


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number} tasks"


def _second(pair: tuple[str, float]) -> float:
    return pair[1]


def benchmark_of(name: str, records: Sequence[Mapping[str, Any]]) -> Benchmark:
    """The runs of one sequence, methods in the grid's order."""
    ordered = sorted(records, key=lambda r: (METHODS.index(cell_of(r).method), cell_of(r).seed))
    return Benchmark(name, str(records[0]["settings"]["preset"]), tuple(map(_run, ordered)))


def _run(record: Mapping[str, Any]) -> Run:
    cell = cell_of(record)
    result = Result(
        tasks=tuple(f"task {j}" for j in range(1, len(record["success"]))),
        scores=matrix(record, "scores"),
        success=matrix(record, "success"),
        prediction_error=matrix(record, "prediction_error"),
        memory_bytes=tuple(record["memory_bytes"]),
        training_seconds=tuple(record["training_seconds"]),
        memory_state_bytes=0,
        memory_step_milliseconds=math.nan,
        task_inference={},
        **{key: record[key] for key in ("prediction_horizon", "seconds", "seconds_by", "plans")},
        **{key: record[key] for key in ("updates", "extra_updates", "env_steps", "parameters")},
        **{key: record[key] or math.nan for key in ("plan_milliseconds", "update_milliseconds")},
        **{key: record[key] for key in ("git", "machine")},
    )
    preset = str(record["settings"]["preset"])
    place = Path(cell.name)
    return Run(place, cell.method, cell.sequence, preset, cell.seed, {}, "", result, None, {})


def _cells_done(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Seeds that have ended, of those that are to."""
    rows, all_cells = [], 0
    for name, column in SEQUENCES.items():
        row = []
        for method in METHODS:
            ended = sum(f"{name}/{method}/{seed}" in records for seed in range(column.seeds))
            row.append(f"{ended}/{column.seeds}" if method in column.methods else "")
        all_cells += len(column.methods) * column.seeds
        rows.append([name, *row])
    said = f"{len(records)} of {all_cells} cells, seeds by sequence and method.\n\n"
    return "## What is done\n\n" + said + table(["", *METHODS], rows)


def _targets(benchmarks: Mapping[str, Benchmark]) -> str:
    """What hnet was to reach, where there are runs of it; a cell is bold where it did not."""
    rows = []
    ours_in = [
        (name, benchmark, method)
        for name, benchmark in benchmarks.items()
        for method in benchmark.methods
        if method.split(",")[0] == AGAINST
    ]
    for name, benchmark, method in ours_in:
        success = {m: benchmark.matrices(m, "success") for m in benchmark.methods}
        ours = success[method]
        behind = {m: float(x[:, -1].mean() - ours[:, -1].mean()) for m, x in success.items()}
        normalised = math.nan
        if benchmark.normalise is not None:
            scores = benchmark.normalise(benchmark.matrices(method, "scores"))
            normalised = float(scores[:, -1].mean())
        rows.append(
            [
                ", ".join([name, *method.split(", ")[1:]]),
                str(len(ours)),
                _held(float(ours[:, -1].mean(0).min()), 0.95),
                _held(normalised, 0.95),
                _held(-mean([forgetting(m) for m in ours]), -FORGOTTEN.get(name, 0.03), sign=-1),
                _held(-behind.get("multitask", math.nan), -0.03),
                _held(-behind.get("coreset", math.nan), 0.2 if name in AHEAD_ON else 0.0),
                _held(-behind.get("coreset_bytes", math.nan), 0.0),
            ]
        )
    header = ["hnet on", "seeds", "least success of a task ≥ 0.95", "normalised return ≥ 0.95"]
    header += ["forgetting ≤ 0.03, push100 0.05", "success − multitask's ≥ −0.03"]
    header += [f"− coreset's ≥ 0.2 ({', '.join(AHEAD_ON)}), 0", "− coreset_bytes' ≥ 0"]
    return "## Targets\n\nBold: missed.\n\n" + table(header, rows) if rows else ""


def _held(value: float, least: float, sign: int = 1) -> str:
    """The number, bold where it is too small; then with enough decimals to be seen to be."""
    text = fixed(sign * value)
    if math.isnan(value) or value >= least - 1e-9:
        return text
    return f"**{text if sign * float(text) < least else fixed(sign * value, 4)}**"


def _hardware(machine: str) -> str:
    """The GPU alone, or the processor with its threads; one was written as "1 threads"."""
    return machine.partition(";")[0].replace(", 1 threads", ", 1 thread")


def _section(
    name: str,
    benchmarks: Mapping[str, Benchmark],
    whole: Benchmark,
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    images: Path,
) -> str:
    benchmark, mine = benchmarks[name], records[name]
    others = variants_of(name, benchmarks)
    origin = sorted({f"{r['git']} on {_hardware(r['machine'])}" for r in mine})
    words = " ".join(SEQUENCES[name].words)
    seen = {(r["env_steps"], r["updates"]) for r in mine}
    budget = "; ".join(f"{count(steps)} steps and {count(ups)} updates" for steps, ups in seen)
    alike = "" if len(seen) == 1 else " **These differ: no comparison.**"
    parts = [
        f"## {name}\n",
        f"`env={SEQUENCES[name].env} {words}`: {budget} a run.{alike} "
        f"Commit {', '.join(origin)}.\n",
        results_table(benchmark),
        _pictures(name, whole, by_label(name, records), images),
    ]
    long = len(benchmark.tasks) > LONG
    of_variants = [r for other in others for r in records[other]]
    for found in (
        learned_late(benchmark) if long else None,
        used([*mine, *of_variants]) if long else None,
        variants(name, benchmarks),
    ):
        if found is not None:
            text, header, rows = found
            parts += [text.strip() + "\n", table(header, rows)]
    return "\n".join(parts)


def results_table(benchmark: Benchmark) -> str:
    """A row a method."""
    tasks = len(benchmark.tasks)
    reference = benchmark.matrices(AGAINST, "success")
    rows = []
    for method in benchmark.methods:
        success, results = benchmark.matrices(method, "success"), benchmark.results(method)
        final, errors = success[:, -1], benchmark.matrices(method, "prediction_error")
        by_task = final.mean(0)
        rows.append(
            [
                method,
                str(len(results)),
                " ".join(fixed(s) for s in by_task)
                if tasks <= LONG
                else f"≥ {fixed(by_task.min())}",
                _interval(final),
                _normalised(benchmark, method),
                spread([forgetting(m) for m in success]),
                _not_learned(success),
                spread([zero_shot_forward_transfer(m) for m in success]),
                significant(mean([average_performance(e) for e in errors])),
                size(mean([r.memory_bytes[-1] for r in results])),
                duration(mean([r.seconds for r in results])),
                UNDEFINED if method == AGAINST else _against(reference, final),
            ]
        )
    header = ["method", "seeds", "success, task by task", "IQM [95 %]", "normalised return"]
    header += ["forgetting", "not learned", "transfer", benchmark.error_name, "kept", "a run"]
    header += [f"P({AGAINST} >)"]
    return table(header, rows)


def _not_learned(success: Array) -> str:
    """How many tasks of all runs, [seeds, N + 1, N], were not solved in half of the episodes right
    after their own training."""
    own = success[:, 1:].diagonal(axis1=1, axis2=2)
    return f"{int((own < LEARNED).sum())} of {own.size}"


def _interval(final: Array) -> str:
    middle = fixed(interquartile_mean(final))
    if len(final) < SEEDS_FOR_INTERVAL:
        return middle
    low, high = interquartile_mean_interval(final, np.random.default_rng(0))
    return f"{middle} [{fixed(low)}, {fixed(high)}]"


def _normalised(benchmark: Benchmark, method: str) -> str:
    if benchmark.normalise is None:
        return UNDEFINED
    matrices = benchmark.normalise(benchmark.matrices(method, "scores"))
    return spread([average_performance(m) for m in matrices])


def _against(reference: Array, final: Array) -> str:
    if not len(reference):
        return UNDEFINED
    ours = reference[:, -1]
    middle = fixed(probability_of_improvement(ours, final))
    if min(len(ours), len(final)) < SEEDS_FOR_INTERVAL:
        return middle
    low, high = probability_of_improvement_interval(ours, final, np.random.default_rng(0))
    return f"{middle} [{fixed(low)}, {fixed(high)}]"


def _pictures(
    name: str,
    benchmark: Benchmark,
    labelled: Mapping[str, Sequence[Mapping[str, Any]]],
    images: Path,
) -> str:
    figures = {}
    if len(benchmark.methods) >= COMPARED:
        figures["success and its costs"] = ("costs", trade_offs(benchmark, LOOKS))
    if len(benchmark.tasks) > LONG:
        figures["success against tasks seen"] = ("seen", over_tasks_seen(benchmark))
    if name == MANY:
        figures["what width, hold and targets do"] = ("settings", capacity(labelled))
    lines = []
    for title, (kind, figure) in figures.items():
        file = images / f"evidence_{name}_{kind}.png"
        write_atomically(file, to_png(figure))
        lines.append(f"![{name}: {title}](../images/{file.name})")
    return "\n".join(lines) + "\n" if lines else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

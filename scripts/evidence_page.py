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
from evidence_long import geometric_mean, learned_late, used, variants
from evidence_records import cell_of, matrix

from hypercrl.base.files import write_atomically
from hypercrl.metrics import (
    Array,
    average_performance,
    forgetting,
    interquartile_mean,
    interquartile_mean_interval,
    mean_interval,
    mean_over_strata_interval,
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
from hypercrl.report.trade_offs import BYTES, trade_offs

DOCS = Path(__file__).resolve().parents[1] / "docs"
COMPARED = 3
"""Methods from which on a figure of their bytes says more than the table."""
LONG = 10
"""Tasks beyond which success is drawn over tasks seen, and not listed task by task."""
MANY = "push100"
"""Which docs/results/many_tasks.md is about."""
AGAINST = "hnet"
ALL_DATA, EQUAL_BYTES = "multitask", "coreset_bytes"
AHEAD_ON = ("door", "push20")
"""Where it is to be ahead of the original's coreset."""
FORGOTTEN = {"push100": 0.05}
"""Where it may forget more than 0.03."""

HEAD = """# The evidence

Who remembers, at what cost? One agent learns the tasks of a sequence one after another and is then
asked to do all of them. In a sequence all methods have the same environment steps, planner and
number of updates. What an update takes differs: those that rehearse see old transitions beside the
new ones, `multitask` and `coreset` a batch of every old task. [Which method to
take](../method_choice.md) follows from it; [a hundred tasks](many_tasks.md) have a page of their
own.
"""
READ = """## How to read it

- **Success** is that of ten episodes a task after the last task (of `push100`'s other settings
  five), as a mean over seeds. The mean over tasks has a 95 % bootstrap interval over whole runs:
  the tasks of one run share a network, and do not fail apart. **IQM** is the interquartile mean
  over seeds × tasks with an interval stratified by task, as in rliable (Agarwal et al. 2021). It
  leaves out the lowest quarter, so that 1.00 [1.00, 1.00] may hide a task that is never solved:
  look at the mean too.
- **P(hnet >)** is how likely a run of hnet is to beat one of the method on the same task (a tie
  counts half), with rliable's bootstrap. An interval that holds 0.5 tells the two not apart.
- **Normalised return** is 0 for the untrained agent and 1 for `single` right after that task;
  **forgetting** is success right after a task's own training less that at the end, of which
  `single`, which cannot forget, shows how much is the noise of ten episodes; **transfer** is
  success on a task before its own training less that of the untrained agent
  ([metrics](../metrics.md)); ± is a standard deviation over seeds.
- **Not learned** are tasks of all runs with success below one half right after their own training,
  before anything could be forgotten; on doors [this is
  chance](hard_tasks.md#doors-that-are-not-learned).
- **Error** is the open-loop prediction error at the end, as a geometric mean over seeds and tasks:
  one prediction that diverged is a thousand times the others and would be all that a plain mean
  shows.
- **Kept** is what method and replay hold after the last task, of a memory (`reservoir`, `derpp`)
  what is allocated, full or not. Of hnet's most is the hypernetwork (8.7 MiB on pushes), however
  few the tasks.
- There are no times beside the methods: runs had other neighbours, and some are of other commits.

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
"""Success right after its own training from which on a task counts as learned; and success of the
best from which on a sequence has any who do well."""
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
    parts = [HEAD, _in_short(own, whole, docs / "images")]
    for name in own:
        parts.append(_section(name, benchmarks, whole[name], by_sequence, docs / "images"))
    if MANY in own:
        write_table(docs / "results" / "many_tasks.md", by_label(MANY, by_sequence))
    parts += [READ, _targets(whole), _cells_done(records)]
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
    """The answer first: success by method and sequence, how far each is behind, what it keeps.

    Shown are sequences of more than two methods.
    """
    shown = {name: b for name, b in benchmarks.items() if len(b.methods) > 2}
    apart = [name for name in benchmarks if name not in shown]
    if not shown:
        return ""
    methods = in_order(m for b in shown.values() for m in b.methods)
    final = {
        name: {m: b.matrices(m, "success")[:, -1] for m in b.methods} for name, b in shown.items()
    }
    best = {name: max(map(np.mean, _enough(of)), default=math.nan) for name, of in final.items()}
    longest = max(
        (own[name] for name in shown), key=lambda b: (set(FIRST) <= set(b.methods), len(b.tasks))
    )

    def cell(name: str, method: str) -> str:
        if method not in final[name]:
            return ""
        success = final[name][method]
        near = success.mean() >= max(best[name] - NEAR - 1e-9, LEARNED)
        text = f"**{fixed(success.mean())}**" if near else fixed(success.mean())
        return text if len(success) >= SEEDS_FOR_INTERVAL else f"({text})"

    def behind(method: str) -> str:
        mine = [(name, of[method]) for name, of in final.items() if method in of]
        gaps = [(best[name] - x.mean(), name) for name, x in mine if len(x) >= SEEDS_FOR_INTERVAL]
        gap, name = max(gaps, default=(math.nan, ""))
        return f"{fixed(gap)} on {name}" if gaps else UNDEFINED

    compared = [
        name
        for name, of in final.items()
        if len(own[name].tasks) <= LONG and set(METHODS) <= set(of) and len(_enough(of)) == len(of)
    ]

    def over_all(method: str) -> str:
        if any(method not in final[name] for name in compared):
            return ""
        means = [final[name][method].mean(1) for name in compared]
        low, high = mean_over_strata_interval(means, np.random.default_rng(0))
        return f"{fixed(float(np.mean([x.mean() for x in means])))} [{fixed(low)}, {fixed(high)}]"

    def kept(method: str) -> str:
        sizes = [r.memory_bytes[-1] for r in longest.results(method)]
        return size(mean(sizes)) if sizes else ""

    write_atomically(images / "evidence_overview.png", to_png(overview(shown)))
    rows = [[m, *(cell(n, m) for n in shown), behind(m), kept(m)] for m in methods]
    header = ["", *(f"{name}, {_tasks(len(b.tasks))}" for name, b in shown.items())]
    if compared:
        header.insert(1, f"mean of {len(compared)} [95 %]")
        for row in rows:
            row.insert(1, over_all(row[0]))
    header += ["furthest behind the best", f"keeps after {len(longest.tasks)} tasks"]
    keeps = [[m, KEEPS[m]] for m in methods if m in KEEPS]
    lines = [
        "## In short\n",
        f"Mean success after the last task. Bold: within {NEAR} of the best, where the best is at "
        f"least {LEARNED}. In brackets, and hollow in the figure: fewer than {SEEDS_FOR_INTERVAL} "
        "seeds, which count neither as the best nor as behind it.\n",
        table(header, rows),
        "![success after the last task, by sequence and method](../images/evidence_overview.png)\n",
        table(["", "what it keeps"], keeps),
    ]
    if compared:
        lines[1] += (
            f"The mean is that of the sequences of up to {LONG} tasks, which all methods have run: "
            f"{', '.join(compared)}; its interval is drawn over the seeds of each.\n"
        )
    if apart:
        lines.append(f"Of fewer methods, and below only: {', '.join(apart)}.\n")
    return "\n".join(lines)


def _enough(of: Mapping[str, Array]) -> list[Array]:
    """Results [S, N] of the methods that have seeds enough."""
    return [final for final in of.values() if len(final) >= SEEDS_FOR_INTERVAL]


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number} tasks"


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
    said = "What hnet was to reach, on every sequence that it has runs of; bold where it did not."
    return f"## Targets\n\n{said}\n\n" + table(header, rows) if rows else ""


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
    seen = sorted({(r["env_steps"], r["updates"]) for r in mine})
    budget = "; ".join(f"{count(steps)} steps and {count(ups)} updates" for steps, ups in seen)
    alike = "" if len(seen) == 1 else " **These differ: no comparison.**"
    times = [r["seconds"] for r in mine]
    seconds = min(times), max(times)
    parts = [
        f"## {name}\n",
        f"`env={SEQUENCES[name].env} {words}`: {budget} a run{_more_updates(benchmark)}.{alike} "
        f"A run took {' to '.join(dict.fromkeys(map(duration, seconds)))} beside others. "
        f"Commit {', '.join(origin)}.\n",
        results_table(benchmark),
        _same(benchmark),
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
    return "\n".join(filter(None, parts))


def _more_updates(benchmark: Benchmark) -> str:
    """Which methods take updates of their own beside those that every method is given."""
    extra = {
        m: max((r.extra_updates for r in benchmark.results(m)), default=0)
        for m in benchmark.methods
    }
    return "".join(f", and {count(more)} more of {m}" for m, more in extra.items() if more)


def _same(benchmark: Benchmark) -> str:
    """That ALL_DATA and EQUAL_BYTES are one and the same, where each seed of both came out so."""
    runs = {
        m: {run.seed: run.result for run in benchmark.methods.get(m, ()) if run.result is not None}
        for m in (ALL_DATA, EQUAL_BYTES)
    }
    both = runs[ALL_DATA].keys() & runs[EQUAL_BYTES].keys()
    pairs = [(runs[ALL_DATA][seed], runs[EQUAL_BYTES][seed]) for seed in both]
    alike = all(
        np.array_equal(getattr(a, quantity), getattr(b, quantity), equal_nan=True)
        for a, b in pairs
        for quantity in ("success", "scores", "prediction_error")
    )
    if not pairs or not alike:
        return ""
    return (
        f"{EQUAL_BYTES} is {ALL_DATA} here, run for run: all transitions fit into hnet's bytes.\n"
    )


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
                _over_runs(final),
                _interval(final),
                _normalised(benchmark, method),
                spread([forgetting(m) for m in success]),
                _not_learned(success),
                spread([zero_shot_forward_transfer(m) for m in success]),
                significant(geometric_mean(errors[:, -1])),
                size(mean([r.memory_bytes[-1] for r in results])),
                UNDEFINED if method == AGAINST else _against(reference, final),
            ]
        )
    header = ["method", "seeds", "success, task by task", "mean [95 %]", "IQM [95 %]"]
    header += ["normalised return", "forgetting", "not learned", "transfer"]
    header += [benchmark.error_name, "kept"]
    header += [f"P({AGAINST} >)"]
    return table(header, rows)


def _not_learned(success: Array) -> str:
    """How many tasks of all runs, [seeds, N + 1, N], were not solved in half of the episodes right
    after their own training."""
    own = success[:, 1:].diagonal(axis1=1, axis2=2)
    return f"{int((own < LEARNED).sum())} of {own.size}"


def _over_runs(final: Array) -> str:
    """The mean of [S, N], and its interval over runs."""
    middle = fixed(float(final.mean()))
    if len(final) < SEEDS_FOR_INTERVAL:
        return middle
    low, high = mean_interval(final.mean(1), np.random.default_rng(0))
    return f"{middle} [{fixed(low)}, {fixed(high)}]"


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
        figures["success and bytes"] = ("costs", trade_offs(benchmark, LOOKS, [BYTES]))
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

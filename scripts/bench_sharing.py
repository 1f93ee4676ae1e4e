"""Runs that share GPUs: do they come to the same, what does it cost, does one that dies end others?

Parts, each a command of its own that ends within ten minutes, checks before it times, prints as it
goes and writes what it has into FOLDER/PART.json (FOLDER: --out, else $OUT, else here):

    python scripts/bench_sharing.py check                   # MPS serves, results are equal
    python scripts/bench_sharing.py steps                   # turns, MPS, streams, one batch
    python scripts/bench_sharing.py seeds --seeds 1         # the lone run
    python scripts/bench_sharing.py seeds --seeds 16 --lone 138
    python scripts/bench_sharing.py kill                    # a run is killed in mid-kernel
    python scripts/bench_sharing.py kill --fault            # a neighbour faults on the GPU
    python scripts/bench_sharing.py gpus --gpus 1,2 --cores 16   # a grid on one GPU, then on two
    python scripts/bench_sharing.py gpus --gpus 2 --ray          # by itself, then through Ray

With --device cpu they are tried without a GPU, on settings of a test; of `steps` those are given.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench_machine import processes, watched
from bench_sharing_grid import Bench, Record, different, last_record, success
from bench_sharing_steps import step_process, steps
from evidence_grid import EvidenceCell
from evidence_records import packed

from hypercrl.base.cores import cores
from hypercrl.base.strict_json import to_json
from hypercrl.bench.gpus import visible_gpus
from hypercrl.bench.mps import CONTROL, OUTSIDE, PIPES, served

TINY = ("preset=smoke", "dynamics.hidden=[16]", "protocol.checkpoint_every=10")
PARTS = ("check", "steps", "seeds", "kill", "gpus")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=(*PARTS, "_steps"))
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--limit", type=float, default=560.0, help="seconds, then a grid is ended")
    parser.add_argument("--cores", type=int, help="gpus: so many for each GPU; all of the machine")
    parser.add_argument("--processes", default="2,16", help="steps: runs at a time")
    parser.add_argument("--old-tasks", type=int, default=4, help="steps: of the hypernetwork")
    parser.add_argument("--seconds", type=float, default=2.0, help="steps: each measurement")
    parser.add_argument("--compared", type=int, default=200, help="steps: of each run, untimed")
    parser.add_argument("--within", type=float, default=100.0, help="steps: none begins later")
    parser.add_argument("--seeds", type=int, default=16, help="seeds: runs; gpus: of each method")
    parser.add_argument("--lone", type=float, help="seeds: seconds of a run alone, to compare with")
    parser.add_argument("--mps", default="auto", help="seeds, gpus: as of hypercrl bench")
    parser.add_argument("--workers", type=int, help="seeds, gpus: as of hypercrl bench")
    parser.add_argument("--fault", action="store_true", help="kill: fault on the GPU instead")
    parser.add_argument("--gpus", default="1", help="gpus: how many of the host, one after another")
    parser.add_argument("--ray", action="store_true", help="gpus: through Ray too")
    parser.add_argument(
        "--evidence", action="store_true", help="gpus: cells of scripts/evidence.py, and keep them"
    )
    parser.add_argument("words", nargs="*", help="further settings of the runs, KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    if arguments.part == "_steps":
        step_process(arguments)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = Record(arguments.out / f"{arguments.part}.json", arguments.device)
    {"check": check, "steps": steps, "seeds": seeds, "kill": kill, "gpus": gpus}[arguments.part](
        arguments, record
    )


# check


def check(arguments: argparse.Namespace, record: Record) -> None:
    """Four small runs side by side, by turns and through MPS; and what this relies on."""
    for path in ("/sys/fs/cgroup/cpu.max", "/proc/loadavg"):
        with suppress(OSError):
            record.add(path, Path(path).read_text().strip())
    record.add("cores", f"{cores()} of {os.cpu_count()}")
    if arguments.device == "cuda":
        check_service(record)
    words = ["env=push", "method=hnet", "seed=range(4)", "workers=4", "threads=1", *TINY]
    words += [f"device={arguments.device}", *arguments.words]
    grids = {wish: Bench([*words, f"mps={wish}"]).run() for wish in ("false", "auto")}
    for wish, grid in grids.items():
        record.add(f"four tiny runs, mps={wish}", f"{grid.seconds:.1f} s", seconds=grid.seconds)
    if arguments.device == "cuda":
        record.check("auto: through MPS", grids["auto"].served)
    results = [grid.results() for grid in grids.values()]
    record.check("all four ended", [len(r) for r in results] == [4, 4])
    unequal = different(*results)
    record.check("equal results", not unequal, ", ".join(unequal))
    record.check("no daemon is left", not processes(CONTROL))


def check_service(record: Record) -> None:
    """The driver's own answers, with a daemon and without."""
    outside = {**os.environ, **OUTSIDE}
    found = visible_gpus(outside)
    record.add("GPUs", ", ".join(f"{g.name} {g.free / 2**30:.0f} GiB free" for g in found))
    none = subprocess.run([CONTROL], input=b"get_server_list\n", capture_output=True, env=outside)
    said = (none.stdout + none.stderr).decode().strip()
    record.check("without a daemon it answers by its code", none.returncode != 0, said)
    begun = time.monotonic()
    with served([gpu.name for gpu in found], 4 * len(found), "true", print) as service:
        record.add("a daemon begins in", f"{time.monotonic() - begun:.1f} s")
        names = ",".join(gpu.name for gpu in found)
        inside = {**os.environ, **service.environment, "CUDA_VISIBLE_DEVICES": names}
        asked = b"get_server_list\n"
        servers = subprocess.run([CONTROL], input=asked, capture_output=True, env=inside).stdout
        record.check("it has a server", servers.strip().isdigit(), repr(servers))
        free = {gpu.name: gpu.free for gpu in visible_gpus({**inside, **OUTSIDE})}
        record.check("beside it a process can do without", set(free) == {g.name for g in found})
        begun = time.monotonic()
    record.add("it ends in", f"{time.monotonic() - begun:.1f} s")
    record.check("no daemon is left", not processes(CONTROL), str(processes(CONTROL)))


# seeds


def seeds(arguments: argparse.Namespace, record: Record) -> None:
    """A grid over seeds of the paper's protocol, whole; against as many lone runs."""
    preset = ("preset=paper",) if arguments.device == "cuda" else TINY
    words = ["env=push", "method=hnet", f"seed=range({arguments.seeds})", *preset]
    words += [f"device={arguments.device}", f"mps={arguments.mps}", *arguments.words]
    if arguments.workers:
        words.append(f"workers={arguments.workers}")
    bench = Bench(words, arguments.limit)
    with watched(1) as use:
        bench.run()
    results = bench.results()
    record.check("all ended", len(results) == arguments.seeds, f"{len(results)}")
    name = f"{arguments.seeds} seeds, {'MPS' if bench.served else 'by turns'}"
    values: dict[str, Any] = {"seconds": bench.seconds, "use": vars(use), "served": bench.served}
    if bench.interrupted or not results:
        values["progress"] = [last_record(folder) for folder in bench.folders()]
        record.add(name, f"ended after {bench.seconds:.0f} s: {values['progress']}", **values)
        return
    values |= {**bench.spans(), "success": success(results)}
    values["seconds_by"] = {n: result["seconds_by"] for n, result in results.items()}
    said = f"{bench.seconds:.0f} s ({values['cells_seconds']:.0f} s of runs), {use}"
    if arguments.lone:
        values["of_lone"] = bench.seconds / (arguments.seeds * arguments.lone)
        said += f"; {values['of_lone']:.3f} of {arguments.seeds} lone runs"
    record.add(name, said, **values)
    record.add("success, task by task", str(values["success"]))
    parts: dict[str, float] = {}
    for result in results.values():
        for part, seconds in result["seconds_by"].items():
            parts[part] = parts.get(part, 0.0) + seconds / len(results)
    record.add("seconds by part, mean", ", ".join(f"{k} {v:.0f}" for k, v in parts.items()))


# kill


def kill(arguments: argparse.Namespace, record: Record) -> None:
    """A grid in whose midst one run is killed, or faults, beside the same grid left in peace."""
    preset = ("preset=quick", "protocol.num_tasks=1") if arguments.device == "cuda" else TINY
    words = ["env=push", "method=hnet", "seed=range(6)", "workers=6", "threads=1", *preset]
    words += [f"device={arguments.device}", *arguments.words]
    straight = Bench(words).run().results()
    hurt = Bench(words)
    hurt.run(fault if arguments.fault else kill_one)
    record.check("through MPS", hurt.served)
    record.check("some run was hurt", bool(hurt.tried_again))
    record.add("tried again", ", ".join(hurt.tried_again), cells=hurt.tried_again)
    record.check("all ended", len(hurt.results()) == len(straight) == 6)
    unequal = different(straight, hurt.results())
    record.check("equal results", not unequal, ", ".join(unequal))
    record.check("no daemon is left", not processes(CONTROL))


def workers_of(bench: Bench) -> Iterator[tuple[Path, int]]:
    """Runs that train, past their first checkpoint, and their processes."""
    for folder in bench.folders():
        with suppress(OSError, ValueError, IndexError):
            begun = last_record(folder)[1] > 0 and any((folder / "checkpoints").iterdir())
            if begun and not (folder / "result.json").exists():
                yield folder, int((folder / ".lock").read_text().split()[1])


def wait_for_worker(bench: Bench) -> tuple[Path, int]:
    while True:
        for found in workers_of(bench):
            time.sleep(1.0)  # into its next kernels
            return found
        time.sleep(0.1)


def kill_one(bench: Bench) -> None:
    folder, number = wait_for_worker(bench)
    print(f"      SIGKILL to {folder.name}, process {number}", flush=True)
    os.kill(number, signal.SIGKILL)


FAULT = "import torch; torch.zeros(1, device='cuda')[torch.tensor([10**9], device='cuda')].cpu()"
"""An index that CUDA finds out of bounds on the device, which ends its context."""


def fault(bench: Bench) -> None:
    """A process beside the runs, served with them, that faults."""
    folder, number = wait_for_worker(bench)
    raw = Path(f"/proc/{number}/environ").read_bytes().decode().split("\0")
    environment = dict(entry.split("=", 1) for entry in raw if "=" in entry)
    where = environment.get(PIPES, "nowhere")
    print(f"      a fault beside {folder.name}, served in {where}", flush=True)
    done = subprocess.run(
        [sys.executable, "-c", FAULT], env=environment, capture_output=True, text=True
    )
    print(f"      {done.stderr.strip().splitlines()[-1:]}", flush=True)


# gpus


def gpus(arguments: argparse.Namespace, record: Record) -> None:
    """A grid of four methods on so many GPUs of this host, one count after another.

    With --cores each count has its share of the host, so that one GPU of many is not at an
    advantage. All grids together have --limit seconds.
    """
    until = time.monotonic() + arguments.limit
    methods = "hnet,coreset_bytes,finetune,single"
    preset = ("preset=quick",) if arguments.device == "cuda" else TINY
    settings = ["env=push", *preset, "threads=1"]
    if arguments.evidence:
        words = EvidenceCell("push", "hnet", 0).words()
        settings = [word for word in words if not word.startswith(("method=", "seed="))]
    settings += [f"device={arguments.device}", *arguments.words]
    warm = Bench([f"method={methods}", "seed=0", "protocol.num_tasks=2", *settings]).run()
    record.add("each method once, Triton's cache cold", f"{warm.seconds:.0f} s")
    grid = [f"method={methods}", f"seed=range({arguments.seeds})", f"mps={arguments.mps}"]
    first: tuple[int, float, dict[str, dict[str, Any]]] | None = None
    ways = [(n, ray) for n in map(int, arguments.gpus.split(",")) for ray in (False, True)]
    for count, ray in ways if arguments.ray else ways[::2]:
        places = -(-4 * arguments.seeds // count)
        place = ray_cluster(count, places) if ray else on_gpus(count, arguments.cores)
        with place as (environment, own):
            if arguments.workers and not ray:
                own = [*own, f"workers={arguments.workers}"]
            left = max(until - time.monotonic(), 1.0)
            bench = Bench([*grid, *settings, *own], left, environment)
            with watched(count) as use:
                bench.run()
        results = bench.results()
        values = {"seconds": bench.seconds, "use": vars(use), "served": bench.served}
        values |= {"cells": len(results), "tried_again": bench.tried_again}
        values["cores"] = min(cores(), count * (arguments.cores or cores()))
        values["cells_a_minute"] = 60 * len(results) / bench.seconds
        if arguments.evidence:
            keep_evidence(bench, arguments.out / "evidence.jsonl")
        if results:
            values |= bench.spans()
            parts = f"{values['cells_seconds']:.0f} s, {values['report_seconds']:.0f} s"
            record.add("  its runs, its report", parts)
        first = first or (count, bench.seconds, results)
        values["efficiency"] = first[1] * first[0] / (bench.seconds * count)
        said = (
            f"{bench.seconds:.0f} s, {values['cells_a_minute']:.1f} cells a minute, "
            f"{values['efficiency']:.2f} of linear, {use}"
        )
        record.add(f"{count} GPUs{', Ray' if ray else ''}", said, **values)
        record.check("all ended", len(results) == 4 * arguments.seeds, f"{len(results)}")
        unequal = different(first[2], results)
        record.check("equal to the first grid's", not unequal, ", ".join(unequal[:8]))
    assert first is not None
    check_alone(first[2], settings, record)


def keep_evidence(bench: Bench, file: Path) -> None:
    """Pack what has ended, for `scripts/evidence.py take`."""
    with open(file, "a", encoding="utf-8") as lines:
        for name in bench.results():
            env, method, seed = name.split("-")
            cell = EvidenceCell(env, method, int(seed))
            lines.write(to_json(packed(cell, bench.out / "cells" / name)) + "\n")


def check_alone(
    results: dict[str, dict[str, Any]], settings: Sequence[str], record: Record
) -> None:
    """The same cells without neighbours."""
    bench = Bench(["method=hnet,finetune", "seed=0", "workers=1", *settings]).run()
    alone = bench.results()
    unequal = different({name: results.get(name, {}) for name in alone}, alone)
    record.check("equal to the same cells alone", not unequal, ", ".join(unequal))


@contextmanager
def on_gpus(count: int, each: int | None = None) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The environment in which a grid sees so many GPUs, and settings of bench for it.

    With `each`, so many cores for each of them, which this process and its children keep to.
    """
    devices = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(count)))}
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[: count * each] if each else allowed)
    try:
        yield {**os.environ, **devices}, []
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def ray_cluster(count: int, cells: int) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Ray on this host with so many GPUs, of each of which a cell takes a part.

    Ray fills one GPU before the next: where there are fewer `cells` a GPU than sixteen, a cell
    takes a larger part.
    """
    each = min(16, cells)
    words = ["--head", f"--num-gpus={count}", f"--num-cpus={each * count}", "--port=6399"]
    words.append("--include-dashboard=false")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    subprocess.run([*ray, "start", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    try:
        own = ["cluster=ray", "address=127.0.0.1:6399", "cpus=1", f"gpus={1 / each:.4f}"]
        yield environment, own
    finally:
        subprocess.run([*ray, "stop", "--force"], check=False, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()

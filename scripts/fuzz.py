"""Throw made-up files and settings at everything that reads what others wrote.

    python scripts/fuzz.py                               # every target, 1000 inputs each
    python scripts/fuzz.py words config --executions 50000
    python scripts/fuzz.py --long --jobs 16 --out docs/results/fuzz    # an hour of one core

Whatever comes in is accepted, or refused by the one message that is meant for a person (UserError).
Anything else is a fault: it is printed as the smallest example that hypothesis finds, with its
traceback, and the exit code is 1. Inputs come in rounds, each with draws of its own, in a process
of its own; what `--out` counted before is not tried again, so that a run that was ended goes on.
Needs hypothesis (extra dev).
"""

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import hypothesis
import torch
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.base.paths import configs_dir
from hypercrl.base.progress import Progress
from hypercrl.base.settings import check
from hypercrl.base.strict_json import write_json
from hypercrl.cli import COMMANDS
from hypercrl.cli import main as hypercrl
from hypercrl.config.registered import register
from hypercrl.config.schema import TrainConfig
from hypercrl.report import write_report
from hypercrl.report.runs import load_run
from hypercrl.runs.checkpoint import _DIGEST, load_checkpoint, save_checkpoint
from hypercrl.runs.records import last_record
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.training.experiment import build
from hypercrl.training.result import git_revision, machine
from hypercrl.training.trainer import Trainer

as_json = json.JSONEncoder().encode  # NaN and all


def _config() -> Any:
    register()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", ["preset=smoke", "method=finetune", "run_dir='runs/a:b'"])
    return OmegaConf.to_container(config, resolve=True)


CONFIG = _config()
_ROW, _GOOD = [0.5], [[0.1], [0.5]]
RESULT = {
    **{"schema": 1, "method": "finetune", "env": "push", "memory": "none", "preset": "smoke"},
    **{"seed": 0, "tasks": ["push 100"], "scores": _GOOD, "success": _GOOD},
    **{"prediction_error": _GOOD, "prediction_horizon": 10, "seconds": 1.5, "plans": 6},
    **{"seconds_by": {"update": 0.5}, "plan_milliseconds": 2.0, "updates": 4, "env_steps": 18},
    **{"update_milliseconds": None, "memory_bytes": [100], "training_seconds": _ROW},
    **{"parameters": 1000, "git": "unknown", "machine": "one"},
}
METRICS = [
    {"kind": "eval", "env_steps": 12, "task": 1, "on": 1, "return": 1.0, "success": 0.5},
    {"kind": "episode", "env_steps": 15, "task": 1, "return": 1.0, "success": True},
    {"kind": "update", "env_steps": 18, "task": 1, "loss": None, "milliseconds": 3},
]
TREE = {"position": {"step": 3}, "x": torch.arange(6.0), "list": [1, None, float("inf"), "é"]}
SHORT = {key: CONFIG[key] for key in ("preset", "seed")} | {
    key: {"name": CONFIG[key]["name"]} for key in ("env", "method", "memory", "planner")
}
"""Of a configuration what has to be there; it is read in a tenth of the time."""
SMALL = (
    *("preset=smoke", "device=cpu", "logger=[]", "env=gymnasium", "method=ewc", "seed=0"),
    *("env.tasks=[{task: gym, id: Pendulum-v1}]", "dynamics.hidden=[4]"),
    *("protocol.num_tasks=1", "protocol.random_steps=20", "protocol.planned_steps=5"),
    *("protocol.updates=1", "protocol.final_episodes=1", "protocol.replay_capacity=30"),
    *("planner.samples=4", "planner.elites=2", "planner.horizon=2", "planner.iterations=1"),
)
"""A run whose checkpoint is read back into a trainer."""

WORDS = ("push", "none", "cem", "null", "inf", "nan", "1e400", "-1", "${seed}", "a:b", "[", "'", "")
numbers = st.one_of(st.integers(-2, 9), st.integers(), st.floats(), st.sampled_from((-0.0, 1e30)))
tensors = st.builds(
    lambda shape, kind: torch.ones(shape, dtype=kind),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from((torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool)),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**310),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def alike(value: Any) -> st.SearchStrategy[Any]:
    """Other values of the same kind, that a check of types alone lets pass."""
    if isinstance(value, torch.Tensor):
        return tensors | st.sampled_from((torch.nan, 0, 1e30, -1)).map(
            lambda fill: torch.full_like(value.double(), fill).to(value.dtype)
        )
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int | float):
        return numbers
    if isinstance(value, list):
        return st.lists(alike(value[0]) if value else numbers, max_size=4)
    return st.sampled_from(WORDS)


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """A tree of containers with one place in it replaced, or taken away."""
    if isinstance(tree, dict) and tree and draw(st.integers(0, 7)):
        key = draw(st.sampled_from(sorted(tree)))
        if not draw(st.integers(0, 5)):
            return {k: v for k, v in tree.items() if k != key}
        return {**tree, key: draw(changed(tree[key]))}
    if isinstance(tree, list) and tree and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(tree) - 1))
        return [*tree[:at], draw(changed(tree[at])), *tree[at + 1 :]]
    return draw(alike(tree) if draw(st.booleans()) else values)


@st.composite
def some_sections(draw: st.DrawFn) -> Any:
    """A configuration of which a few sections are given; the others have their defaults."""
    more = draw(st.lists(st.sampled_from(sorted(CONFIG)), max_size=2))
    return draw(changed(SHORT | {key: CONFIG[key] for key in more}))


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of which a stretch is replaced, or the end is cut off."""
    at = draw(st.integers(0, len(data)))
    more = draw(st.binary(max_size=16))
    return (
        data[:at] + more + data[at + draw(st.integers(0, 16)) :]
        if draw(st.booleans())
        else data[:at]
    )


def resealed(data: bytes) -> bytes:
    """A checkpoint whose checksum is right again, if it has a place for one."""
    found = _DIGEST.search(data)
    if found is None:
        return data
    blank = data[: found.start(1)] + b"0" * 64 + data[found.end(1) :]
    digest = hashlib.sha256(blank).hexdigest().encode()
    return data[: found.start(1)] + digest + data[found.end(1) :]


def _lines(records: Any) -> bytes:
    rows = records if isinstance(records, list) else [records]
    return "".join(as_json(row) + "\n" for row in rows).encode()


def _dumped(tree: Any) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


def _run(folder: Path, **files: bytes) -> Path:
    """A run folder of good files, but for those given."""
    good = {"config": _dumped(SHORT), "result": as_json(RESULT).encode()}
    contents = {**good, "metrics": _lines(METRICS), **files}
    for name, file in (
        ("config", "config.yaml"),
        ("result", "result.json"),
        ("metrics", "metrics.jsonl"),
    ):
        (folder / file).write_bytes(contents[name])
    return folder


def _read_config(data: bytes, folder: Path) -> None:
    """As `report` does, and as `play` and `train resume=` do; code is never imported."""
    load_run(_run(folder, config=data))
    check(RunFolder.open(folder).config(TrainConfig))


def _report(folder: Path) -> None:
    """Read and print it; figures take too long to be drawn each time."""
    load_run(folder)


def _read_result(data: bytes, folder: Path) -> None:
    _report(_run(folder, result=data))


def _read_metrics(data: bytes, folder: Path) -> None:
    run = load_run(_run(folder, metrics=data))
    run.own_curve(1, "success")
    run.evaluations("return", 1)
    last_record(folder / "metrics.jsonl")


def _page(files: dict[str, bytes], folder: Path) -> None:
    write_report([_run(folder, **files)], folder / "report", Console(file=io.StringIO()))


def _read_checkpoint(data: bytes, folder: Path) -> None:
    path = folder / "c.safetensors"
    path.write_bytes(data)
    load_checkpoint(path)


class Accepted(BaseException):
    """A command would begin its work now."""


def _accept(*_: Any, **__: Any) -> NoReturn:
    raise Accepted


def _begin(config: Any, *_: Any) -> NoReturn:
    check(OmegaConf.to_object(config) if isinstance(config, DictConfig) else config)
    raise Accepted


@contextmanager
def nothing_begins(folder: Path) -> Iterator[None]:
    """Commands of `hypercrl` in this folder end as they would begin to work, with `Accepted`."""
    doors = {
        **{"train.begun": _begin, "play.open_run": _accept, "export.open_run": _accept},
        **{"bench.Grid.claim": _accept, "report.write_report": _accept},
        "recall.measure_recall": _begin,
    }
    with contextlib.ExitStack() as stack:
        for door, guard in doors.items():
            stack.enter_context(mock.patch(f"hypercrl.commands.{door}", guard))
        # It composes everything a second time to ask whether --multirun was meant.
        stack.enter_context(mock.patch("hydra._internal.hydra.Hydra.get_mode", return_value=None))
        # A third of the time, for what is there since this script began.
        stack.enter_context(mock.patch("hypercrl.config.registered.register"))
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(redirect_stdout(io.StringIO()))
        yield


def _command(words: list[str], folder: Path) -> None:
    """`hypercrl WORDS`; exit code 2 and one message, or 0, or it would begin."""
    said = io.StringIO()
    try:
        with nothing_begins(folder), redirect_stderr(said):
            hypercrl(words)
    except Accepted:
        return
    except SystemExit as ended:
        text = said.getvalue()
        if ended.code == 2 and text.strip() and "Traceback" not in text:
            raise UserError(text) from ended
        if ended.code:
            raise AssertionError(f"exit code {ended.code}: {text}") from ended


def _saved() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.safetensors"
        save_checkpoint(path, TREE)
        return path.read_bytes()


@cache
def _small_run() -> tuple[dict[str, Any], dict[str, bytes]]:
    """What a checkpoint in the midst of a run holds, and the run's other files."""
    stop = mock.patch.object(Trainer, "_end_task", _accept)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        run = Path(folder, "run")
        with contextlib.suppress(Accepted), stop:
            hypercrl(["train", *SMALL, f"run_dir={run}"])
        files = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
        return load_checkpoint(run / f"checkpoints/{LATEST}.safetensors"), files


def _read_state(tree: dict[str, Any], folder: Path) -> None:
    """A checkpoint that is whole, into the parts of its run, which then act once."""
    for name, data in _small_run()[1].items():
        (folder / name).write_bytes(data)
    run = RunFolder.open(folder)
    save_checkpoint(run.checkpoint_path(LATEST), tree)
    state = run.load_checkpoint(LATEST)
    progress = Progress(Console(file=io.StringIO()), 1)
    with mock.patch.object(Trainer, "_train", lambda trainer: trainer._act(planned=True)):
        Trainer(build(run.config(TrainConfig)), run, progress).run(state)


def _keys() -> list[str]:
    """Settings of `hypercrl train`, those of groups included, and some that there are not."""
    register()
    text = [path.read_text(encoding="utf-8") for path in configs_dir().glob("*/*.yaml")]
    inner = {line.split(":")[0].strip() for lines in text for line in lines.splitlines()}
    inner = {key for key in inner if key.isidentifier()}
    groups = ("env", "method", "memory", "planner", "protocol", "exploration", "dynamics")
    dotted = [f"{group}.{key}" for group in groups for key in sorted(inner)]
    return ["env", "method", "memory", "planner", "preset", "seed", "device", "task_id", *dotted]


json_texts = st.one_of(
    changed(RESULT).map(lambda tree: as_json(tree).encode()),
    spoiled(as_json(RESULT).encode()),
    st.binary(max_size=64),
)
config_texts = st.one_of(
    some_sections().map(_dumped),
    some_sections().map(_dumped),
    changed(CONFIG).map(_dumped),
    spoiled(_dumped(SHORT)),
    st.text(max_size=64).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
metrics_texts = st.one_of(
    changed(METRICS).map(_lines), spoiled(_lines(METRICS)), st.binary(max_size=64)
)
checkpoints = st.one_of(spoiled(_saved()), spoiled(_saved()).map(resealed), st.binary(max_size=64))
states = st.deferred(lambda: changed(_small_run()[0])).filter(lambda tree: isinstance(tree, dict))
likely = st.sampled_from(["1", "2", "0.5", "true", "[8,8]", "quick", "hnet", "gru", "icem", "cpu"])
told = st.one_of(likely, scalars.map(str), values.map(as_json), st.text(max_size=12))
settings = st.builds(
    lambda sign, key, value: f"{sign}{key}={value}",
    st.sampled_from(["", "", "", "+", "++", "~"]),
    st.one_of(st.sampled_from(_keys()), st.text(max_size=6)),
    told,
).filter(lambda word: not word.startswith(("-", "hydra")))
OWN = ("run", "out", "task", "video", "format", "suite", "workers", "cluster", "resume", "run_dir")
own = st.builds("{}={}".format, st.sampled_from(OWN), told)
bare = st.sampled_from(("--help", "--multirun", "push_demo", "push", "..")) | st.text(max_size=6)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command, most often one that there is, and a few words."""
    known = draw(st.sampled_from(("train", "train", "bench", *COMMANDS)) | st.text(max_size=6))
    first = {"train": settings, "bench": settings | st.just("out=x")}.get(known, own | settings)
    words = draw(st.lists(first | own | settings | bare, max_size=3))
    return [known, *(word for word in words if not word.startswith(("/", "hydra", "-c")))]


@dataclass(frozen=True)
class Target:
    """What comes in, and who reads it, in a folder of its own.

    Attributes:
        inputs: a strategy of hypothesis.
        read: accepts, or raises UserError.
        batch: inputs an example, which costs a millisecond beside them.
        long: inputs of a long run.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], None]
    batch: int
    long: int


TARGETS = {
    "checkpoint": Target(checkpoints, _read_checkpoint, 20, 800_000),
    "state": Target(states, _read_state, 1, 10_000),
    "result": Target(json_texts, _read_result, 10, 130_000),
    "metrics": Target(metrics_texts, _read_metrics, 10, 30_000),
    "config": Target(config_texts, _read_config, 5, 30_000),
    "page": Target(
        st.fixed_dictionaries({"result": json_texts, "metrics": metrics_texts}), _page, 1, 1000
    ),
    "words": Target(command_lines(), _command, 1, 20_000),
}
LOADERS = ("checkpoint", "state", "result", "metrics", "config")
QUICK = next((place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None)
"""A file system in memory, where there is one: a file a millisecond is what most inputs take."""
EXAMPLES = 500
"""Of a round: hypothesis remembers them all."""


def fuzz(name: str, executions: int, seed: int | None = None) -> Counter[str]:
    """Try a target; how many inputs were accepted and how many refused.

    Args:
        name: of a target.
        executions: how many inputs to make up, about.
        seed: of the draws; None: the same draws in every call.

    Raises:
        Exception: whatever a reader raised that is not a UserError, for the smallest such input.
    """
    target = TARGETS[name]
    seen: Counter[str] = Counter()

    @hypothesis.settings(
        max_examples=max(1, executions // target.batch),
        deadline=None,
        database=None,
        derandomize=seed is None,
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.filter_too_much,
            hypothesis.HealthCheck.data_too_large,
            hypothesis.HealthCheck.large_base_example,
        ],
    )
    @hypothesis.given(st.lists(target.inputs, min_size=target.batch, max_size=target.batch))
    def reads(examples: list[Any]) -> None:
        for example in examples:
            try:
                target.read(example, folder)
                seen["accepted"] += 1
            except UserError:
                seen["refused"] += 1

    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=QUICK) as place:
        folder = Path(place)
        (reads if seed is None else hypothesis.seed(seed)(reads))()
    return seen


Order = tuple[str, int, int]
"""A target, how many executions, and the seed of the round."""


def one_round(order: Order) -> tuple[Order, dict[str, int], str]:
    """What was accepted and refused, and the fault that was found instead."""
    torch.set_num_threads(1)
    try:
        return order, dict(fuzz(*order)), ""
    except Exception:  # what is looked for
        return order, {}, traceback.format_exc()


def orders(wanted: dict[str, int], done: dict[str, Any]) -> list[Order]:
    """The rounds that are missing yet, long ones first."""
    missing = []
    for name, executions in wanted.items():
        size = min(executions, EXAMPLES * TARGETS[name].batch)
        seeds = done.get(name, {}).get("rounds", [])
        missing += [(name, size, s) for s in range(-(-executions // size)) if s not in seeds]
    return sorted(missing, key=lambda order: order[0] != "words")


def count(board: dict[str, Any], order: Order, seen: dict[str, int]) -> None:
    """Add a round to what there is of its target."""
    name, _, seed = order
    row = board.setdefault(name, {"executions": 0, "accepted": 0, "refused": 0, "rounds": []})
    row["executions"] += sum(seen.values())
    for what, number in seen.items():
        row[what] += number
    row["rounds"].append(seed)


def write(
    board: dict[str, Any], faults: dict[str, list[str]], commits: list[str], out: Path
) -> None:
    """`out`.json, to be gone on with, and `out`.md."""
    about = {
        "command": " ".join(["python scripts/fuzz.py", *sys.argv[1:]]),
        "commits": commits,
        "machine": machine(torch.device("cpu")),
    }
    write_json(out.with_suffix(".json"), {**about, "targets": board, "faults": faults})
    loaded = sum(board[name]["executions"] for name in LOADERS if name in board)
    total = sum(row["executions"] for row in board.values())
    lines = [
        "# Made-up input\n",
        f"Faults in {total} executions: {sum(map(len, faults.values())) or 'none'}. What reads "
        "files or words that somebody else wrote was given made-up ones, and is to take them or to "
        "refuse them by one message; anything else, such as a traceback, is a fault.\n",
        f"`{about['command']}`, commit {', '.join(commits)}, {about['machine']}.\n",
        "| target | executions | accepted | refused by one message | faults |",
        "|---|---|---|---|---|",
    ]
    for name, row in board.items():
        counts = (row["executions"], row["accepted"], row["refused"], len(faults.get(name, [])))
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    lines.append(
        f"\n{loaded} executions of loaders ({', '.join(LOADERS)}). checkpoint: bytes of a file, "
        "its checksum made right again in half of them. state: a sound file with one thing in it "
        "changed, loaded into a trainer, which then acts once. result, metrics and config: a run's "
        "files, as `report` and `train resume=` read them, settings checked. page: the whole "
        "report. words: command lines, up to where the command would begin its work.\n"
    )
    out.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


def main() -> int:
    """Try the targets that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help=", ".join(TARGETS))
    parser.add_argument("--executions", type=int, default=1000, help="of each target")
    parser.add_argument("--long", action="store_true", help="a million of loaders in all")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--out", type=Path, help="OUT.json is gone on with, OUT.md is drawn")
    given = parser.parse_args()
    os.environ["XDG_STATE_HOME"] = tempfile.gettempdir()  # no key that signs this user's runs
    board: dict[str, Any] = {}
    faults: dict[str, list[str]] = {}
    commits: list[str] = []
    if given.out and given.out.with_suffix(".json").exists():
        before = json.loads(given.out.with_suffix(".json").read_text())
        board, commits = before["targets"], before["commits"]
    wanted = {
        n: TARGETS[n].long if given.long else given.executions for n in given.targets or TARGETS
    }
    missing, began = orders(wanted, board), time.monotonic()
    if missing:
        commits = list(dict.fromkeys((*commits, git_revision())))
    for name in wanted:
        fuzz(name, 1)  # imports what all rounds need
    context = multiprocessing.get_context("fork")
    with context.Pool(given.jobs, maxtasksperchild=1) as pool:
        for order, seen, fault in pool.imap_unordered(one_round, missing):
            name, _, seed = order
            if fault:
                faults.setdefault(name, []).append(fault)
                print(fault)
            else:
                count(board, order, seen)
            counts = ", ".join(f"{n} {what}" for what, n in sorted(seen.items())) or "a fault"
            print(f"{name} {seed}: {counts}, after {time.monotonic() - began:.0f} s", flush=True)
            if given.out:
                write(board, faults, commits, given.out)
    if given.out:
        write(board, faults, commits, given.out)
    return 1 if any(faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Throw made-up files and settings at everything that reads what others wrote.

    python scripts/fuzz.py                                  # every target, 1000 examples each
    python scripts/fuzz.py config checkpoint --examples 300000 --seed 1

Whatever comes in is accepted, or refused by the one message that is meant for a person (UserError).
Anything else is a fault: it is printed as the smallest example that hypothesis finds, with its
traceback, and the exit code is 1. Needs hypothesis (extra dev).
"""

import argparse
import io
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import hypothesis
import torch
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from hypercrl import cli
from hypercrl.base.errors import UserError
from hypercrl.base.paths import configs_dir
from hypercrl.base.settings import check
from hypercrl.bench import Grid
from hypercrl.config.schema import TrainConfig, register
from hypercrl.report import write_report
from hypercrl.report.runs import load_run
from hypercrl.runs.checkpoint import load_checkpoint, save_checkpoint
from hypercrl.runs.run_folder import RunFolder

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

WORDS = ("push", "none", "cem", "null", "inf", "nan", "1e400", "-1", "${seed}", "a:b", "[", "'", "")
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


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """A tree of containers with one place in it replaced, or taken away."""
    if isinstance(tree, dict) and tree and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(tree)))
        if not draw(st.integers(0, 5)):
            return {k: v for k, v in tree.items() if k != key}
        return {**tree, key: draw(changed(tree[key]))}
    if isinstance(tree, list) and tree and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(tree) - 1))
        return [*tree[:at], draw(changed(tree[at])), *tree[at + 1 :]]
    return draw(values)


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


def _lines(records: Any) -> bytes:
    rows = records if isinstance(records, list) else [records]
    return "".join(as_json(row) + "\n" for row in rows).encode()


def _dumped(tree: Any) -> bytes:
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


def _run(folder: Path, **files: bytes) -> Path:
    """A run folder of good files, but for those given."""
    good = {"config": _dumped(CONFIG), "result": as_json(RESULT).encode()}
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
    RunFolder.open(folder).config(TrainConfig)


def _report(folder: Path) -> None:
    """Read and print it; figures take too long to be drawn each time."""
    load_run(folder)


def _read_result(data: bytes, folder: Path) -> None:
    _report(_run(folder, result=data))


def _read_metrics(data: bytes, folder: Path) -> None:
    run = load_run(_run(folder, metrics=data))
    run.own_curve(1, "success")
    run.evaluations("return", 1)


def _page(files: dict[str, bytes], folder: Path) -> None:
    write_report([_run(folder, **files)], folder / "report", Console(file=io.StringIO()))


def _read_checkpoint(data: bytes, folder: Path) -> None:
    path = folder / "c.safetensors"
    path.write_bytes(data)
    load_checkpoint(path)


def _compose(words: list[str], folder: Path) -> None:  # noqa: ARG001
    """All of `hypercrl train WORDS` but what comes after the settings are checked."""

    def look(config: DictConfig) -> None:
        settings = OmegaConf.to_object(config)
        assert isinstance(settings, TrainConfig)
        check(settings)

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        cli._run_with_hydra("train", look, words)


def _grid(words: list[str], folder: Path) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        Grid(words, folder / "grid")


def _saved() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.safetensors"
        save_checkpoint(path, TREE)
        return path.read_bytes()


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
    changed(CONFIG).map(_dumped),
    spoiled(_dumped(CONFIG)),
    st.text(max_size=64).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
metrics_texts = st.one_of(
    changed(METRICS).map(_lines), spoiled(_lines(METRICS)), st.binary(max_size=64)
)
likely = st.sampled_from(["1", "2", "0.5", "true", "[8,8]", "quick", "hnet", "gru", "icem", "cpu"])
told = st.one_of(likely, scalars.map(str), values.map(as_json), st.text(max_size=12))
command_words = st.lists(
    st.builds(
        lambda sign, key, value: f"{sign}{key}={value}",
        st.sampled_from(["", "", "", "+", "++", "~"]),
        st.one_of(st.sampled_from(_keys()), st.text(max_size=6)),
        told,
    ).filter(lambda word: not word.startswith(("-", "hydra"))),
    min_size=1,
    max_size=2,
)

Target = tuple[st.SearchStrategy[Any], Callable[[Any, Path], None]]
TARGETS: dict[str, Target] = {
    "config": (config_texts, _read_config),
    "result": (json_texts, _read_result),
    "metrics": (metrics_texts, _read_metrics),
    "page": (
        st.fixed_dictionaries({"result": json_texts, "metrics": metrics_texts}),
        _page,
    ),
    "checkpoint": (st.one_of(spoiled(_saved()), st.binary(max_size=64)), _read_checkpoint),
    "words": (command_words, _compose),
    "grid": (command_words, _grid),
}
"""What comes in, and who reads it, in an empty folder."""


def fuzz(name: str, examples: int, seed: int | None = None) -> Counter[str]:
    """Try a target; how many inputs were accepted and how many refused.

    Args:
        name: of a target.
        examples: how many inputs to make up.
        seed: of the draws; None: the same draws in every call.

    Raises:
        Exception: whatever a reader raised that is not a UserError, for the smallest such input.
    """
    strategy, read = TARGETS[name]
    seen: Counter[str] = Counter()

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed is None,
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.filter_too_much,
            hypothesis.HealthCheck.data_too_large,
        ],
    )
    @hypothesis.given(strategy)
    def reads(example: Any) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        try:
            read(example, folder)
            seen["accepted"] += 1
        except UserError:
            seen["refused"] += 1
        finally:
            shutil.rmtree(folder)

    (reads if seed is None else hypothesis.seed(seed)(reads))()
    return seen


def main() -> int:
    """Try the targets that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help=", ".join(TARGETS))
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="other draws")
    arguments = parser.parse_args()
    failed = 0
    for name in arguments.targets or TARGETS:
        began = time.monotonic()
        try:
            seen = fuzz(name, arguments.examples, arguments.seed)
        except Exception:  # the fault that was looked for
            import traceback

            traceback.print_exc()
            print(f"{name}: a fault, see above")
            failed += 1
            continue
        counts = ", ".join(f"{count} {what}" for what, count in sorted(seen.items()))
        print(f"{name}: {counts}, in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

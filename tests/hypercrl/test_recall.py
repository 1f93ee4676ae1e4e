"""Associative recall: the task, the training of one encoder, the suite and its report."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from hypercrl.bench import RECALL, Grid
from hypercrl.cli import main
from hypercrl.config.schema import RecallConfig
from hypercrl.memory import MEMORIES
from hypercrl.report.recall import write_recall
from hypercrl.training.recall import KEY_WIDTH, VALUES, label, measure_recall, recall_batch


def test_queries_ask_for_what_was_written() -> None:
    distinct = torch.tensor([8, 4, 1])
    tokens, labels = recall_batch(3, 8, distinct, torch.Generator().manual_seed(0))
    assert tokens.shape == (3, 16, KEY_WIDTH + VALUES)
    keys, values = tokens.split([KEY_WIDTH, VALUES], -1)
    assert not values[:, 8:].any(), "a query shows no value"
    for b in range(3):
        assert len(keys[b, :8].unique(dim=0)) == distinct[b]
        for t in range(8):
            written = (keys[b, :8] == keys[b, 8 + t]).all(-1).nonzero()[:, 0]
            assert len(written) == 8 // distinct[b]
            assert (values[b, written].argmax(-1) == labels[b, t]).all()
    assert len(keys[0, 8:].unique(dim=0)) == 8, "each pair is asked for once"


def settings(name: str, **others: float) -> RecallConfig:
    memory = MEMORIES[name][1](name=name, width=16, context=16)
    sizes = {
        "learning_rate": 0.01,
        "pairs": 8,
        "steps": 5,
        "batch_size": 16,
        "test_sequences": 40,
        **others,
    }
    return RecallConfig(preset="test", memory=memory, device="cpu", **sizes)


def test_attention_learns_to_recall_and_the_result_depends_on_the_seed_alone() -> None:
    result = measure_recall(settings("transformer", steps=300, batch_size=32))
    assert result["recall"]["8"] > 0.9
    assert result["state_bytes"] == 4 * (16 + 2 * 2 * 16 * 16) + 2 * 8, "windows of 16 steps"
    short = [measure_recall(settings("gla", seed=seed)) for seed in (0, 0, 1)]
    assert short[0]["loss"] == short[1]["loss"] != short[2]["loss"]


def test_every_encoder_is_a_cell(tmp_path) -> None:
    grid = Grid(["memory=all", "memory.width=16,32", "seed=0"], tmp_path, RECALL)
    assert len(grid.cells) == 2 * (len(MEMORIES) - 1)
    assert grid.cells[0].words()[:2] == ["recall", "memory=gru"]
    assert grid.cells[0].name == "gru-16-0"


@pytest.mark.usefixtures("forked_cells")
def test_the_suite_skips_what_is_done(tmp_path, capfd) -> None:
    out = tmp_path / "suite"
    words = ["bench", "suite=recall", "preset=smoke", "memory=gru", f"out={out}", "device=cpu"]
    main([*words, "memory.width=16"])
    result = out / "cells" / "gru-16-0" / "result.json"
    before = result.stat().st_mtime_ns
    main([*words, "memory.width=16,32", "workers=2"])
    assert result.stat().st_mtime_ns == before
    records = json.loads((out / "report" / "recall.json").read_text())
    assert [(r["memory"], r["width"]) for r in records] == [("gru", 16), ("gru", 32)]
    assert "Recall of 8 pairs after 5 training steps" in capfd.readouterr().out


def record(label: str, width: int, recall: float) -> dict[str, object]:
    result = measure_recall(settings("gru"))
    return {**result, "label": label, "width": width, "recall": {"8": recall, "4": 1.0}}


def test_the_report_averages_over_seeds(tmp_path) -> None:
    records = [record("a", 32, 0.5), record("a", 16, 0.25), record("a", 32, 0.7)]
    paths = [tmp_path / f"{i}.json" for i in range(3)]
    for path, content in zip(paths, records, strict=True):
        path.write_text(json.dumps(content))
    figure = write_recall(paths, tmp_path / "report", Console(file=io.StringIO()))
    assert figure is not None
    assert figure.read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "report" / "recall.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["width"], row["recall"]) for row in rows] == [
        ("16", "0.25"),
        ("32", "0.60 ± 0.14"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "suite=recal", "out=x"], "train, recall, not 'recal'"),
        (["bench", "suite=recall", "memory=glaa", "out=x"], "Did you mean 'gla'"),
        (["bench", "suite=recall", "memory.widht=16", "out=x"], "Did you mean 'memory.width'"),
        (["recall", "memory=gla"], "needs run_dir"),
        (["recall", "memory=none", "recall=smoke", "run_dir=x"], "remembers nothing"),
        (["recall", "memory=gla", "memory.heads=5", "run_dir=x"], "a multiple of 2"),
        (["recall", "pairs=4", "run_dir=x"], "pairs must be at least 8"),
    ],
)
def test_mistakes_are_named(words, message, capfd, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_one_cell_takes_the_presets_of_the_suite(tmp_path, capfd) -> None:
    main(["recall", "preset=smoke", "memory=gru", "device=cpu", f"run_dir={tmp_path / 'cell'}"])
    assert json.loads((tmp_path / "cell" / "result.json").read_text())["pairs"] == 8
    with pytest.raises(SystemExit):
        main(["recall", "preset=smok", f"run_dir={tmp_path / 'other'}"])
    assert "there is no preset=smok. Did you mean 'smoke'?" in capfd.readouterr().err


def test_a_result_is_not_overwritten(tmp_path) -> None:
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["recall", "recall=smoke", f"run_dir={tmp_path}"])
    assert (tmp_path / "result.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["memory=gru", "memory.width=16"], "gru"),
        (["memory=sse", "memory.rows=0", "memory.selected=2"], "sse, selected 2, rows 0"),
        (["memory=hybrid", "memory.ratio=6", "memory.layers=7"], "gated_deltanet 6:1"),
        (
            ["memory=hybrid", "memory.linear=sse", "memory.settings={rows: 8}"],
            "sse 3:1, rows 8",
        ),
    ],
)
def test_label_names_settings_that_are_not_the_usual(
    words: list[str], expected: str, tmp_path: Path
) -> None:
    (config,) = Grid(["recall=smoke", *words], tmp_path, RECALL).configs
    config.run_dir = str(tmp_path)
    assert label(OmegaConf.to_object(config)) == expected  # pyright: ignore


@pytest.mark.parametrize("parent", ["file", "/proc"])
def test_a_place_that_cannot_be_written_to_is_said_before_training(
    parent, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("hypercrl.training.recall._train", None)  # it does not come to that
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["recall", "preset=smoke", "memory=gru", f"run_dir={tmp_path / parent / 'run'}"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hypercrl: cannot write to {tmp_path / parent / 'run'}: ")

"""The grid of one memory over five tasks: its settings, and what is read of its runs."""

import json
from math import sqrt

import pytest
from evidence_records import read_lines
from hidden_sequence import (
    ORDERS,
    SEEDS,
    TASKS,
    VARIANTS,
    SequenceCell,
    cells,
    record,
    table,
)
from hidden_tasks import KEPT, PAGE

from hypercrl.config.compose import composed
from hypercrl_envs import TaskSequence


def test_the_grid_is_made_of_settings_that_there_are():
    names = [cell.name for cell in cells()]
    assert len(set(names)) == len(names) == SEEDS * len(ORDERS) * len(VARIANTS)
    config = composed("train", SequenceCell("densities first", "distilled at 100", 1).words())
    assert (config.context.protect, config.context.distil, config.seed) == ("distil", 100, 1)
    assert list(config.protocol.order) == [5, 1, 2, 3, 4]
    for variant in VARIANTS:
        size = 14 if variant == "told" else 10
        config = composed("train", SequenceCell("frame first", variant, 0).words())
        sequence = TaskSequence(config.env.tasks, name=config.env.name)
        assert (len(sequence), sequence.observation_size) == (TASKS, size)


def logged(folder, tasks, ended):
    """A run that has trained so many tasks, each solved to 0.1 of its number, and 0.05 less later.

    Of each the error is 0.01 of its number.
    """
    rows = []
    for task in range(1, tasks + 1):
        steps = 100 * task
        for on in range(1, TASKS + 1 if task == TASKS else task + 1):
            success = 0.1 * on - (0.05 if on < task else 0)
            values = {"success": success, "prediction_error": 0.01 * on}
            rows.append({"kind": "eval", "env_steps": steps, "task": task, "on": on, **values})
        rows.append({"kind": "continual_success", "env_steps": steps, "task": task, "average": 0})
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if ended:
        (folder / "result.json").touch()
    return folder


def test_what_is_kept_at_the_end_stands_beside_what_was_learned(tmp_path):
    whole = record(SequenceCell("frame first", "frozen", 0), logged(tmp_path / "a", TASKS, True))
    assert [one["success"] for one in whole["tasks"]] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [one["success"] for one in whole["end"]] == pytest.approx([0.05, 0.15, 0.25, 0.35, 0.5])
    cut = record(SequenceCell("frame first", "frozen", 1), logged(tmp_path / "b", 2, False))
    assert cut["end"] == []
    (row,) = table([whole, cut]).splitlines()[2:]
    values = [value.strip() for value in row.strip("|").split("|")]
    assert values[:7] == ["frame", "frozen", "1 of 2", "0.30", "0.26", "30.0", "30.0"]
    assert values[7:] == ["0.10 → 0.05", "0.20 → 0.15", "0.30 → 0.25", "0.40 → 0.35", "0.50 → 0.50"]


def test_errors_are_over_what_all_see(tmp_path):
    folder = logged(tmp_path / "told", TASKS, True)
    (first, *_) = record(SequenceCell("frame first", "told", 0), folder)["tasks"]
    assert first["error"] == pytest.approx(0.01 * sqrt(14 / 10), rel=1e-3)


def test_the_page_holds_what_is_kept():
    kept = table(read_lines(KEPT.with_name("hidden_sequence.jsonl")))
    assert kept in PAGE.read_text(encoding="utf-8")

"""The grid of hidden numbers: what is read out of a context, and what is kept of a run."""

import json
from math import sqrt

import hidden_tasks
import pytest
import torch
from hidden_readout import FLOOR, last_change, linear_fit, read_contexts
from hidden_tasks import (
    CAUSES,
    ENCODERS,
    HIDDEN,
    SEEDS,
    HiddenCell,
    cells,
    filled,
    record,
    rows_of,
    take,
)

from hypercrl.base.errors import UserError
from hypercrl.config.compose import composed
from hypercrl_envs import TaskSequence


def test_a_read_out_finds_what_is_there_and_no_more():
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 2, generator=g)
    mixed = hidden @ torch.randn(2, 8, generator=g)
    noise = torch.randn(400, 8, generator=g)
    assert linear_fit(mixed, hidden) > 0.999
    # Numbers of variance 1 in eight contexts of which each has noise of its own: of two outputs
    # the best that anything linear could explain.
    covariance = mixed.T @ mixed / 400 + torch.eye(8)
    cross = mixed.T @ hidden / 400
    best = float((cross * torch.linalg.solve(covariance, cross)).sum() / hidden.var(0).sum())
    assert abs(linear_fit(mixed + noise, hidden) - best) < 0.08
    assert linear_fit(noise, hidden) < 0.05
    with_constant = torch.cat([hidden, torch.ones(400, 1)], 1)
    assert linear_fit(mixed, with_constant) == pytest.approx(linear_fit(mixed, hidden))


def test_steps_count_from_where_the_number_holds():
    hidden = torch.zeros(3, 8, 1)
    hidden[0, 5:] = 1  # first observed at step 5
    hidden[2, :7] = 1
    assert last_change(hidden).tolist() == [5, 0, 7]
    assert last_change(torch.ones(2, 8, 3)).tolist() == [0, 0]


def test_contexts_are_read_after_so_many_transitions():
    """The context holds the number from the tenth transition after the change on."""
    g = torch.Generator().manual_seed(1)
    values, changes = torch.randn(200, generator=g), torch.randint(5, 30, (200,), generator=g)
    t = torch.arange(81)
    hidden = torch.where(t < changes[:, None], 0.0, values[:, None])[..., None]
    known = (t[:80] >= changes[:, None] + 9) * values[:, None]
    contexts = torch.stack([known, torch.randn(200, 80, generator=g)], -1)
    found = read_contexts(contexts, hidden)
    assert found["5"] < 0.1
    assert found["10"] > 0.99
    assert found["50"] > 0.99
    assert found[FLOOR] < 0.1


def test_the_grid_is_made_of_settings_that_there_are():
    names = [cell.name for cell in cells()]
    assert len(set(names)) == len(names)
    causes = [(sequence, model) for sequence, own in CAUSES.items() for model in own]
    assert len(names) == SEEDS * (len(HIDDEN) * (3 + len(ENCODERS)) + len(causes))
    every = [word for sequence, model in causes for word in CAUSES[sequence][model]]
    composed("train", [*HiddenCell("frame_hidden", "gru", 0).words(), *every])
    assert not HiddenCell("door_hidden", "told: 200 random episodes", 0).remembers
    for cell in cells("*/told/0,*/gru/0"):
        config = composed("train", cell.words())
        assert config.seed == 0
        sequence = TaskSequence(config.env.tasks[:1], name=config.env.name)
        hidden = HIDDEN[cell.sequence]
        assert sequence.observation_size == hidden.seen + (hidden.told if cell.told else 0)
        assert (config.memory.name == "none") == cell.told


def test_the_page_holds_what_is_kept():
    page = hidden_tasks.PAGE.read_text(encoding="utf-8")
    assert filled(page, hidden_tasks.read(hidden_tasks.KEPT)) == page


def result(folder, success, error):
    folder.mkdir()
    values = {
        "success": [[0.0], [success]],
        "scores": [[1.0], [20.0]],
        "prediction_error": [[0.5], [error]],
        "memory_state_bytes": 640,
        **dict.fromkeys(("updates", "env_steps", "update_milliseconds", "seconds"), 3),
        "machine": {},
        "versions": {"torch": "2"},
    }
    (folder / "result.json").write_text(json.dumps(values))
    return folder


def test_errors_are_over_what_all_see_and_tables_against_what_is_told(tmp_path, monkeypatch):
    told = record(HiddenCell("push_hidden", "told", 0), result(tmp_path / "told", 0.8, 0.01))
    assert told["error"] == pytest.approx(0.01 * sqrt(12 / 10), rel=1e-3)
    gru = record(HiddenCell("push_hidden", "gru", 1), result(tmp_path / "gru", 0.6, 0.02))
    gru["read_out"] = {"1": 0.25, "20": 0.5, FLOOR: -0.1}
    rows = {row[0]: row for row in rows_of([told, gru], "push_hidden")}
    assert rows["gru"][2:4] == ["0.60", "0.75"]
    assert rows["gru"][6:] == ["1.83", "0.25", "", "", "0.50", "", "-0.10", "640 B"]
    assert "sse" not in rows

    kept, page = tmp_path / "kept.jsonl", tmp_path / "page.md"
    marks = "".join(
        f"## {s}\n{hidden_tasks.BEGIN.format(s)}what stood here\n<!-- end -->\n" for s in HIDDEN
    )
    page.write_text(marks + "after\n")
    monkeypatch.setattr(hidden_tasks, "KEPT", kept)
    monkeypatch.setattr(hidden_tasks, "PAGE", page)
    new = tmp_path / "new.jsonl"
    new.write_text("".join(json.dumps(one) + "\n" for one in (told, gru)))
    take([new])
    new.write_text(json.dumps({**told, "success": 0.0}) + "\n")
    assert [one["success"] for one in take([new])] == [0.8, 0.6]
    other = {**gru, "cell": "push_hidden/gru/2"}  # with the words of another seed
    new.write_text(json.dumps(other) + "\n")
    with pytest.raises(UserError, match="push_hidden/gru/2 was measured with other settings"):
        take([new])
    text = page.read_text()
    assert "| gru | 1 | 0.60 | 0.75 |" in text
    assert (
        "Not measured: none, gated_deltanet, gla, sse, hgrn2, gru: long windows, gru: 3 ×" in text
    )
    assert "what stood here" not in text
    assert text.endswith("after\n")
    with pytest.raises(UserError, match="frame_hidden"):
        filled("nothing", [told])

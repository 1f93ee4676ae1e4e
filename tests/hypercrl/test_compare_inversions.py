"""Beside DMA*-SH: that its inversions are ours, what counts as a step, and the tables."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import compare_inversions
import gymnasium
import numpy as np
import pytest
import torch
from compare_inversions import at_equal_steps, curves_of_ours, until
from evidence_grid import EvidenceCell
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from inversions_curve import BUDGETS, words
from peer_dmash import (
    GROUNDS,
    SIGNS,
    WAYS,
    _adapted_at_once,
    _Counted,
    _Drawn,
    _Scored,
    _words,
)
from torch import nn

from hypercrl.config.compose import composed
from hypercrl_envs import make_task


@pytest.mark.parametrize("name", GROUNDS)
def test_inversions_are_those_of_our_sequences_in_their_order(name: str):
    ground = GROUNDS[name]
    tasks = composed("train", [f"env={name.removesuffix('_sparse')}"]).env.tasks
    for mine, theirs in zip(tasks, ground.tasks, strict=True):
        ours, again = make_task(**mine), make_task(ground.task, **theirs)
        assert ours.caption == again.caption
    assert len(ground.contexts) == len(ground.tasks)


def test_signs_of_forces_are_those_of_reversed_axes():
    """From rest, the force (1, 1) pulls along the signs."""
    for signs, parameters in zip(SIGNS, GROUNDS["double_integrator"].tasks, strict=True):
        task = make_task("double_integrator", **parameters)
        task.reset(seed=0)
        obs, *_ = task.step(np.ones(2, np.float32))
        assert tuple(np.sign(obs[2:])) == signs


def _limited(**parameters: Any) -> gymnasium.Env:
    return gymnasium.make("hypercrl/DoubleIntegrator-v0", **parameters)


def test_one_robot_has_another_inversion_after_an_episode_only():
    """Their warm-up resets in mid-episode: it has to stay where it filled its window."""
    four = [_limited(**p) for p in GROUNDS["double_integrator"].tasks]
    drawn = _Drawn(four, seed=0)
    seen = set()
    for _ in range(20):
        drawn.reset()
        at = drawn._at
        for _ in range(24):
            drawn.step(np.zeros(2, np.float32))
        drawn.reset()
        assert drawn._at is at
        ends = False
        while not ends:
            *_, ends, _ = drawn.step(np.zeros(2, np.float32))
            assert drawn._at is at
        seen.add(four.index(at))
    assert seen == {0, 1, 2, 3}


def test_every_step_of_every_robot_counts():
    told: list[int] = []
    envs = SyncVectorEnv([lambda: _limited()] * 4, autoreset_mode=AutoresetMode.DISABLED)
    counted = _Counted(envs, told.append)
    counted.reset()
    for _ in range(3):
        counted.step(np.zeros((4, 2), np.float32))
    assert (told, counted.steps, counted.num_envs) == ([0, 4, 8], 12, 4)


def test_scores_are_of_whole_episodes_and_a_reset_in_mid_episode_leaves_none():
    task = make_task("double_integrator")
    scored = _Scored(task, ())
    scored.reset(seed=3)
    for _ in range(24):
        scored.step(np.ones(2, np.float32))
    obs, _ = scored.reset(seed=4)
    paid, ends = 0.0, False
    while not ends:
        obs, reward, _, ends, _ = scored.step(task.scripted_action(obs))
        paid += float(reward)
    assert scored.ended == [(pytest.approx(paid), 1.0)]
    assert _Scored(task, (1.0, -1.0)).reset(seed=4)[0][4:].tolist() == [1.0, -1.0]


class _Adapted(nn.Module):
    """As much of their base model as is replaced: its loop over a batch, and a hypernetwork."""

    context_merge_type = "hypernet"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc_mnet = SimpleNamespace(param_shapes=[[3, 6], [3], [6, 3], [6]])
        self.fcs, self.hyper = nn.Linear(4, 6), nn.Linear(2, 18 + 3 + 18 + 6)

    def embed(self, parts: Any, context: torch.Tensor) -> Any:
        return parts, context

    def fc_hnet(self, cond_input: torch.Tensor, ret_format: str) -> torch.Tensor:
        assert ret_format == "flattened"
        return self.hyper(cond_input)

    def _forward(self, x: Any, context: Any, hnet_weights: Any = None) -> Any:
        x, rows = self.fcs(x), []
        for one, flat in zip(x, self.hyper(context), strict=True):
            down, less = flat[:18].view(3, 6), flat[18:21]
            up, more = flat[21:39].view(6, 3), flat[39:]
            rows.append(torch.relu(one + up @ torch.relu(down @ one + less) + more))
        return torch.stack(rows), hnet_weights


def test_adapters_of_a_batch_at_once_are_those_of_a_loop():
    model, x, context = _Adapted(), torch.randn(5, 4), torch.randn(5, 2)
    loop, _ = model._forward(x, context)

    class AtOnce(_Adapted):
        pass

    _adapted_at_once(AtOnce)
    at_once, weights = AtOnce()._forward(x, context)
    torch.testing.assert_close(at_once, loop)
    torch.testing.assert_close(AtOnce().get_hnet_weights(context, x), weights)


def test_as_many_steps_at_random_as_our_agents_take():
    for way in ("four", "one", "told"):
        words = _words(GROUNDS["double_integrator"], WAYS[way], 2)
        starts = int(words[words.index("--learning_starts") + 1])
        assert starts * WAYS[way].robots == 1200 == 4 * 300
        assert words[words.index("--seed") + 1] == "2"
    defaults = _words(GROUNDS["double_integrator"], WAYS["published"], 0)
    assert defaults[defaults.index("--learning_starts") + 1] == "5000"
    assert defaults[defaults.index("--num_train_envs") + 1] == "10"


def _record(cell: str, *points: tuple[int, float]) -> dict[str, Any]:
    def score(x: float) -> dict[str, list[float]]:
        return {"success": [x] * 4, "return": [-10 * x] * 4}

    made = [{"steps": s, "updates": s // 2, "warm": score(x), "cold": score(0)} for s, x in points]
    return {"cell": cell, "points": made}


def test_tables_say_what_there_was_at_equal_steps_and_after_how_many_it_was_solved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    records = [
        _record("complex_ode/one/0", (1800, 0.25), (3600, 0.5), (6000, 1.0)),
        _record("complex_ode/one/1", (1800, 0.5), (3600, 0.75)),
    ]
    rows = [line for line in at_equal_steps(records).splitlines() if "one robot" in line]
    assert [row.split(" | ")[2:5] for row in rows] == [["2", "3 600", "1 800"]] * 2
    assert "0.62 0.62 0.62 0.62 | 0.62 | -6.2 |" in rows[0]
    last = until(records).splitlines()[-1]
    assert "3 600 1 800 | 6 000 – | 6 000 – | 6 000: 1.00; 3 600: 0.75" in last

    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- equal steps -->\n<!-- end -->\nb\n<!-- steps -->\n<!-- end -->\n"
        "<!-- until -->\nstale\n<!-- end -->\nc\n"
    )
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr(compare_inversions, "PAGE", page)
    monkeypatch.setattr(compare_inversions, "FIGURE", tmp_path / "steps.png")
    curve = tmp_path / "curve.jsonl"
    lines = [_record(f"complex_ode/hnet/{steps}/1", (steps, 0.0)) for steps in BUDGETS]
    curve.write_text("".join(json.dumps(line) + "\n" for line in lines))
    compare_inversions.page(SimpleNamespace(kept=kept, curve=curve))
    text = page.read_text()
    assert "stale" not in text
    assert last in text
    assert (text[:2], text[-2:]) == ("a\n", "c\n")
    assert "| complex_ode | hnet, told the task | 1 | 3 600 | 3 600 | 3 600 | 3 600: 1.00 |" in text
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "steps.png").unlink()
    curve.write_text(json.dumps(lines[0]) + "\n")
    compare_inversions.page(SimpleNamespace(kept=kept, curve=curve))
    assert not (tmp_path / "steps.png").exists()


def test_a_curve_of_ours_is_the_evidence_cut_shorter_and_ends_with_it():
    """Nothing differs from the evidence's cell but how long it goes on, and what is looked at."""
    lines = [_record(f"complex_ode/hnet/{steps}/1", (steps, 0.0)) for steps in (800, 400)]
    (curve,) = curves_of_ours(lines)
    assert curve["cell"] == "complex_ode/hnet/1"
    assert [p["steps"] for p in curve["points"]] == [400, 800, 3600]
    for ground in ("double_integrator", "complex_ode"):
        whole = composed("train", EvidenceCell(ground, "hnet", 1).words())
        short = composed("train", words(f"{ground}/hnet/800/1"))
        protocol = short.protocol
        assert (protocol.random_steps + protocol.planned_steps) * len(short.env.tasks) == 800
        assert short.protocol.final_episodes == whole.protocol.final_episodes
        for name in ("random_steps", "planned_steps", "eval_tasks", "eval_episodes"):
            protocol[name] = whole.protocol[name]
        assert short == whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("run", "--dmash", ".", "--only", "cartpole/*,nothing/*"),
            "'nothing/*': no cell is named",
        ),
        (("run", "--dmash", "."), "the program in . cannot be imported (No module named 'dmash')"),
        (("page", "--kept", "kept.jsonl"), "kept.jsonl cannot be read"),
    ],
)
def test_mistakes_are_one_message(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("kept.jsonl").write_text("no record\n{}\n")
    monkeypatch.setattr(sys, "argv", ["compare_inversions.py", *words])
    with pytest.raises(SystemExit) as ended:
        compare_inversions.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err

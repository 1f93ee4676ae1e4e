"""Long sequences: what is measured between, at the end, and how a report shows what was not."""

import itertools
import json

import numpy as np
import pytest
import torch
from killed_runs import outcome, saved_and_killed
from tiny_runs import FEW_STEPS

from hypercrl import metrics
from hypercrl.cli import main
from hypercrl.replay.transitions import Batch
from hypercrl.report.style import shown_tasks
from hypercrl.training import evaluation, trainer

pytestmark = pytest.mark.usefixtures("short_episodes_throughout")
SMALL = (
    *FEW_STEPS,
    "env=push20",
    "method=finetune",
    "protocol.num_tasks=4",
    "protocol.eval_tasks=1",
    "protocol.eval_every=8",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    main(["train", *SMALL, f"run_dir={path}"])
    return path


def matrix(run, name="scores"):
    return metrics.as_matrix(json.loads((run / "result.json").read_text())[name])


def test_what_forgetting_and_transfer_need_is_measured(run):
    scores = matrix(run)
    there = ~np.isnan(scores)
    assert there[0].all()
    assert there[-1].all()
    for trained in (1, 2, 3):
        old = there[trained, : trained - 1].sum()
        assert there[trained, trained - 1 : trained + 1].all()
        assert old == min(1, trained - 1)
        assert not there[trained, trained + 1 :].any()
    result = json.loads((run / "result.json").read_text())
    just = np.diagonal(scores, -1)
    assert result["forgetting"] == pytest.approx((just - scores[-1])[:-1].mean())
    before = np.diagonal(scores)[1:]
    assert result["forward_transfer"] == pytest.approx((before - scores[0, 1:]).mean())
    assert result["chaudhry_forgetting"] is None  # the best of what was not measured is unknown


def test_scores_are_those_of_a_run_that_evaluates_all(run, tmp_path):
    whole = tmp_path / "whole"
    main(["train", *SMALL, "protocol.eval_tasks=null", f"run_dir={whole}"])
    for name in ("scores", "success", "prediction_error"):
        some, every = matrix(run, name), matrix(whole, name)
        assert not np.isnan(every).any()
        there = ~np.isnan(some)
        assert np.array_equal(some[there], every[there])


def test_all_are_measured_at_the_end_also_where_a_task_began_with_recorded_steps(
    tmp_path, monkeypatch
):
    """These are no environment steps of the run."""
    draws = torch.Generator().manual_seed(0)
    obs, action = (torch.randn(15, size, generator=draws) for size in (10, 2))
    episode = Batch(obs[:-1], action[:-1].clamp(-1, 1), obs[1:])
    monkeypatch.setattr(trainer, "recorded_transitions", lambda *_: {1: [episode]})
    path = tmp_path / "recorded"
    main(["train", *SMALL, f"run_dir={path}"])
    assert json.loads((path / "result.json").read_text())["env_steps"] == 4 * 30 - 14
    there = ~np.isnan(matrix(path))
    assert there[-1].all()
    assert there[2].sum() == 3


def test_a_report_says_of_nothing_that_it_failed(run, capsys):
    main(["report", str(run)])
    said = capsys.readouterr().out
    assert "—" in said
    page = (run / "report/index.html").read_text()
    assert "failed" not in said
    assert "failed cells" not in page


def test_of_many_tasks_there_is_room_for_some():
    assert shown_tasks(20, 20) == list(range(20))
    some = shown_tasks(100, 20)
    assert len(set(some)) == 20
    assert (some[0], some[-1]) == (0, 99)
    gaps = {after - before for before, after in itertools.pairwise(some)}
    assert gaps == {5, 6}


def test_saved_in_the_midst_of_a_sample_it_goes_on(run, tmp_path, monkeypatch):
    again = tmp_path / "again"
    saved = saved_and_killed(
        again, SMALL, (3, 25, 40), monkeypatch, counts=lambda tree: len(tree["scores"]) == 2
    )
    assert len(saved) > 40
    assert outcome(again) == outcome(run)


def test_robots_of_tasks_that_are_long_past_are_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "TASKS_KEPT", 2)
    kept, keep = [], evaluation.Evaluator._keep

    def watched(self, latest):
        keep(self, latest)
        kept.append((len(self._robots), {task for task, _ in self._agents}, set(self._robots)))

    monkeypatch.setattr(evaluation.Evaluator, "_keep", watched)
    few = tmp_path / "few"
    main(["train", *SMALL, f"run_dir={few}"])
    assert max(count for count, *_ in kept) == 2
    assert all(agents <= robots for _, agents, robots in kept)

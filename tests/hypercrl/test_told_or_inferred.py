"""Whose model is whose in a run, as the script has it, against what the run's checkpoints hold."""

import pytest
from told_or_inferred import owners

from hypercrl.agent.inferred_labels import InferredLabels
from hypercrl.cli import main
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.open_run import open_run

pytestmark = pytest.mark.usefixtures("short_episodes")
SHORT = (
    *("preset=smoke", "device=cpu", "env=double_integrator", "method=single", "seed=6"),
    *("protocol.num_tasks=3", "protocol.order=[3,1,2]", "protocol.planned_steps=10"),
    *("protocol.final_episodes=1", "protocol.eval_every=1000", "protocol.heldout_episodes=1"),
)
DOUBTING = (
    *("task_id=inferred", "inference.settle=2", "inference.allowance=1", "inference.alarm=0"),
    *("inference.patience=2", "inference.familiar=1", "inference.max_tasks=4"),
    "protocol.planned_steps=60",
)


def test_a_task_has_the_model_that_was_believed_in_as_it_ended(tmp_path):
    """An agent that doubts everything changes its mind again and again within a task."""
    run, believed = tmp_path / "r", []
    main(["train", *SHORT, *DOUBTING, f"run_dir={run}"])
    for task in (1, 2, 3):
        labels = open_run(run, "cpu", f"after_task_{task}").labels
        assert isinstance(labels, InferredLabels)
        believed.append(labels.inference.current)
    assert len(set(believed)) > 1
    assert believed != [0, 1, 2]
    assert owners(RunFolder.open(run), open_run(run, "cpu")) == believed


def test_where_nothing_is_decided_all_tasks_have_the_first_model(tmp_path):
    main(["train", *SHORT, "task_id=inferred", f"run_dir={tmp_path / 'r'}"])
    run = open_run(tmp_path / "r", "cpu")
    assert owners(RunFolder.open(tmp_path / "r"), run) == [0, 0, 0]


def test_a_labelled_task_has_its_own(tmp_path):
    main(["train", *SHORT, f"run_dir={tmp_path / 'r'}"])
    run = open_run(tmp_path / "r", "cpu")
    assert owners(RunFolder.open(tmp_path / "r"), run) == [0, 1, 2]

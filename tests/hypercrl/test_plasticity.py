"""Tasks in another order, and what of its networks a method uses after each of them."""

import json

import numpy as np
import pytest
import torch
from tiny_runs import FEW_STEPS
from torch.nn import functional as F

from hypercrl.cli import main
from hypercrl.metrics import dormant_share, effective_rank
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.learner import Learner
from hypercrl.training.open_run import open_run
from hypercrl.training.plasticity import plasticity

SMALL = (*FEW_STEPS, "env=push", "method=hnet", "method.hidden=[6,5]", "protocol.order=[4,2,5]")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    main(["train", *SMALL, "protocol.num_tasks=2", f"run_dir={path}"])
    return path


def logged(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "plasticity"]


def test_tasks_are_learned_in_the_given_order(run):
    result = json.loads((run / "result.json").read_text())
    assert result["tasks"] == ["push 250 | 500 kg/m³", "push 100 | 500 kg/m³"]
    experiment = open_run(run, "cpu")
    assert [task["densities"] for task in experiment.sequence.specs] == [[250, 500], [100, 500]]


def test_what_is_used_is_logged_after_each_task(run):
    first, second = logged(run)
    assert (first["task"], second["task"]) == (1, 2)
    # One embedding has one direction, two have two at most.
    assert first["hypernetwork_effective_rank"] == pytest.approx(1.0)
    assert 1.0 < second["hypernetwork_effective_rank"] <= 2.0
    assert 1.0 < first["network_effective_rank"] <= 16.0
    assert 0.0 <= first["network_dormant"] <= 1.0


def test_what_is_logged_is_of_the_networks_that_were_learned(run):
    """Against the layers of the checkpoint, multiplied out."""
    experiment = open_run(run, "cpu")
    method, replay = experiment.method, _replay(run, experiment)
    with torch.no_grad():
        batch = replay.contents()
        (weight, bias), _ = method.layers(1)
        inputs = method.model.input_normaliser(torch.cat([batch.obs, batch.action], -1))
        hidden = (inputs @ weight.T + bias).clamp(min=0)
        layers, theta = method.hypernetwork.layout, method.hypernetwork.theta
        (w1, b1), (w2, b2), _ = layers.split(theta)
        written = [F.elu(torch.stack(list(method.embeddings)) @ w1.T + b1)]
        written.append(F.elu(written[0] @ w2.T + b2))
    found = logged(run)[1]
    for name, value in plasticity(method, replay).items():
        assert found[name] == pytest.approx(value), name
    assert found["network_dormant"] == dormant_share(hidden)
    assert found["network_effective_rank"] == pytest.approx(effective_rank(hidden), rel=1e-4)
    ranks = [effective_rank(layer) for layer in written]
    assert found["hypernetwork_effective_rank"] == pytest.approx(np.mean(ranks), rel=1e-4)


def _replay(run, experiment):
    learner = Learner(experiment)
    learner.load_state(RunFolder(run).load_checkpoint("after_task_2")["learner"])
    return learner.replay


@pytest.mark.parametrize(
    "order", ["[1,2,1]", "[6]", "[]", "[0,1]", "[1.5]", "3"], ids=lambda order: f"order{order}"
)
def test_an_order_names_tasks_that_are_there_once(order, tmp_path, capsys):
    words = ["train", *FEW_STEPS, "env=push", f"protocol.order={order}"]
    with pytest.raises(SystemExit) as ended:
        main([*words, f"run_dir={tmp_path / 'run'}"])
    assert ended.value.code == 2
    assert "protocol.order" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""How many processes step the robots of a run, by the machine and by what is asked for."""

import warnings

import pytest
import torch
from tiny_runs import FEW_STEPS

from hypercrl.cli import main
from hypercrl.config.schema import TrainConfig
from hypercrl.training import experiment, simulators

GIB = 2**30
GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Says what there is: threads of the run, cores, free memory."""

    def have(threads, cores, free):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(simulators, "cores", lambda: cores)
        monkeypatch.setattr(simulators, "free_bytes", lambda _: free)

    return have


@pytest.mark.parametrize(
    ("threads", "cores", "free", "robots", "wanted"),
    [
        (112, 224, 500 * GIB, 50, 16),
        (8, 16, 500 * GIB, 50, 8),
        (16, 4, 500 * GIB, 50, 4),
        (16, 16, 500 * GIB, 6, 6),
        (16, 16, 3 * GIB, 50, 5),
        (16, 16, GIB // 4, 50, 1),
        (16, 16, None, 50, 16),
    ],
    ids=["most", "threads", "cores", "robots", "memory", "no memory", "memory unknown"],
)
def test_by_default_as_many_as_suit_the_machine(machine, threads, cores, free, robots, wanted):
    machine(threads, cores, free)
    config = TrainConfig(simulators=None)
    assert simulators.processes(config, GPU, robots) == wanted
    assert simulators.processes(config, CPU, robots) == 1


def test_what_is_asked_for_is_done_and_too_many_are_told(machine):
    machine(1, 4, GIB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert simulators.processes(TrainConfig(simulators=4), CPU, 50) == 4
        assert simulators.processes(TrainConfig(simulators=40), CPU, 3) == 3
    with pytest.warns(UserWarning, match="simulators=40 processes share 4 cores .*=4 is quicker"):
        assert simulators.processes(TrainConfig(simulators=40), GPU, 50) == 40


def test_a_run_with_more_than_cores_says_so_and_goes_on(
    tmp_path, monkeypatch, short_episodes, forked_simulators
):
    made, spread = [], experiment.SpreadFleet
    monkeypatch.setattr(simulators, "cores", lambda: 1)

    def watched(sequence, processes):
        made.append(processes)
        return spread(sequence, processes)

    monkeypatch.setattr(experiment, "SpreadFleet", watched)
    with pytest.warns(UserWarning, match="simulators=2 processes share 1 core "):
        main(
            ["train", *FEW_STEPS, "method=finetune", "simulators=2", f"run_dir={tmp_path / 'run'}"]
        )
    assert made == [2]
    assert (tmp_path / "run/result.json").exists()

"""What cannot fit is refused before anything is built, and what fits is not."""

import shlex
from dataclasses import dataclass, replace

import pytest
import torch
from omegaconf import OmegaConf
from test_command_line import TINY, message

from hypercrl.base.settings import number
from hypercrl.config.compose import composed
from hypercrl.dynamics import DynamicsModel
from hypercrl.memory import MemoryConfig
from hypercrl.methods import MethodConfig, make_method
from hypercrl.replay import Replay
from hypercrl.training.footprint import free_bytes, least_bytes

CPU = torch.device("cpu")


def train_config(*words):
    return OmegaConf.to_object(composed("train", words))


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("dynamics.hidden=[1000000000]", "dynamics.hidden"),
        ("planner.samples=1000000000", "planner.samples"),
        ("protocol.replay_capacity=1000000000", "protocol.replay_capacity"),
        ("protocol.batch_size=1000000000", "protocol.batch_size"),
        ("memory=kda memory.writes=1000000000", "memory.writes"),
        ("memory=hopfield memory.form=layer memory.patterns=1000000000", "memory.patterns"),
        ("memory=sse memory.partitions=1000000000", "memory.partitions"),
        ("memory=hybrid 'memory.settings={writes: 1000000000}'", "memory.settings.writes"),
    ],
)
def test_sizes_that_cannot_fit_are_named(word, key, tmp_path, capsys):
    episode = ["protocol.random_steps=60", f"run_dir={tmp_path / 'run'}"]  # room for windows
    said = message(capsys, "train", *TINY, *episode, *shlex.split(word))
    assert f"hypercrl: {key}" in said
    assert "GiB of memory at least, and cpu has" in said
    assert not list(tmp_path.iterdir())


def test_a_memory_of_others_says_what_it_allocates():
    @dataclass
    class Slots(MemoryConfig):
        name: str = "own:Slots"
        slots: int = number(7, allocated=True)
        turns: int = number(3)

    needs = least_bytes(replace(train_config("memory=gru"), memory=Slots(width=10)), 20, 7)
    assert needs["memory.slots"] == 4 * 10 * 7
    assert "memory.turns" not in needs


def test_a_method_of_others_says_what_it_takes():
    @dataclass
    class Twice(MethodConfig):
        name: str = "own:Twice"

        def least_bytes(self, weights):
            return {"method.own": 2 * weights}

    config = replace(train_config("dynamics.hidden=[5]"), method=Twice())
    assert least_bytes(config, 20, 7)["method.own"] == 2 * ((27 + 1) * 5 + (5 + 1) * 20)
    assert not any("dynamics.hidden" in settings for settings in least_bytes(config, 20, 7))


@pytest.mark.parametrize("method", ["hnet", "chunked_hnet", "single", "ewc", "ftl"])
def test_bounds_are_below_what_is_really_allocated(method):
    config = train_config(f"method={method}")
    needs = least_bytes(config, 20, 7)
    hidden = config.dynamics.hidden
    made = make_method(
        DynamicsModel(20, 7, hidden, False), config.method, torch.Generator(), torch.Generator()
    )
    made.begin_task()
    held = [*made.parameters(), *made.buffers()]
    kept = sum(x.numel() * x.element_size() * (4 if x.requires_grad else 1) for x in held)
    (network,) = (v for k, v in needs.items() if "hidden" in k or "features" in k)
    assert 0.3 * kept < network <= kept
    replay = Replay(config.protocol.replay_capacity, 20, 7, CPU)
    assert 0.9 * replay.bytes < needs["protocol.replay_capacity"] <= replay.bytes


def test_what_is_free_is_what_can_be_taken():
    free = free_bytes(CPU)
    assert free is not None
    assert 2**27 < free < 2**50

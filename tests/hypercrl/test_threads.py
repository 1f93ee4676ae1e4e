"""A run keeps its number of threads, and goes on with it: the last digits depend on it."""

import json

import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf

from hypercrl.cli import main

SETTINGS = (
    "preset=smoke",
    "device=cpu",
    "method=finetune",
    "protocol.num_tasks=1",
    "protocol.random_steps=30",
    "protocol.planned_steps=3",
    "protocol.update_every=3",
    "protocol.updates=5",
    "protocol.batch_size=2000",
    "protocol.eval_episodes=1",
    "protocol.final_episodes=1",
    "protocol.heldout_episodes=1",
)


@pytest.fixture
def _one_thread():
    yield
    torch.set_num_threads(1)


def trained(run, threads, *words):
    torch.set_num_threads(threads)  # what the machine offers
    main(["train", *words])
    tensors = safetensors.torch.load_file(run / "checkpoints" / "latest.safetensors")
    return json.loads((run / "result.json").read_text())["scores"], {
        k: v for k, v in tensors.items() if v.dtype == torch.float32
    }


def equal(one, other):
    return one[0] == other[0] and all(torch.equal(one[1][key], other[1][key]) for key in one[1])


@pytest.mark.usefixtures("_one_thread", "short_episodes")
def test_a_run_that_is_resumed_where_there_are_fewer_threads_ends_the_same(tmp_path):
    straight, resumed, alone = (tmp_path / name for name in ("straight", "resumed", "alone"))
    wanted = trained(straight, 2, *SETTINGS, f"run_dir={straight}")
    assert OmegaConf.load(straight / "config.yaml").threads == 2
    # Begun with two threads, and killed before its first step.
    resumed.mkdir()
    (resumed / "config.yaml").write_bytes((straight / "config.yaml").read_bytes())
    (resumed / "metrics.jsonl").touch()
    assert equal(trained(resumed, 1, f"resume={resumed}"), wanted)
    other = trained(alone, 1, *SETTINGS, f"run_dir={alone}")
    assert not equal(other, wanted), "threads make no difference here"

"""A run keeps its number of threads, and goes on with it: the last digits depend on it."""

import json
import os
import subprocess
import sys

import safetensors.torch
import torch
from omegaconf import OmegaConf

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
    "protocol.checkpoint_every=20",
)


def program(*words, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    called = [sys.executable, "-m", "hypercrl", "train", *words]
    subprocess.run(called, env=environment, check=True, capture_output=True, timeout=600)


def learned(run):
    result = json.loads((run / "result.json").read_text())
    tensors = safetensors.torch.load_file(run / "checkpoints" / "latest.safetensors")
    weights = {k: v for k, v in tensors.items() if v.dtype == torch.float32}
    return result["scores"], weights


def equal(one, other):
    return one[0] == other[0] and all(torch.equal(one[1][key], other[1][key]) for key in one[1])


def test_a_run_that_is_resumed_where_there_are_fewer_threads_ends_the_same(tmp_path):
    straight, resumed, alone = (tmp_path / name for name in ("straight", "resumed", "alone"))
    program(*SETTINGS, f"run_dir={straight}", threads=2)
    assert OmegaConf.load(straight / "config.yaml").threads == 2
    # Begun with two threads, and killed before its first step.
    resumed.mkdir()
    (resumed / "config.yaml").write_bytes((straight / "config.yaml").read_bytes())
    (resumed / "metrics.jsonl").touch()
    program(f"resume={resumed}", threads=1)
    program(*SETTINGS, f"run_dir={alone}", threads=1)
    assert equal(learned(straight), learned(resumed))
    assert not equal(learned(straight), learned(alone)), "threads make no difference here"

"""Runs that are saved at every pause and killed, and whether they come to what others come to."""

import json

import numpy as np
import pytest
import torch

from hypercrl.base import interrupts
from hypercrl.cli import main
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.runs.run_folder import RunFolder


def learned(path):
    """All of the last checkpoint but its timings."""
    tree = load_checkpoint(path / "checkpoints/latest.safetensors")
    for name in ("log_bytes", "tallies"):
        tree.pop(name, None)
    return tree


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
    if isinstance(one, dict | list):
        places = one if isinstance(one, dict) else range(len(one))
        assert len(one) == len(other)
        for place in places:
            assert_same(one[place], other[place])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other)
    else:
        assert one == other


def outcome(path):
    result = json.loads((path / "result.json").read_text())
    lines = (path / "metrics.jsonl").read_text().splitlines()
    records = [{k: v for k, v in json.loads(x).items() if k != "milliseconds"} for x in lines]
    kept = ("scores", "success", "prediction_error", "memory_bytes", "updates", "plans")
    return {key: result[key] for key in kept}, records


def saved_and_killed(run, words, deaths, monkeypatch, counts=lambda tree: True):
    """Train, saved at every pause, as the clock would have it, and killed after so many saves, and
    gone on with; where every checkpoint was written. Only those that count are counted."""
    save, saved = RunFolder.save_checkpoint, []

    class Killed(BaseException):
        pass

    def save_and_die(self, name, tree):
        save(self, name, tree)
        if not counts(tree):
            return
        position = tree["position"]
        saved.append((position["task"], position["step"], position["stage"]))
        if len(saved) in deaths:
            raise Killed

    words = [*words, f"run_dir={run}"]
    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "SAVE_SECONDS", 0.0)
        patch.setattr(RunFolder, "save_checkpoint", save_and_die)
        for _ in range(len(deaths)):
            with pytest.raises(Killed):
                main(["train", *words])
            words = [f"resume={run}"]
        main(["train", *words])
    return saved

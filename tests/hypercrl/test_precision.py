"""Plans on a CPU are in bfloat16 where it has the instructions as the run begins, and stay so."""

import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf

from hypercrl.cli import main
from hypercrl.training import run

pytestmark = pytest.mark.usefixtures("short_episodes_throughout")

SETTINGS = (
    "preset=smoke",
    "device=cpu",
    "method=finetune",
    "planner.samples=512",  # of 32, rounding seldom changes who is among the best
    "planner.elites=64",
    "planner.iterations=4",
    "protocol.num_tasks=1",
    "protocol.random_steps=30",
    "protocol.planned_steps=6",
    "protocol.update_every=3",
    "protocol.updates=5",
    "protocol.eval_episodes=1",
    "protocol.final_episodes=1",
    "protocol.heldout_episodes=1",
)


@pytest.fixture
def trained(monkeypatch, tmp_path):
    def train(name, on_such_a_cpu, *words):
        """The precision that config.yaml has, and all that was learned."""
        monkeypatch.setattr(run, "multiplies_bfloat16", lambda: on_such_a_cpu)
        folder = tmp_path / name
        main(["train", *words, f"{'run_dir' if words else 'resume'}={folder}"])
        tensors = safetensors.torch.load_file(folder / "checkpoints" / "latest.safetensors")
        learned = {k: v for k, v in tensors.items() if v.dtype == torch.float32}
        return OmegaConf.load(folder / "config.yaml").planner.precision, learned

    return train


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_keeps_the_precision_that_it_began_with(trained, tmp_path):
    precision, rounded = trained("rounded", True, *SETTINGS)
    assert precision == "bf16"
    other, plain = trained("plain", False, *SETTINGS)
    assert other is None
    assert not equal(plain, rounded), "the precision makes no difference here"
    # Killed before their first steps, and resumed on a processor of the other kind.
    for name, wanted in (("rounded", rounded), ("plain", plain)):
        again = tmp_path / f"{name} again"
        again.mkdir()
        (again / "config.yaml").write_bytes((tmp_path / name / "config.yaml").read_bytes())
        (again / "metrics.jsonl").touch()
        assert equal(trained(again.name, name == "plain")[1], wanted)


def test_a_precision_that_is_asked_for_is_kept(trained):
    precision, exact = trained("exact", True, *SETTINGS, "planner.precision=ieee")
    assert precision == "ieee"
    assert equal(exact, trained("plain", False, *SETTINGS)[1])

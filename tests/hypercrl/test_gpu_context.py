"""Memories and their contexts on a CUDA device: run with -m gpu on a machine that has one."""

import copy
import json

import pytest
import torch

from hypercrl.agent.belief import EpisodeMemory
from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.cli import main
from hypercrl.dynamics.conditioning import make_conditioning
from hypercrl.dynamics.context_model import ContextConfig, ContextModel
from hypercrl.memory import MEMORIES, make_memory
from hypercrl.methods import METHODS, Batch, make_method

pytestmark = pytest.mark.gpu


def make_model(memory, into="input", protect="freeze"):
    g = torch.Generator().manual_seed(0)
    encoder = make_memory(MEMORIES[memory][1](name=memory), 6, g)
    conditioning = make_conditioning(into, encoder.context_size, [32, 32])
    config = ContextConfig(into=into, burn_in=6, horizon=4, protect=protect)
    return ContextModel(2, 2, [32, 32], False, encoder, conditioning, config)


def windows(seed, count, length=10):
    g = torch.Generator().manual_seed(seed)
    obs, action = (
        torch.randn(count, length, 2, generator=g),
        torch.randn(count, length, 2, generator=g),
    )
    return obs.cuda(), action.cuda(), (obs + 0.3 * action).cuda()


@pytest.mark.parametrize("memory", ["gru", "gated_deltanet"])
@pytest.mark.parametrize(
    ("name", "into", "protect"),
    [
        ("finetune", "film", "distil"),
        ("hnet", "input", "freeze"),
        ("hnet", "input", "distil"),
        ("hnet", "hypernetwork", "freeze"),
    ],
)
def test_captured_training_steps_are_the_eager_ones(name, into, protect, memory):
    model = make_model(memory, into, protect)
    config = METHODS[name][1](name, 1e-3, 5.0)
    eager, graph = (
        make_method(
            copy.deepcopy(model),
            config,
            torch.Generator().manual_seed(0),
            torch.Generator("cuda").manual_seed(1),
        )
        for _ in range(2)
    )
    for task in range(2):
        eager.begin_task()
        graph.begin_task()
        captured = CapturedFunction(
            lambda *parts: tuple(graph.training_step(Batch(*parts)).values()), [graph.sampler]
        )
        for step in range(8):
            parts = windows(100 * task + step, 16)
            wanted = list(eager.training_step(Batch(*parts)).values())
            for a, b in zip(captured(*parts), wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=5e-3, atol=1e-4)
        assert captured._graph is not None


@pytest.mark.parametrize("memory", [name for name in MEMORIES if name != "none"])
def test_a_captured_memory_remembers_what_an_eager_one_does(memory):
    model = make_model(memory).cuda()
    layers = model.layout.split(model.layout.initial(torch.Generator().manual_seed(1)).cuda())
    graph, eager = (
        EpisodeMemory(model, 3, lambda context: model.planning_layers(layers, 0, context))
        for _ in range(2)
    )
    eager._update = eager._take_in
    for episode in range(2):
        obs, action, next_obs = windows(episode, 3)
        for belief in (graph, eager):
            belief.reset()
        for t in range(10):
            for belief in (graph, eager):
                belief.observe(obs[:, t], action[:, t], next_obs[:, t])
            for (w, b), (w_eager, b_eager) in zip(graph.layers(), eager.layers(), strict=True):
                torch.testing.assert_close(w, w_eager, rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(b, b_eager, rtol=1e-3, atol=1e-4)
    assert graph._update._graph is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "settings",
    [
        ("memory=gated_deltanet", "context.into=hypernetwork"),
        ("memory=gru", "method=finetune", "context.into=film"),
        ("memory=titans_mac", "method=single"),
        (
            "memory=gru",
            "task_id=inferred",
            "inference.settle=5",
            "inference.allowance=1",
            "inference.alarm=1",
        ),
    ],
    ids=lambda settings: settings[0].partition("=")[2] + "-" + settings[1].partition("=")[2],
)
def test_a_run_on_the_gpu_ends_and_plays_on_the_cpu(settings, tmp_path):
    run = tmp_path / "run"
    main(["train", "preset=smoke", "device=cuda", "env=push_hidden", *settings, f"run_dir={run}"])
    result = json.loads((run / "result.json").read_text())
    assert result["device"] == "cuda"
    assert result["memory_step_milliseconds"] > 0
    main(["play", f"run={run}", "task=1", "episodes=1", "device=cpu"])

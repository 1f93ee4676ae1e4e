"""Multi-query associative recall: what a memory of a given size can hold.

Arora et al., "Zoology: measuring and improving recall in efficient language models", ICLR 2024,
over transitions: a token is a key, where the robot is, and a value, what changed. A query is a key
whose value is left out.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.base.device import choose_device
from hypercrl.base.errors import UserError
from hypercrl.base.random_streams import RandomStreams
from hypercrl.base.settings import check
from hypercrl.config.schema import RecallConfig
from hypercrl.memory import MemoryConfig, MemoryEncoder, make_memory
from hypercrl.training.result import git_revision, machine

KEY_WIDTH = 16
VALUES = 16
"""Different values; recall by chance is one in so many."""

HALVINGS = 3
"""Training sequences have P, P/2 … P/2^HALVINGS different pairs, the fewer the oftener written."""

WARM_UP = 0.05
"""Fraction of the steps in which the learning rate rises; after that it falls as a cosine."""


def recall_batch(
    batch: int, pairs: int, distinct: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sequences that write pairs and then ask for them, in random order.

    Args:
        batch: B.
        pairs: P, writes and queries of a sequence.
        distinct: [B] how many different pairs there are; they are written in turn.

    Returns:
        Tokens [B, 2 P, KEY_WIDTH + VALUES], on the device of the generator, and the values' indices
        at the P queries, [B, P]. Keys are random directions, new in every sequence.
    """
    device = generator.device
    keys = torch.randn(batch, pairs, KEY_WIDTH, generator=generator, device=device)
    keys = math.sqrt(KEY_WIDTH) * F.normalize(keys, dim=-1)
    labels = torch.randint(VALUES, (batch, pairs), generator=generator, device=device)
    shuffled = torch.rand(batch, pairs, generator=generator, device=device).argsort(1)
    written = torch.arange(pairs, device=device) % distinct[:, None]
    asked = shuffled % distinct[:, None]

    def at(x: Tensor, places: Tensor) -> Tensor:
        return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))

    values = math.sqrt(VALUES) * F.one_hot(labels, VALUES).to(keys.dtype)
    writes = torch.cat([at(keys, written), at(values, written)], -1)
    queries = torch.cat([at(keys, asked), torch.zeros_like(values)], -1)
    return torch.cat([writes, queries], 1), labels.gather(1, asked)


class Recall(nn.Module):
    """An encoder, and an affine map from its context to the value that was asked for."""

    def __init__(self, memory: MemoryEncoder, generator: torch.Generator) -> None:
        super().__init__()
        self.memory = memory
        self.readout = nn.Parameter(
            torch.randn(VALUES, memory.context_size, generator=generator)
            / math.sqrt(memory.context_size)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, 2 P, X] → logits [B, P, VALUES] at the queries."""
        contexts, _ = self.memory.encode(tokens)
        return F.linear(contexts[:, tokens.shape[1] // 2 :], self.readout)


def measure_recall(
    config: RecallConfig, place: AbstractContextManager[object] | None = None
) -> dict[str, Any]:
    """Train the encoder and measure what it recalls, as JSON values.

    Args:
        place: is entered once no setting is refused any more, such as where the result is to go.

    Raises:
        UserError: settings that do not fit together, or no such device.
    """
    check(config)
    device = choose_device(config.device)
    streams = RandomStreams(config.seed)
    try:
        memory = make_memory(_fitting(config), KEY_WIDTH + VALUES, streams.get("initial"))
    except ValueError as error:
        raise UserError(str(error)) from error
    if memory.context_size == 0:
        raise UserError(f"memory={config.memory.name} remembers nothing; choose another.")
    model = Recall(memory, streams.get("initial")).to(device)
    git = git_revision()
    with place or nullcontext():
        began = time.perf_counter()
        loss = _train(model, config, streams.get("training", device))
        seconds = time.perf_counter() - began
        return {
            "memory": config.memory.name,
            "label": label(config),
            "width": config.memory.width,
            "seed": config.seed,
            "preset": config.preset,
            "pairs": config.pairs,
            "steps": config.steps,
            "recall": _recall(model, config, streams.get("test", device)),
            "loss": loss,
            "state_bytes": memory.state_bytes(),
            "parameters": sum(p.numel() for p in memory.parameters()),
            "seconds": seconds,
            "git": git,
            "machine": machine(device),
        }


def _fitting(config: RecallConfig) -> MemoryConfig:
    """The encoder's settings, with no window longer than a sequence: the rest would be empty."""
    memory: Any = config.memory
    if not hasattr(memory, "window"):
        return memory
    return replace(memory, window=min(memory.window, 2 * config.pairs))


def label(config: RecallConfig) -> str:
    """What a figure calls the encoder: its name, and settings of its own that are not the usual."""
    memory: Any = config.memory
    said = {f.name for f in fields(MemoryConfig)}
    own = {f.name: getattr(memory, f.name) for f in fields(memory) if f.name not in said}
    usual = vars(type(memory)())
    name = memory.name
    if name == "hybrid":
        name = f"{own.pop('linear')} {own.pop('ratio')}:1"
        own |= own.pop("settings") or {}
    chosen = (f"{key} {value}" for key, value in own.items() if value != usual.get(key))
    return ", ".join((name, *chosen))


def _train(model: Recall, config: RecallConfig, generator: torch.Generator) -> float:
    """Train; returns the mean loss of the last tenth of the steps."""
    device = generator.device
    rate = torch.tensor(config.learning_rate, device=device)
    on_gpu = device.type == "cuda"
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, fused=True, capturable=on_gpu)

    def step(now: Tensor) -> tuple[Tensor]:
        rate.copy_(now)
        halvings = torch.randint(
            HALVINGS + 1, (config.batch_size,), generator=generator, device=device
        )
        distinct = config.pairs // 2**halvings
        tokens, labels = recall_batch(config.batch_size, config.pairs, distinct, generator)
        loss = F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
        optimiser.zero_grad()
        (loss + model.memory.auxiliary_loss()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimiser.step()
        return (loss.detach(),)

    run = CapturedFunction(step, [generator]) if on_gpu else step
    losses = torch.zeros(config.steps, device=device)
    for i in range(config.steps):
        now = torch.tensor(config.learning_rate * _schedule(i, config.steps), device=device)
        (losses[i],) = run(now)
    return losses[-max(config.steps // 10, 1) :].mean().item()


def _schedule(step: int, steps: int) -> float:
    rising = WARM_UP * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


@torch.no_grad()
def _recall(model: Recall, config: RecallConfig, generator: torch.Generator) -> dict[str, float]:
    """Different pairs in a sequence → fraction of queries that are answered rightly."""
    result = {}
    for halving in range(HALVINGS + 1):
        pairs = config.pairs // 2**halving
        right = []
        for first in range(0, config.test_sequences, config.batch_size):
            size = min(config.batch_size, config.test_sequences - first)
            distinct = torch.full((size,), pairs, device=generator.device)
            tokens, labels = recall_batch(size, config.pairs, distinct, generator)
            right.append((model(tokens).argmax(-1) == labels).float().flatten())
        result[str(pairs)] = torch.cat(right).mean().item()
    return result

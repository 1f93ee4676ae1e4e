"""A trained model, and the whole of `Agent.act` with it, as torch.export and ONNX programs."""

import copy
import itertools
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypercrl.base.errors import UserError, first_line, unwritable
from hypercrl.planning import Planner
from hypercrl.training.experiment import Experiment
from hypercrl_envs import Task
from hypercrl_kernels import GaussianLayers, Layers, mean_layers, rollout

TOLERANCE = 1e-5
"""Largest difference between a program and what it was made of."""

CHECKS, ROBOTS = 9, 4
"""Inputs on which they are compared, and robots of one input of the dynamics."""

Noise = tuple[Tensor, ...]


class Dynamics(nn.Module):
    """obs [B, O], action [B, A] → next_obs [B, O], and its standard deviation where there is one.

    The equations are those of `hypercrl_kernels.GaussianLayers`.

    Args:
        layers: in observation units, of one network.
    """

    def __init__(self, layers: Layers | GaussianLayers) -> None:
        super().__init__()
        parts = [tensor for layer in mean_layers(layers) for tensor in layer]
        self.parts = nn.ParameterList(_constant(p) for p in parts)
        self.variance = None
        if isinstance(layers, GaussianLayers):
            own = (*layers.head, layers.bounds)
            self.variance = nn.ParameterList(_constant(p) for p in own)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        parts = list(self.parts)
        x = torch.cat([obs, action], -1)
        for weight, bias in zip(parts[:-2:2], parts[1:-2:2], strict=True):
            x = nn.functional.linear(x, weight, bias).relu()
        next_obs = obs + nn.functional.linear(x, parts[-2], parts[-1])
        if self.variance is None:
            return (next_obs,)
        weight, bias, bounds = self.variance
        least, inverse_most, scale = bounds
        raw = nn.functional.linear(x, weight, bias)
        return next_obs, scale * (least + (inverse_most + (-raw).exp()).reciprocal()).sqrt()

    def roll_out(self, obs: Tensor, actions: Tensor) -> Tensor:
        """The mean trajectories of `hypercrl_kernels.rollout`, written without storing in place."""
        state = obs[:, None].expand(-1, actions.shape[1], -1)
        states = [state]
        for step in range(actions.shape[2]):
            state = self(state, actions[:, :, step])[0]
            states.append(state)
        return torch.stack(states, 2)


class Act(nn.Module):
    """obs [1, O], start [1, N, H, A], noise of each iteration [1, K, H, A] → action [1, A], start.

    All that is random comes in as noise, and what is carried from one step to the next goes out.
    """

    def __init__(self, planner: Planner, dynamics: Dynamics, env: Task) -> None:
        super().__init__()
        self.planner, self.dynamics, self.env = copy.copy(planner), dynamics, env

    def forward(self, obs: Tensor, start: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        self.planner.noise = lambda robots, generator: noise  # noqa: ARG005
        rewarded = self.dynamics.roll_out, self.env.reward
        unused = torch.Generator()
        return self.planner.plan(*rewarded, obs, start, unused, termination=self.env.termination)


def _constant(value: Tensor) -> nn.Parameter:
    # Of its own: a view of a larger tensor is saved as all of it.
    return nn.Parameter(value.clone(), requires_grad=False)


def export_dynamics(experiment: Experiment, task: int, env: Task, out: Path, form: str) -> float:
    """Write the dynamics model of task `task` (from 0); B is free.

    Args:
        form: "torch_export" or "onnx".

    Returns:
        The largest difference from the original, in units of it where it is above 1.

    Raises:
        UserError: a model that is not one network, or a difference above `TOLERANCE`.
    """
    layers, generator = _layers(experiment, task), torch.Generator().manual_seed(0)

    def original(obs: Tensor, action: Tensor) -> list[Tensor]:
        step = layers, obs, action[:, None, None], "ieee"
        mean = rollout(*step)[:, 0, 1]
        if not isinstance(layers, GaussianLayers):
            return [mean]
        return [mean, rollout(*step, torch.ones_like(obs)[:, None, None])[:, 0, 1] - mean]

    size = (ROBOTS, experiment.model.action_size)
    starts = _starts(env, CHECKS * ROBOTS).split(ROBOTS)
    inputs = [(obs, 2 * torch.rand(size, generator=generator) - 1) for obs in starts]
    wanted = [original(*given) for given in inputs]
    free = {0: torch.export.Dim("batch")}
    program = _program(Dynamics(layers), inputs[0], (free, free))
    names = ["obs", "action"], ["next_obs", "std"][: len(wanted[0])]
    with _new_file(out) as partial:
        run = _write(program, partial, form, *names)
        differences = map(_difference, itertools.starmap(run, inputs), wanted)
        return _accepted(max(differences), partial, out)


def export_act(experiment: Experiment, task: int, env: Task, out: Path, form: str) -> float:
    """Write `Agent.act` of task `task` (from 0) for one robot: the search, the model, the reward.

    Returns:
        The median difference from the original: where two sequences pay alike up to rounding, one
        plan may choose another elite than the other.

    Raises:
        UserError: a model that is not one network, sampled states, a search for policies, a value
            behind the end of plans, a reward that cannot be traced, or a difference above
            `TOLERANCE`.
    """
    layers, planner = _layers(experiment, task), experiment.planner
    if planner.config.sampled:
        raise UserError("planner.sampled=true draws states inside of a plan: use part=dynamics.")
    if experiment.values:
        raise UserError("value.kind=td counts a learned value behind a plan: use part=dynamics.")
    if planner.follows:
        raise UserError("planner=policy rolls out with policies: use part=dynamics.")
    generator = torch.Generator()

    def original(obs: Tensor, start: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        def imagine(obs: Tensor, actions: Tensor) -> Tensor:
            return rollout(layers, obs, actions, "ieee")

        search = obs, start, generator.manual_seed(seed)
        return planner.plan(imagine, env.reward, *search, termination=env.termination)

    start, inputs, wanted = planner.initial(1), [], []
    for seed, obs in enumerate(_starts(env, CHECKS).split(1)):
        noise = tuple(part.clone() for part in planner.noise(1, generator.manual_seed(seed)))
        inputs.append((obs, start, noise))
        wanted.append(original(obs, start, seed))
    program = _program(Act(planner, Dynamics(layers), env), inputs[0], None)
    noises = [f"noise_{iteration}" for iteration in range(len(inputs[0][2]))]
    names = ["obs", "start", *noises], ["action", "next_start"]
    with _new_file(out) as partial:
        run = _write(program, partial, form, *names)
        differences = map(_difference, itertools.starmap(run, inputs), wanted)
        return _accepted(median(differences), partial, out)


def _starts(env: Task, count: int) -> Tensor:
    """Observations [count, O] at the beginning of episodes."""
    return torch.from_numpy(np.stack([env.reset(seed=seed)[0] for seed in range(count)]))


def _layers(experiment: Experiment, task: int) -> Layers | GaussianLayers:
    """The network of a task whose agent observes nothing that would change it."""
    if experiment.plans_with_simulator:
        raise UserError("planner.dynamics=simulator has no model to export.")
    belief = experiment.labels.belief(task, 1)
    if belief.changes:
        raise UserError(
            "an agent with a memory, or one that infers its task, plans with a network that "
            "changes with what it observes; export a run with memory=none and task_id=given."
        )
    if belief.hypotheses > 1:
        raise UserError("an ensemble is several networks; export a run with method.members=1.")
    return belief.layers()


def _program(
    module: nn.Module, inputs: tuple[Any, ...], shapes: Any
) -> torch.export.ExportedProgram:
    module(*inputs)  # constants of the reward are made before the trace, not in it
    try:
        with torch.no_grad():
            return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    # Whatever operations a reward is made of; torch has many errors for those that it cannot trace.
    except Exception as error:
        raise UserError(f"torch.export cannot trace this: {first_line(error)}") from error


def _write(
    program: torch.export.ExportedProgram,
    path: Path,
    form: str,
    inputs: list[str],
    outputs: list[str],
) -> Callable[..., Sequence[Tensor]]:
    """Write the program; returns what runs the file that was written."""
    if form == "torch_export":
        packed = BytesIO()  # torch says RuntimeError where a file cannot be written
        torch.export.save(program, packed)
        path.write_bytes(packed.getvalue())
        return torch.export.load(path).module()
    try:
        onnxruntime, onnxscript = import_module("onnxruntime"), import_module("onnxscript")
    except ImportError as error:
        raise UserError(f"format=onnx needs {error.name}: pip install 'hypercrl[onnx]'") from error
    operations = onnxscript.opset18

    def stable_sort(values: Any, dim: int = -1, descending: bool = False, **_: bool) -> Any:
        # Of equal values TopK has the first one first.
        size = operations.Gather(operations.Shape(values), operations.Constant(value_ints=[dim]))
        return operations.TopK(values, size, axis=dim, largest=int(descending), sorted=1)

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            written = torch.onnx.export(
                program,
                input_names=inputs,
                output_names=outputs,
                custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(
                f"ONNX cannot say this: {first_line(error.__cause__ or error)}"
            ) from error
    assert written is not None
    written.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*given: Any) -> list[Tensor]:
        flat = [t for part in given for t in (part if isinstance(part, tuple) else (part,))]
        feed = {i.name: t.numpy() for i, t in zip(session.get_inputs(), flat, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return run


def _difference(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    pairs = zip(got, wanted, strict=True)
    return max(float(((g - w).abs() / w.abs().clamp_min(1)).max()) for g, w in pairs)


def _accepted(difference: float, partial: Path, out: Path) -> float:
    if not difference <= TOLERANCE:
        raise UserError(
            f"the program differs from the original by {difference:.1e}, more than {TOLERANCE:g}; "
            "nothing was written. Where many sequences pay exactly alike, another runtime may "
            "choose among them otherwise; planner=cem, or a reward that tells them apart, helps."
        )
    os.replace(partial, out)
    return difference


@contextmanager
def _new_file(out: Path) -> Iterator[Path]:
    """A place beside `out`, empty again afterwards.

    Raises:
        Unwritable: nothing can be written there.
    """
    partial = out.with_name(f".{out.stem}.{os.getpid()}.partial{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)

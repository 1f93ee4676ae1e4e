"""What rounding in the kernels of hnet's training step does to it, and the step's time.

Single steps of the push tasks' hypernetwork at 2, 19 and 100 old tasks, each from the same point,
with the fused kernels, with autograd in float32 and with autograd in float64, which errors are
relative to. R is the head's gradient of the regulariser alone, in torch operations or by a kernel.
Then how far theta is from float64's after fifty steps in a row, for a few draws, and times, by
turns. `--before` names folders with other versions of files of hypercrl_kernels/training.

    python scripts/step_errors.py --before FOLDER --out OUT.txt
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import torch
from bench_timing import Clock, Times
from bench_training import make_batch, make_hnet
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedFunction, CapturedSteps
from hypercrl.methods import Batch
from hypercrl.methods.hnet import Hnet
from hypercrl_kernels import training
from hypercrl_kernels.training import AdamMoments, AdamSettings, regularised_head_launch
from hypercrl_kernels.training.regularised_head_reference import regularised_head_reference

OLD_TASKS = (2, 19, 100)
STEPS = 5
LAUNCHES = [
    import_module(f"{training.__name__}.{each.name}")
    for each in iter_modules(training.__path__)
    if each.name.endswith("_launch")
]


def versions(folders: list[Path]) -> dict[str, dict[str, Any]]:
    """The kernels that are launched by name, the present ones and those of each folder."""
    present = {
        name: x
        for module in LAUNCHES
        for name, x in vars(module).items()
        if name.endswith("_kernel")
    }
    found = {"present": present}
    for folder in folders:
        other = dict(present)
        for path in sorted(folder.glob("*_triton.py")):
            spec = importlib.util.spec_from_file_location(f"{folder.name}_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            other |= {name: x for name, x in vars(module).items() if name in present}
        found[folder.name] = other
    return found


def use(kernels: dict[str, Any]) -> None:
    for module in LAUNCHES:
        for name in kernels.keys() & vars(module).keys():
            setattr(module, name, kernels[name])


def doubled(batch: Batch) -> Batch:
    return Batch(batch.obs.double(), batch.action.double(), batch.next_obs.double())


def by_autograd(hnet: Hnet) -> Hnet:
    hnet.why_not_fused = lambda: "compared with"  # pyright: ignore[reportAttributeAccessIssue]
    hnet._on_gpu = lambda: False  # pyright: ignore[reportAttributeAccessIssue]
    return hnet


@torch.no_grad()
def go_where(exact: Hnet, hnet: Hnet) -> None:
    """Take another one's parameters and moments."""
    for own, other in zip(hnet.parameters(), exact.parameters(), strict=True):
        own.copy_(other)
    for own_adam, adam in zip(hnet.optimisers, exact.optimisers, strict=True):
        for own, other in zip(
            own_adam.param_groups[0]["params"], adam.param_groups[0]["params"], strict=True
        ):
            for name, moment in own_adam.state[own].items():
                moment.copy_(adam.state[other][name])


def make(old_tasks: int, device: torch.device) -> Hnet:
    """Autograd's gradients would be left clipped, the kernels' are not."""
    hnet = make_hnet(old_tasks, device)
    hnet.config.clip_norm = 1e9
    return hnet


def gradients(hnet: Hnet) -> dict[str, Tensor]:
    theta, embedding = hnet.hypernetwork.theta.grad, hnet.embeddings[-1].grad
    assert theta is not None
    assert embedding is not None
    cut = hnet.hypernetwork.trunk.numel
    return {
        n: g.double() for n, g in (("trunk", theta[:cut]), ("head", theta[cut:]), ("e", embedding))
    }


def step_errors(
    old_tasks: int, ways: dict[str, dict[str, Any]], device: torch.device
) -> dict[str, dict[str, float]]:
    """Root mean square over steps of every group's relative error, and of the step's."""
    batch = make_batch(device)
    exact = by_autograd(make(old_tasks, device)).double()
    exact.optimisers = exact._new_optimisers()
    methods = {"autograd": by_autograd(make(old_tasks, device))}
    methods |= {name: make(old_tasks, device) for name in ways}
    squares: dict[str, dict[str, float]] = {name: {} for name in methods}
    for _ in range(STEPS):
        start = exact.hypernetwork.theta.detach().clone()
        exact.training_step(doubled(batch))
        wanted = gradients(exact)
        moved = exact.hypernetwork.theta.detach() - start
        for name, method in methods.items():
            use(ways.get(name, ways["present"]))
            method.training_step(batch)
            found = gradients(method)
            off = method.hypernetwork.theta.detach().double() - exact.hypernetwork.theta.detach()
            errors = {n: float((found[n] - g).norm() / g.norm()) for n, g in wanted.items()}
            errors["Δθ"] = float(off.norm() / moved.norm())
            for group, error in errors.items():
                squares[name][group] = squares[name].get(group, 0.0) + error**2 / STEPS
            go_where(exact, method)
    return {n: {g: x**0.5 for g, x in found.items()} for n, found in squares.items()}


def fifty_steps(
    old_tasks: int, draw: int, ways: dict[str, dict[str, Any]], device: torch.device
) -> dict[str, float]:
    """How far theta is from float64's, of the way it went."""
    exact = by_autograd(make_hnet(old_tasks, device)).double()
    exact.optimisers = exact._new_optimisers()
    methods = {"autograd": by_autograd(make_hnet(old_tasks, device))}
    methods |= {name: make_hnet(old_tasks, device) for name in ways}
    start = exact.hypernetwork.theta.detach().clone()
    generator = torch.Generator().manual_seed(draw)
    for _ in range(50):
        obs = torch.randn(100, 10, generator=generator)
        action = torch.rand(100, 2, generator=generator) * 2 - 1
        next_obs = obs + 0.1 * torch.cat(5 * [action], -1)
        batch = Batch(*(t.to(device) for t in (obs, action, next_obs)))
        exact.training_step(doubled(batch))
        for name, method in methods.items():
            use(ways.get(name, ways["present"]))
            method.training_step(batch)
    end = exact.hypernetwork.theta.detach()
    far = (end - start).norm()
    return {
        name: float((method.hypernetwork.theta.detach().double() - end).norm() / far)
        for name, method in methods.items()
    }


def head_alone(old_tasks: int, device: torch.device) -> tuple[tuple[Any, ...], Tensor]:
    """Arguments of `regularised_head` without a task loss, and the gradient that is right."""
    hnet = make_hnet(old_tasks, device)
    net = hnet.hypernetwork
    head = net.theta.detach()[net.trunk.numel :]
    old = net.hidden(hnet.old)[-1].detach()
    moments = AdamMoments(
        torch.tensor(3.0, device=device), *(torch.zeros_like(head) for _ in range(2))
    )
    zeros = torch.zeros(hnet.targets.shape[1], device=device), torch.zeros_like(old[0])
    arguments = (moments, AdamSettings(1e-4), *zeros, old, hnet.targets, None, 5.0)
    wanted = torch.empty_like(head, dtype=torch.float64)
    slope, hidden, old, targets = (t.double() for t in (*zeros, old, hnet.targets))
    regularised_head_reference(
        head.double(), wanted, AdamMoments(*(t.double() for t in moments)), AdamSettings(1e-4),
        slope, hidden, old, targets, None, 5.0,
    )  # fmt: skip
    return (head, *arguments), wanted


def captured_steps(old_tasks: int, device: torch.device) -> Callable[[], Any]:
    """As many steps as a run puts into one graph."""
    hnet, batch = make_hnet(old_tasks, device), make_batch(device)

    def steps(*parts: Tensor) -> tuple[Tensor, ...]:
        reports = [hnet.training_step(Batch(*parts)) for _ in range(CapturedSteps.AT_ONCE)]
        return tuple(reports[-1].values())

    captured = CapturedFunction(steps)
    return lambda: captured(batch.obs, batch.action, batch.next_obs)


def head_error(compute: Callable[..., Any], arguments: tuple[Any, ...], wanted: Tensor) -> float:
    gradient = torch.full_like(arguments[0], torch.nan)
    compute(arguments[0], gradient, *arguments[1:])
    return float((gradient.double() - wanted).norm() / wanted.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="other versions")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="file for the lines")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ways, clock, lines = versions(arguments.before), Clock(device), []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    say("relative errors of gradients    trunk    head    e       Δθ      R")
    for old_tasks in OLD_TASKS:
        given, wanted = head_alone(old_tasks, device)
        alone = {"autograd": head_error(regularised_head_reference, given, wanted)}
        if device.type == "cuda":
            for name, kernels in ways.items():
                use(kernels)
                alone[name] = head_error(
                    regularised_head_launch.launch_regularised_head, given, wanted
                )
        for name, errors in step_errors(old_tasks, ways, device).items():
            found = [*errors.values(), alone.get(name, float("nan"))]
            say(f"{old_tasks:4} old  {name:20} " + " ".join(f"{x:.1e}" for x in found))
    say(f"theta after fifty steps, {arguments.draws} draws")
    for old_tasks in OLD_TASKS:
        found = [fifty_steps(old_tasks, draw, ways, device) for draw in range(arguments.draws)]
        for name in found[0]:
            say(f"{old_tasks:4} old  {name:20} " + " ".join(f"{f[name]:.1e}" for f in found))
    if device.type == "cuda":
        say("µs                               a step              the head alone")
        for old_tasks in OLD_TASKS:
            given, _ = head_alone(old_tasks, device)
            gradient = torch.empty_like(given[0])
            steps, heads = {}, {}
            for name, kernels in ways.items():
                use(kernels)
                steps[name] = captured_steps(old_tasks, device)
                clock.events(steps[name], 3)  # captured with this kernel

                def head(given: tuple[Any, ...] = given, gradient: Tensor = gradient) -> None:
                    regularised_head_launch.launch_regularised_head(given[0], gradient, *given[1:])

                heads[name] = head
            found = {name: ([], []) for name in ways}
            for _ in range(arguments.rounds):
                for name, kernels in ways.items():
                    whole = Times.of(clock.events(steps[name], 30)).median
                    found[name][0].append(whole / CapturedSteps.AT_ONCE)
                    use(kernels)
                    found[name][1].append(clock.graph(heads[name]).median)
            for name, (of_steps, of_heads) in found.items():
                say(f"{old_tasks:4} old  {name:20} {Times.of(of_steps)} {Times.of(of_heads)}")
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

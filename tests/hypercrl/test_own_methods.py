"""A method of somebody's own: what it keeps has to be in its checkpoints, or it is refused."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from test_context import make_model
from torch import Tensor

from hypercrl.base.errors import UserError
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import METHODS, Batch, MethodConfig, make_method
from hypercrl.methods.gradient import SharedMethod
from hypercrl.methods.trial import try_out


class Plain(SharedMethod):
    """One that keeps nothing but its network."""

    config: MethodConfig
    conditionings = ("input",)
    ensembles = True


class Lists(Plain):
    """Rehearses what lies in a list."""

    def _prepare(self) -> None:
        super()._prepare()
        self.kept: list[Batch] = []

    def _rehearse(self, size: int) -> Tensor | None:
        losses = [self.model.loss(self.weights(i), batch) for i, batch in enumerate(self.kept)]
        return sum(losses) if losses else None  # type: ignore[return-value]

    def end_task(self, batch: Batch) -> None:
        self.kept.append(batch)


class Counts(Plain):
    """Its rate falls with what it has been shown, of which a number tells."""

    seen = 0

    def observe(self, batch: Batch) -> None:
        self.seen += len(batch)

    def _protect(self, size: int) -> Tensor | None:
        for parameter in self._trained():
            assert parameter.grad is not None
            parameter.grad /= 1 + self.seen


class Draws(Plain):
    """Rehearses by numbers from elsewhere than its generators."""

    def _protect(self, size: int) -> Tensor | None:
        assert self.network.trunk.grad is not None
        self.network.trunk.grad += torch.randn_like(self.network.trunk)


class Logs(Plain):
    """Keeps a number that nothing depends on."""

    steps = 0

    def _stepped(self) -> None:
        self.steps += 1


class Pairs(Plain):
    def _weights(self, task: int) -> Tensor:
        return super()._weights(task).expand(2, -1)


class Silent(Plain):
    def training_step(self, batch: Batch) -> Any:
        return {"loss": super().training_step(batch)["loss"]}


class Numbers(Plain):
    def _rehearse(self, size: int) -> Any:
        return 0.5


class Unsummed(Plain):
    def _rehearse(self, size: int) -> Tensor | None:
        return self.network.trunk


class Pays(Plain):
    def _protect(self, size: int) -> Any:
        return {"penalty": 1.0}


class Names(Plain):
    def _trained(self) -> Any:
        return ["trunk"]


class Empty(Plain):
    def _weights(self, task: int) -> Any:
        return None


class Reports(Plain):
    def training_step(self, batch: Batch) -> Any:
        return super().training_step(batch) | {"loss": 0.0}


class Raises(Plain):
    def end_task(self, batch: Batch) -> None:
        raise IndexError("nothing there")


class Ends(Plain):
    def end_task(self, batch: Batch) -> None:
        raise SystemExit(0)


@dataclass
class Needed(MethodConfig):
    """What the examples' own settings are like."""


def made(kind: type[Plain], model: DynamicsModel | None = None, members: int = 1) -> Plain:
    config = Needed(f"{__name__}:{kind.__name__}", 1e-3, 5.0, members)
    model = model or DynamicsModel(3, 2, [8], False)
    found = make_method(model, config, *(torch.Generator().manual_seed(i) for i in range(2)))
    assert isinstance(found, kind)
    return found


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Lists, "once it is saved and loaded, network.trunk becomes something else than without"),
        (Counts, "once it is saved and loaded, network.trunk becomes something else than without"),
        (Draws, "once it is saved and loaded, network.trunk becomes something else than without"),
        (Pairs, r"weights\(0\) are \(2, 75\) where the network has \(75,\)"),
        (Silent, "training_step returned no regulariser and no gradient_norm"),
        (Numbers, r"_rehearse returned 0\.5 where a scalar tensor or None is wanted\.$"),
        (Unsummed, r"_rehearse returned a tensor \(48,\) where a scalar tensor or None is wanted"),
        (Pays, r"_protect returned \{'penalty': 1\.0\} where a scalar tensor or None is wanted"),
        (Names, "_trained returned a list of str where a list of nn.Parameter is wanted"),
        (Empty, "_weights returned None where a tensor is wanted"),
        (Reports, r"training_step returned \{'loss': 0\.0\} where a dict of scalar tensors is wan"),
        (Ends, r"trying it called sys.exit\(0\)"),
        (Raises, r"trying it raised IndexError: nothing there \(test_own_methods.py, line "),
    ],
)
def test_one_that_a_run_could_not_go_on_with_is_refused(kind, message):
    with pytest.raises(UserError, match=f"^method={__name__}:{kind.__name__}: {message}"):
        made(kind)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", [Plain, Logs])
def test_one_that_keeps_all_in_its_checkpoints_is_taken(kind, members):
    assert made(kind, members=members).tasks == 0


def test_with_a_memory_it_is_tried_on_windows():
    model = make_model()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    assert made(Plain, model).tasks == 0
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    with pytest.raises(UserError, match="once it is saved and loaded"):
        made(Counts, model)


def test_a_trial_draws_nothing_that_training_would():
    alone = SharedMethod(
        DynamicsModel(3, 2, [8], False),
        Needed("alone", 1e-3, 5.0),
        *(torch.Generator().manual_seed(i) for i in range(2)),
    )
    alone.begin_task()
    tried = made(Plain)
    tried.begin_task()
    assert torch.equal(alone.weights(0), tried.weights(0))


@pytest.mark.parametrize("name", METHODS)
def test_all_of_the_program_pass(name):
    kind, schema = METHODS[name]
    config = schema(name, 1e-3, 5.0)
    for setting, value in {"retrain_updates": 3, "features": 20, "hidden": [8]}.items():
        if hasattr(config, setting):
            setattr(config, setting, value)
    model = DynamicsModel(3, 2, [8], kind.learns_variance)
    try_out(lambda *parts: kind(parts[0], config, *parts[1:]), model, name)


def test_the_example_passes(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    made_of = METHODS["own_method:L2"]
    config = made_of[1]("own_method:L2", 1e-3, 5.0)
    generators = (torch.Generator().manual_seed(i) for i in range(2))
    assert make_method(DynamicsModel(3, 2, [8], False), config, *generators).tasks == 0
    monkeypatch.delitem(sys.modules, "own_method")

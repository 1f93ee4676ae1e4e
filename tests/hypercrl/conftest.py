import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from composing import compose_choices_once
from forked import Forked, ForkedCell, ForkedSimulator
from tiny_runs import EPISODE

from hypercrl.cli import main
from hypercrl.report import write_report
from hypercrl.training.trainer import Trainer
from hypercrl_envs.blocks import BlockTask
from hypercrl_envs.cheetah import CheetahTask
from hypercrl_envs.double_integrator import DoubleIntegratorTask


class Stop(Exception):
    pass


@pytest.fixture(scope="session")
def train_and_stop() -> Callable[..., None]:
    """Runs `hypercrl train WORDS`, and ends it before environment step `after` + 1."""

    def train(*words: str, after: int) -> None:
        steps, act = iter(range(after)), Trainer._act

        def act_or_stop(self, planned):
            if next(steps, None) is None:
                raise Stop
            act(self, planned)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_act", act_or_stop)
            with pytest.raises(Stop):
                main(["train", *words])

    return train


@pytest.fixture(scope="session", autouse=True)
def no_report() -> Iterator[None]:
    """Training writes no page, which takes a third of a tiny run's time; see `with_report`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hypercrl.commands.train.write_report", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def choices_composed_once() -> Iterator[None]:
    """See `composing.py`."""
    with pytest.MonkeyPatch.context() as patch:
        compose_choices_once(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> Iterator[None]:
    """What a process has written outlives it: to wait for the disk guards against a power cut,
    which nothing here makes. Tests of what is brought to disk, and when, look for themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


def shorten_episodes(patch: pytest.MonkeyPatch) -> None:
    for kind in (BlockTask, CheetahTask, DoubleIntegratorTask):
        patch.setattr(kind, "max_episode_steps", EPISODE)


@pytest.fixture
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of `EPISODE` steps, but in other processes."""
    shorten_episodes(monkeypatch)


@pytest.fixture(scope="module")
def short_episodes_throughout() -> Iterator[None]:
    """From the first who asks for it on to the module's end: for fixtures of a module, too."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_episodes(patch)
        yield


@pytest.fixture
def with_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """But here it does."""
    monkeypatch.setattr("hypercrl.commands.train.write_report", write_report)


@pytest.fixture
def forked_cells(monkeypatch: pytest.MonkeyPatch, short_episodes: None) -> None:
    """Cells of a grid are forked, where it is not the point how a process of its own begins; their
    episodes are short."""
    monkeypatch.setattr("hypercrl.bench.workers.subprocess", forking(ForkedCell))


@pytest.fixture
def forked_simulators(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are the processes that step robots."""
    monkeypatch.setattr("hypercrl_envs.fleet.subprocess", forking(ForkedSimulator))


def forking(kind: type[Forked]) -> SimpleNamespace:
    """The module `subprocess`, whose processes are of that kind."""
    kept = {name: getattr(subprocess, name) for name in ("STDOUT", "DEVNULL", "TimeoutExpired")}
    return SimpleNamespace(Popen=kind, **kept)

"""A command's configuration without the command line."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from hypercrl.base.paths import configs_dir
from hypercrl.config.ignored import check_used, used_words
from hypercrl.config.messages import check_choices, check_composed, composing
from hypercrl.config.registered import register
from hypercrl.config.schema import TrainConfig
from hypercrl.config.sources import own_folders
from hypercrl.config.together import check_together


def composed(command: str, overrides: Sequence[str]) -> DictConfig:
    """What `hypercrl COMMAND OVERRIDES` works on.

    Raises:
        UserError: as on the command line.
    """
    register()
    check_choices(command, overrides)
    with _own_hydra(), composing(command, overrides):
        with initialize_config_dir(str(configs_dir()), version_base="1.3"):
            config = compose(command, list(overrides))
        check_composed(command, config, overrides)
        check_used([(config, overrides)])
    return config


@contextmanager
def one_by_one() -> Iterator[Callable[[str, Sequence[str]], DictConfig]]:
    """For the block, what composes each of many runs from a command and its words, before any runs.

    Each is checked as far as that needs nothing built; whether a setting has an effect on any is
    for who knows them all. What it raises is a UserError, as on the command line.
    """

    def one(command: str, words: Sequence[str]) -> DictConfig:
        with composing(command, words):
            config = compose(command, list(words))
            check_composed(command, config, words)
            if OmegaConf.get_type(config) is TrainConfig:
                check_together(cast(TrainConfig, OmegaConf.to_object(config)))
        return config

    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        yield one


def with_effect(command: str, words: Sequence[str]) -> list[str]:
    """The words that have an effect, of some that are given alike to several choices.

    Raises:
        UserError: as on the command line.

    Example:
        >>> with_effect("train", ["method=ftl", "protocol={updates: 5, robots: 2}", "seed=1"])
        ['method=ftl', 'protocol.robots=2', 'seed=1']
    """
    with _own_hydra(), one_by_one() as compose_one:
        return used_words(compose_one(command, words), words)


@contextmanager
def composed_once(words: Sequence[str]) -> Iterator[None]:
    """Inside, `hydra.main` composes a command's settings once.

    It does so twice, first to see whether they say hydra.mode. Only the words of a command and the
    user's own files can: where neither do, the mode is that of the command line.
    """
    if own_folders() or any("hydra" in word for word in words):
        yield
        return
    get_mode = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None  # which is what it finds
    try:
        yield
    finally:
        Hydra.get_mode = get_mode


@contextmanager
def _own_hydra() -> Iterator[None]:
    """There is one Hydra in a process, and the program that calls may have begun its own."""
    theirs = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = theirs  # another instance than before: Hydra restores copies

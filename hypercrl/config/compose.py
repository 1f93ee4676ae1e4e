"""A command's configuration without the command line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from hypercrl.base.paths import configs_dir
from hypercrl.config.ignored import check_used
from hypercrl.config.messages import check_choices, check_composed, composing
from hypercrl.config.schema import register
from hypercrl.config.sources import own_folders


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

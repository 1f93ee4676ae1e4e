"""A command's configuration without the command line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from hypercrl.base.paths import configs_dir
from hypercrl.config.ignored import check_used
from hypercrl.config.messages import check_choices, check_composed, composing
from hypercrl.config.schema import register


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
def _own_hydra() -> Iterator[None]:
    """There is one Hydra in a process, and the program that calls may have begun its own."""
    theirs = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = theirs  # another instance than before: Hydra restores copies

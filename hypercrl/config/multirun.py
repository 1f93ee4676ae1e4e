"""The jobs of Hydra's multirun, checked before the first one starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from omegaconf import OmegaConf

from hypercrl.base.errors import UserError
from hypercrl.base.paths import configs_dir
from hypercrl.config.ignored import check_used
from hypercrl.config.messages import check_composed, composing
from hypercrl.config.schema import TrainConfig
from hypercrl.config.together import check_together

FLAGS = {"-m", "--multirun"}
_FILE = "multirun.yaml"


def check_jobs(command: str, words: Sequence[str]) -> None:
    """Compose every job of a multirun, and so check its settings.

    Jobs of another sweeper than Hydra's own, and of a pattern such as method=*, are not known
    beforehand.

    Args:
        command: of `hypercrl`.
        words: what it is called with; without FLAGS there are no jobs.

    Raises:
        UserError: a setting that does not exist, a value that it does not take, or settings that
            cannot be together; names the job by what tells it from the others.
    """
    if not FLAGS & set(words) or any(word.startswith("hydra/sweeper") for word in words):
        return
    with composing(command):
        given = OverridesParser.create().parse_overrides([w for w in words if "=" in w])
        ours = [o for o in given if not o.key_or_group.startswith("hydra")]
        if any(isinstance(override.value(), Glob) for override in ours):
            return
        (jobs,) = BasicSweeper.split_arguments(ours, None)
    swept = {override.get_key_element() for override in ours if override.is_sweep_override()}
    for job in jobs:
        GlobalHydra.instance().clear()
        try:
            _check(command, job)
        except UserError as error:
            told = " ".join(word for word in job if word.partition("=")[0] in swept)
            raise UserError(f"{told}: {error}" if told else str(error)) from error


def _check(command: str, job: Sequence[str]) -> None:
    with composing(command, job), initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose(command, list(job))
        check_composed(command, config, job)
        check_used([(config, job)])
        if OmegaConf.get_type(config) is TrainConfig:
            check_together(cast(TrainConfig, OmegaConf.to_object(config)))


def take_away_unless_begun(folder: Path) -> None:
    """Remove a multirun's folder if nothing but Hydra's multirun.yaml came into it."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {_FILE}:
        (folder / _FILE).unlink(missing_ok=True)
        folder.rmdir()

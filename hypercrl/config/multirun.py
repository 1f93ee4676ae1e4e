"""The jobs of Hydra's multirun, checked before the first one starts."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig

from hypercrl.base.errors import UserError
from hypercrl.config.compose import one_by_one
from hypercrl.config.ignored import check_used
from hypercrl.config.messages import composing, explained
from hypercrl.config.overrides import parsed
from hypercrl_envs import TaskFault

FLAGS = {"-m", "--multirun"}
_FILE = "multirun.yaml"
_OF_THE_SWEEP = re.compile(r"^\+*hydra[/.]sweeper|^(?!\+*hydra).*\$\{hydra:")
"""Words by which jobs are known only as Hydra runs them."""


def check_jobs(
    command: str, words: Sequence[str], try_out: Callable[[DictConfig], None] | None = None
) -> None:
    """Compose every job of a multirun, and so check its settings.

    Jobs of another sweeper than Hydra's own or of its settings, of a pattern such as method=*, and
    of values such as ${hydra:job.num} are not known beforehand; those of another launcher may run
    on another machine, and are not tried out here.

    Args:
        command: of `hypercrl`.
        words: what it is called with; without FLAGS there are no jobs.
        try_out: does with a job's configuration what may be refused before anything of it is
            kept; once for all seeds.

    Raises:
        UserError: a setting that does not exist, a value that it does not take, settings that
            cannot be together, or what `try_out` raised; names the job by what tells it from the
            others.
    """
    if not FLAGS & set(words) or any(_OF_THE_SWEEP.search(word) for word in words):
        return
    with composing(command):
        given = parsed(w for w in words if "=" in w)
        ours = [o for o in given if not o.key_or_group.startswith("hydra")]
        if any(isinstance(override.value(), Glob) for override in ours):
            return
        (jobs,) = BasicSweeper.split_arguments(ours, None)
    swept = {override.get_key_element() for override in ours if override.is_sweep_override()}
    configs: dict[tuple[str, ...], DictConfig] = {}

    def refused(words: Iterable[str], error: Exception) -> UserError:
        told = " ".join(word for word in words if word.partition("=")[0] in swept)
        return UserError(f"{told}: {error}" if told else str(error))

    with one_by_one() as composed:
        for job in jobs:
            try:
                config = composed(command, job)
                check_used([(config, job)])
            except UserError as error:
                raise refused(job, error) from error
            configs.setdefault(tuple(w for w in job if not w.startswith("seed=")), config)
    if try_out is None or any(word.startswith("hydra/launcher") for word in words):
        return
    for but_seed, config in configs.items():
        try:
            with explained(command, words):
                try_out(config)
        except (UserError, TaskFault) as error:
            raise refused(but_seed, error) from error


def take_away_unless_begun(folder: Path) -> None:
    """Remove a multirun's folder if nothing but Hydra's multirun.yaml came into it."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {_FILE}:
        (folder / _FILE).unlink(missing_ok=True)
        folder.rmdir()

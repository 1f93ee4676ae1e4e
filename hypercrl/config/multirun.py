"""The jobs of Hydra's multirun, checked before the first one starts."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Glob
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypercrl.base.errors import EndedElsewhere, UserError, first_line
from hypercrl.base.files import make_writable
from hypercrl.base.lock import locked
from hypercrl.config.compose import one_by_one
from hypercrl.config.ignored import check_used
from hypercrl.config.messages import KnownInJobs, composing, explained
from hypercrl.config.overrides import parsed
from hypercrl.config.search import check_goes_on, check_storage, maximise, tell_best
from hypercrl.config.sweeps import HYDRAS_OWN, check_sweeps
from hypercrl_envs import TaskFault

HYDRAS_OWN_LAUNCHER = f"{BasicLauncher.__module__}.{BasicLauncher.__name__}"
"""What runs jobs one after another, in this process."""
FLAGS = {"-m", "--multirun"}
_FILE = "multirun.yaml"
_OF_THE_SWEEP = re.compile(r"^\+*hydra[/.]sweeper")
"""Words by which jobs are known only as Hydra runs them."""

_ONE_JOB = "that is one job; the multirun goes on with all of them by the same command"


def check_jobs(
    command: str,
    words: Sequence[str],
    try_out: Callable[[DictConfig], None] | None = None,
    check_job: Callable[[DictConfig, Sequence[str], int], None] | None = None,
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
        check_job: the same of what a job's folder holds: of its configuration, words and number.

    Raises:
        UserError: a setting that does not exist, a value that it does not take, settings that
            cannot be together, or what `try_out` or `check_job` raised; names the job by what tells
            it from the others.
    """
    if not FLAGS & set(words) or any(_OF_THE_SWEEP.search(word) for word in words):
        return
    with composing(command):
        given = parsed(w for w in words if "=" in w)
        ours = [o for o in given if not o.key_or_group.startswith("hydra")]
        check_sweeps(ours)
        if any(isinstance(override.value(), Glob) for override in ours):
            return
        (jobs,) = BasicSweeper.split_arguments(ours, None)
    swept = {override.get_key_element() for override in ours if override.is_sweep_override()}
    configs: dict[tuple[str, ...], DictConfig] = {}

    def refused(words: Iterable[str], error: Exception) -> UserError:
        told = " ".join(word for word in words if word.partition("=")[0] in swept)
        return UserError(f"{told}: {error}" if told else str(error))

    with one_by_one() as composed:
        for number, job in enumerate(jobs):
            try:
                config = composed(command, job)
                check_used([(config, job)])
                if check_job is not None:
                    check_job(config, job, number)
            except KnownInJobs:
                continue
            except UserError as error:
                raise refused(job, error) from error
            configs.setdefault(tuple(w for w in job if not w.startswith("seed=")), config)
    if try_out is None or any(word.startswith("hydra/launcher") for word in words):
        return
    for but_seed, config in configs.items():
        try:
            with explained(command, words):
                try_out(config)
        except KnownInJobs:
            pass
        except (UserError, TaskFault) as error:
            raise refused(but_seed, error) from error


@contextmanager
def in_a_folder(refused: Sequence[Exception], returned: Sequence[object]) -> Iterator[None]:
    """Around Hydra: the folder of a multirun is seen to be writable before the first job, and held
    against others that would mix their jobs among its own.

    Where the block raises, or jobs were refused, and none came to its end, folders that were made
    for it go away again if nothing but Hydra's multirun.yaml came into them.

    Args:
        refused: what jobs were refused for, noted by whoever runs them.
        returned: of each job that came to its end, wherever its own folder is.

    Raises:
        UserError: the folder cannot be written to, another process writes there, or see
            `check_sweeps` and hypercrl.config.search.
    """
    folders: list[_Folder] = []
    searches: list[Path] = []
    held = ExitStack()
    original, original_launcher = Plugins.instantiate_sweeper, Plugins.instantiate_launcher

    def instantiate_sweeper(self: Plugins, *, config: DictConfig, **others: Any) -> Sweeper:
        check_storage(config)
        _check_sweeps_of(config)
        searches_by_score = config.hydra.sweeper._target_ != HYDRAS_OWN
        if searches_by_score:
            check_goes_on(config)
            maximise(config)
        folder = _Folder(Path(config.hydra.sweep.dir))
        folder.make()
        try:
            held.enter_context(locked(folder.path, keep=False))
        except UserError as error:
            raise UserError(f"{error} Or give another run_dir.") from error
        folders.append(folder)
        if searches_by_score:
            searches.append(Path(config.hydra.sweep.dir))
        return original(self, config=config, **others)

    def instantiate_launcher(
        self: Plugins, hydra_context: Any, task_function: Any, config: DictConfig
    ) -> Launcher:
        made = original_launcher(self, hydra_context, task_function, config)
        if config.hydra.launcher._target_ != HYDRAS_OWN_LAUNCHER:
            made.launch = _told(made.launch, config.hydra.runtime.choices["hydra/launcher"])
        return made

    Plugins.instantiate_sweeper = instantiate_sweeper
    Plugins.instantiate_launcher = instantiate_launcher
    failed = True
    try:
        with held:
            yield
        failed = bool(refused)
        for search in searches:
            tell_best(search)
        if not searches:
            for folder in folders:
                folder.tell_comparison()
    except KeyboardInterrupt as interrupt:  # amid a job, which goes on with resume=
        failed = False
        if folders:
            interrupt.add_note(_ONE_JOB)
        raise
    finally:
        Plugins.instantiate_sweeper = original
        Plugins.instantiate_launcher = original_launcher
        if failed and not returned:
            for folder in folders:
                folder.take_away_unless_begun()


def _told(
    launch: Callable[..., Sequence[JobReturn]], name: str
) -> Callable[..., Sequence[JobReturn]]:
    """A launcher's `launch`, whose own failures are none of the settings'."""

    def told(*words: Any, **more: Any) -> Sequence[JobReturn]:
        try:
            return launch(*words, **more)
        except (UserError, EndedElsewhere, HydraException, OmegaConfBaseException, OSError):
            raise
        except Exception as error:
            raise EndedElsewhere(
                f"hypercrl: hydra/launcher={name} could not run its jobs; those that had begun go "
                f"on with hypercrl train resume=DIR. It says: {first_line(error)}"
            ) from error

    return told


def _check_sweeps_of(config: DictConfig) -> None:
    """`check_sweeps` of the words and of the sweeper's own parameters, which files may hold."""
    hydra: Any = OmegaConf.to_container(config.hydra, resolve=False)  # jobs resolve some of it
    sweeper = hydra["sweeper"]
    params = (sweeper.get("params") or {}).items()
    words = [f"{key}={value}" for key, value in params if isinstance(value, str)]
    check_sweeps(parsed([*words, *hydra["overrides"]["task"]]), sweeper["_target_"])


class _Folder:
    """A multirun's folder, and what of it there was before; the same wherever a job goes from here.

    Args:
        named: as it was given.
    """

    def __init__(self, named: Path) -> None:
        self._named = named
        self.path = path = Path(os.path.realpath(named))
        self._new = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
        self._had_file = os.path.lexists(path / _FILE)

    def make(self) -> None:
        """Make it if need be.

        Raises:
            UserError: it cannot be, or nothing can be written there.
        """
        try:
            make_writable(self._named)
        except UserError:
            self.take_away_unless_begun()
            raise

    def tell_comparison(self) -> None:
        """Print what reports on all runs in it, where there are several."""
        if len(list(self._named.glob("*/config.yaml"))) > 1:
            print(f"compare: hypercrl report {shlex.quote(str(self._named))}")

    def take_away_unless_begun(self) -> None:
        """Remove what is new of it, if that is nothing but Hydra's multirun.yaml."""
        with suppress(OSError):  # not empty
            if not self._had_file and os.listdir(self.path) == [_FILE]:
                (self.path / _FILE).unlink()
        with suppress(OSError):
            for folder in self._new:
                if os.path.exists(folder):
                    folder.rmdir()

"""Options beside a command's settings, which are Hydra's: --multirun, --cfg, --info and others."""

from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from hypercrl.base.errors import UserError
from hypercrl.config.words import no_setting


def options_first(command: str, words: Sequence[str]) -> list[str]:
    """The words with all options before the settings, which Hydra takes at one place only.

    Raises:
        UserError: an option that there is not, or that takes another value; or a word that is
            neither an option nor a setting.

    Example:
        >>> options_first("train", ["seed=0,1", "--multirun", "run_dir=runs/two"])
        ['--multirun', 'seed=0,1', 'run_dir=runs/two']
    """
    see = f"See: hypercrl {command} --help"

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}. {see}")

    settings = [word for word in words if _is_setting(word)]
    ordered = [*(word for word in words if not _is_setting(word)), *settings]
    parser = get_args_parser()
    parser.error = refuse
    known, unknown = parser.parse_known_args(ordered)
    if unknown:
        raise UserError(
            f"there is no option {unknown[0]}; settings are KEY=VALUE, without dashes. {see}"
        )
    bare = [word for word in known.overrides if not _is_setting(word)]
    if bare:
        raise UserError(no_setting(command, bare[0], bare))
    return ordered


def _is_setting(word: str) -> bool:
    return word.startswith("~") or ("=" in word and not word.startswith("-"))

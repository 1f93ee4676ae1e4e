"""Hydra's and OmegaConf's errors, retold as one message that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypercrl.errors import UserError
from hypercrl.paths import configs_dir


@contextmanager
def explained(command: str) -> Iterator[None]:
    """Turn a configuration error inside the block into a UserError."""
    try:
        yield
    except MissingConfigException as error:
        raise UserError(_missing_choice(error)) from error
    except OverrideParseException as error:
        raise UserError(f"cannot read {error.override!r}: {error.message}.") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_wrong_key_or_value(error, command)) from error


def _missing_choice(error: MissingConfigException) -> str:
    """A value that a group such as env= or method= does not have."""
    if error.missing_cfg_file is None or not error.options:
        return _first_line(error)
    group, _, choice = error.missing_cfg_file.rpartition("/")
    options = sorted(o for o in error.options if not o.endswith("_schema"))
    return f"there is no {group}={choice}.{_hint(choice, options)} Choices: {', '.join(options)}."


def _wrong_key_or_value(error: Exception, command: str) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    key = getattr(cause, "full_key", None)
    if isinstance(cause, OmegaConfBaseException) and key:
        known = _known_keys(command)
        if key not in known:
            return f"there is no setting {key!r}.{_hint(key, known)} See: hypercrl {command} --help"
        return f"{key}: {_first_line(cause)}"
    return _first_line(error)


def _known_keys(command: str) -> list[str]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        return list(_flat(compose(command)))


def _flat(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in node:
        path = f"{prefix}{key}"
        yield path
        value: Any = None if OmegaConf.is_missing(node, key) else node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _flat(value, f"{path}.")


def _hint(word: str, known: list[str]) -> str:
    near = get_close_matches(word, known, 1)
    if not near:
        last = {k.rpartition(".")[2]: k for k in known}
        near = [last[k] for k in get_close_matches(word.rpartition(".")[2], last, 1)]
    return f" Did you mean {near[0]!r}?" if near else ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]

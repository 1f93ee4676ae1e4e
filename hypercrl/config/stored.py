"""config.yaml of a run, read as if a stranger had written it, and what of it needs trust.

A run's configuration is signed with a key of the user who began the run, so that it is known again
wherever the folder goes and whoever unpacked it; the key never leaves the user's state folder.
"""

import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypercrl.base.errors import UserError

LARGEST = 2**20
"""Bytes of a configuration; those of a thousand tasks are a tenth of it."""
DEEPEST = 32
"""Levels of a configuration; those of a run are five."""

_SIGNATURE = "# signature: "
_KEY_BYTES = 32
_NO_CODE = ("run_dir", "resume", "extend", "device")
"""Settings in which a colon means something else."""


def read_stored(path: Path, *, trust: bool) -> dict[str, Any]:
    """A run's config.yaml as plain containers; nothing in it is resolved or imported.

    Args:
        path: of the file.
        trust: whether code that it names may be imported whoever wrote it.

    Raises:
        UserError: it is no file that this program wrote: too large or too deep, not UTF-8, with
            aliases, tags or references to other values; or it names code to import other than
            rewards and terminations of this program, another user or program has written or
            changed it, and `trust` is not given.
    """
    config, text = parse_stored(path)
    named = sorted({name for key, value in config.items() for name in _code(key, value)})
    if not named or trust or _is_own(text):
        return config
    from hypercrl_envs.task_functions import is_own  # loads simulators, and most runs name no code

    if named := [name for name in named if not is_own(name)]:
        shown = ", ".join(f"{name[:60]!r}" for name in named[:5])
        raise UserError(
            f"{path} names code that would be imported ({shown}), and it is not as hypercrl wrote "
            "it for you. Read it, and if you trust it and that code, give trust=true."
        )
    return config


def parse_stored(path: Path) -> tuple[dict[str, Any], str]:
    """The same to be looked at only, and the text; see `read_stored`.

    Raises:
        UserError: as there, but for the trust.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        text = data.decode("utf-8")
        _check_events(text)
        config: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        if any("${" in value for value in _texts(config)):
            raise ValueError("it refers to other values with ${ }, and a run's is resolved")
    except (ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged, or not of a run: {reason}.") from error
    return {str(key): value for key, value in config.items()}, text


def signed(text: str) -> str:
    """A configuration with its signature as the last line; without one if no key can be kept."""
    key = _key()
    return text if key is None else f"{text}{_SIGNATURE}{_mac(key, text)}\n"


def _is_own(text: str) -> bool:
    body, found, signature = text.rpartition(_SIGNATURE)
    key = _key() if found else None
    return key is not None and hmac.compare_digest(
        _mac(key, body).encode(), signature.strip().encode()
    )


def _mac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def _key() -> bytes | None:
    """This user's key, made when it is first asked for; None where it cannot be kept."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(state) / "hypercrl" / "key"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".key.{os.getpid()}.partial")
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(file, secrets.token_bytes(_KEY_BYTES))
                with suppress(FileExistsError):  # another process was quicker
                    os.link(new, path)
            finally:
                os.close(file)
                new.unlink()
        key = path.read_bytes()
    except (OSError, RuntimeError):  # the latter where there is no home
        return None
    return key if len(key) == _KEY_BYTES else None


def _code(key: str, value: Any) -> Iterator[str]:
    """Names "module:thing" among the values of a setting: functions, environments, plug-ins."""
    if key not in _NO_CODE:
        yield from (text for text in _texts(value) if ":" in text)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def _check_events(text: str) -> None:
    """Raise ValueError on what this program never writes, before any of it is built."""
    depth, roots = 0, 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("it has an alias")
        if getattr(event, "tag", None):
            raise ValueError(f"it has the tag {event.tag[:60]!r}")
        if isinstance(event, yaml.NodeEvent) and depth == 0:
            roots += 1
            if roots > 1 or not isinstance(event, yaml.MappingStartEvent):
                raise ValueError("it is not a mapping")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    if not roots:
        raise ValueError("it is empty")

"""The words of a command line before they are read: settings, KEY=VALUE."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hypercrl.config.sources import ENV, PRESETS, TABLES, files

_TAKES_RUN = {"train": "resume", "play": "run", "export": "run"}


def no_setting(command: str, word: str, words: Sequence[str]) -> str:
    """What to say of a word that is no KEY=VALUE: the setting that it may have been meant as.

    Args:
        command: of `hypercrl`.
        word: the one in question.
        words: all that stand on the command line without "=", in order.
    """
    groups = (ENV, *TABLES, "preset")
    following = words[words.index(word) + 1 :][:1]
    near = ""
    if word in groups:
        near = f"{word}={following[0]}" if following else f"{word}=NAME"
    elif command in _TAKES_RUN and Path(word).is_dir():
        near = f"{_TAKES_RUN[command]}={word}"
    else:
        near = next((f"{group}={word}" for group in groups if word in _choices(command, group)), "")
    hint = f" Did you mean {shlex.quote(near)}?" if near else ""
    return f"cannot read {word!r}; settings are KEY=VALUE.{hint}"


def _choices(command: str, group: str) -> Sequence[str]:
    preset, of_recall = PRESETS
    return list(files(of_recall if (command, group) == ("recall", preset) else group))

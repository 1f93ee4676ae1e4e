"""The exceptions that are meant for the person at the keyboard, and what others say."""

import errno
from pathlib import Path

_FULL = (
    "Make room, then go on with what there is: hypercrl train resume=DIR, or the same hypercrl "
    "bench again."
)
WHAT_TO_DO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: "Name another folder, or change who may write there.",
    errno.ENOTDIR: "A file is where a folder is to be; name another one.",
    errno.EEXIST: "A file is where a folder is to be; name another one.",
    errno.EROFS: "That disk is read only; name a folder on another one.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.EMFILE: "Raise the limit of open files: ulimit -n 4096",
    errno.EIO: "The disk or the connection to it fails; name a folder on another one.",
}
"""By errno; a full disk leaves the last checkpoint as it was."""


class UserError(Exception):
    """A mistake the user can mend; the CLI prints its message alone and exits with code 2."""


class EndedElsewhere(Exception):
    """What ended jobs in another process: the text to print, and the command's exit code.

    The text is whole, as a traceback does not come along.
    """

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text, code)
        self.text = text
        self.code = code


def first_line(error: BaseException) -> str:
    """What an error says first, or its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def of_the_system(error: OSError) -> str:
    """What the disk or the system refused, and what to do about it."""
    where = f"{error.filename}: " if error.filename else ""
    return where + _reason(error)


class Unwritable(UserError):
    """A place that was named cannot be written to."""


def unwritable(place: Path, error: OSError) -> Unwritable:
    """The same of a place that was to be written to, whatever was tried there."""
    return Unwritable(f"cannot write to {place}: {_reason(error)}")


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{reason}. {WHAT_TO_DO.get(error.errno or 0, 'Name a place that can be used.')}"


class GPUUnavailable(UserError):
    """A GPU is full or gone; a grid tries again elsewhere, or later (exit code 3)."""

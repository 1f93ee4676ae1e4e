"""One writer at a time in a folder; the system lets go of it when the writer dies."""

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from hypercrl.base.errors import UserError, unwritable

LOCK = ".lock"
"""File in the folder that is locked."""

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What flock says where the file system knows no locks."""


@contextmanager
def locked(folder: Path, *, keep: bool = True) -> Iterator[None]:
    """Hold a folder, made if need be, against other writers while the block runs.

    It is flock(2): gone with the process however that ends, and seen by other machines where the
    folder lies on NFS (Linux locks a byte range there). A file system that knows no locks gets a
    warning instead.

    Args:
        folder: to hold.
        keep: leave the file there afterwards; one that was there before stays.

    Raises:
        UserError: another process holds it, or nothing can be written there.
    """
    path = folder / LOCK
    there = os.path.lexists(path)
    with _held(folder, path) as file:
        file.truncate(0)
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        file.flush()
        try:
            yield
        finally:
            if not (keep or there):
                path.unlink(missing_ok=True)


def _held(folder: Path, path: Path) -> TextIO:
    """The file, open and locked; not one that its last holder has taken away in the meantime."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            _lock(file, folder)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "another process"
        raise UserError(
            f"{folder} is being written to by {owner}. Wait until it ends, or end it."
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(
            f"hypercrl: the file system of {folder} knows no locks; see to it that no other "
            "process writes there.",
            file=sys.stderr,
        )

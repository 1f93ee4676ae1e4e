"""Files that are whole or not there."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from hypercrl.base.errors import unwritable

PARTIAL = ".*.partial"
"""Names of files in the making; one that nobody writes was left by a process that was killed."""


def write_atomically(
    path: Path,
    data: bytes | Sequence[memoryview],
    before: Callable[[], object] = lambda: None,
) -> None:
    """Write so that a reader, or a crash, finds the old file or the new one and nothing between.

    Args:
        path: of the file; its folder is made if need be. A device or a pipe is written to as it is.
        data: all of it, or its parts in order.
        before: is called once the data are on disk and the old file is about to give way.

    Raises:
        OSError: it cannot be written, and the old file is as it was; nothing else is left. Names
            `path`.
    """
    parts = [data] if isinstance(data, bytes) else data
    if path.is_char_device() or path.is_fifo():
        with open(path, "wb") as file:  # /dev/stdout, say: replacing it would destroy it
            file.writelines(parts)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        before()
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        # One without a number is not of the system, and its text would be lost beside a name.
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    sync_folder(path.parent)


@contextmanager
def seen_to(folder: Path, file: Path | None = None) -> Iterator[None]:
    """Around work whose outcome is to be in a folder: it is made and tried before.

    Folders that were made for it go away again if nothing came into them.

    Args:
        folder: where something is to be written.
        file: that it is, if it is one that somebody has named.

    Raises:
        Unwritable: the folder cannot be made, or nothing can be written there under such a name.
    """
    new = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        make_writable(folder, file)
        yield
    finally:
        with suppress(OSError):  # not empty
            for each in new:
                if os.path.exists(each):
                    each.rmdir()


def make_writable(folder: Path, file: Path | None = None) -> None:
    """Make a folder if need be, and see that files can be; see `seen_to`.

    Raises:
        Unwritable: it cannot be, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=f".{file.name}." if file else "."):
            pass
    except OSError as error:
        raise unwritable(file or folder, error) from error


def sync_folder(path: Path) -> None:
    """Bring a folder's names to disk: without it a rename may be lost with the power."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

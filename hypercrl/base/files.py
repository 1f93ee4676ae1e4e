"""Files that are whole or not there."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

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
        OSError: it cannot be written, and the old file is as it was; nothing else is left.
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
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to disk: without it a rename may be lost with the power."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

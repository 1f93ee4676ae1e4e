import errno
import os
import pty
import stat
import threading
from pathlib import Path

import pytest

from hypercrl.base.errors import Unwritable
from hypercrl.base.files import seen_to, write_atomically


def test_a_device_and_a_pipe_are_written_to_and_not_replaced(tmp_path):
    """A file put in the place of /dev/null would be everybody's loss."""
    ours, theirs = pty.openpty()
    terminal = Path(os.ttyname(theirs))
    write_atomically(terminal, b"said")
    assert stat.S_ISCHR(terminal.stat().st_mode)
    assert os.read(ours, 100) == b"said"
    os.close(ours)
    os.close(theirs)

    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    listener = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    listener.start()
    write_atomically(pipe, b"said")
    listener.join(10)
    assert heard == [b"said"]
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_what_cannot_be_written_is_told_by_the_name_that_was_given(tmp_path, monkeypatch):
    (tmp_path / "folder/inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory") as refused:
        write_atomically(tmp_path / "folder", b"")  # whose new file cannot take its place
    assert refused.value.filename == str(tmp_path / "folder")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as refused:
        write_atomically(tmp_path / "file", b"")
    assert refused.value.filename == str(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_place_is_seen_to_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    long = tmp_path / ("x" * 252)
    for folder, file in (
        (tmp_path / "file/a", None),
        (Path("/proc/a/b"), None),
        (tmp_path / "new/y", tmp_path / "new/y" / long.name),
    ):
        with pytest.raises(Unwritable, match=f"cannot write to {file or folder}: "):  # noqa: SIM117
            with seen_to(folder, file):
                raise AssertionError("it is not done")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folders_that_were_made_for_nothing_go_away_again(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ZeroDivisionError), seen_to(tmp_path / "there/a/b"):
        1 / 0  # noqa: B018
    assert not list((tmp_path / "there").iterdir())
    with seen_to(tmp_path / "there/a/b"):
        assert (tmp_path / "there/a/b").is_dir()
        (tmp_path / "there/a/file").touch()
    assert [path.name for path in (tmp_path / "there/a").iterdir()] == ["file"]

import os
import pty
import stat
import threading
from pathlib import Path

from hypercrl.base.files import write_atomically


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

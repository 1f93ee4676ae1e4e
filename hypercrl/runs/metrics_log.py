"""The one stream of a run's records: metrics.jsonl, and the trackers that copy it."""

import os
from collections.abc import Sequence

from omegaconf import OmegaConf

from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import to_json
from hypercrl.runs.records import Record, as_record
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.runs.trackers import TENSORBOARD
from hypercrl.runs.trackers.follower import Follower
from hypercrl.runs.trackers.tensorboard import TensorBoard


class MetricsLog:
    """Records into metrics.jsonl and TensorBoard as they come, to other trackers by checkpoints.

    Args:
        folder: the run.
        position: bytes of metrics.jsonl to keep; what a killed run wrote beyond its checkpoint is
            dropped and will be written again.
        loggers: of `hypercrl.runs.trackers.LOGGERS`.

    Raises:
        UserError: metrics.jsonl is not the one that had so many bytes, or a tracker has no run.
    """

    def __init__(
        self, folder: RunFolder, position: int = 0, loggers: Sequence[str] = (TENSORBOARD,)
    ) -> None:
        self._folder = folder
        self._board: TensorBoard | None = None
        with folder.written():
            kept = _cut(folder, position)
            if TENSORBOARD in loggers:
                self._board = TensorBoard(folder.path / "tensorboard")
                for record in kept:
                    self._board.show(record)
            self._file = open(folder.metrics_path, "a", encoding="utf-8")  # noqa: SIM115
        self._followers: list[Follower] = []
        try:
            for name in loggers:
                if name != TENSORBOARD:
                    self._followers.append(self._follower(name, kept))
        except BaseException as error:  # those that are open would stay so
            self.__exit__(type(error))
            raise

    def _follower(self, name: str, kept: list[Record]) -> Follower:
        config = OmegaConf.to_container(OmegaConf.load(self._folder.path / "config.yaml"))
        assert isinstance(config, dict)
        named = {str(key): value for key, value in config.items()}
        return Follower(name, self._folder.path, named, kept)

    def write(self, kind: str, env_steps: int, task: int, **values: float | bool) -> None:
        """Log one record; `task` is the task in training, counted from 1.

        Raises:
            UserError: it cannot be written; so do `flush` and `close`.
        """
        record = {"kind": kind, "env_steps": env_steps, "task": task, **values}
        with self._folder.written():
            self._file.write(to_json(record) + "\n")
            self._file.flush()
            if self._board:
                self._board.show(record)
                self._board.flush()
        for follower in self._followers:
            follower.add(record)

    def flush(self) -> int:
        """Bring everything to disk; returns the length of metrics.jsonl in bytes."""
        with self._folder.written():
            if self._board:
                self._board.flush()
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def commit(self) -> None:
        """A checkpoint holds the records so far: no resumption writes them again."""
        for follower in self._followers:
            follower.send()

    def close(self, finished: bool = False) -> None:
        """Let go of files and trackers; `finished`: the run has reached its end."""
        try:
            with self._folder.written(), self._file:
                if self._board:
                    self._board.close()
        finally:
            for follower in self._followers:
                follower.close(finished)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            self.close(finished=error is None)
        except UserError:
            if error is None:  # else it is why the block ended
                raise


def _cut(folder: RunFolder, position: int) -> list[Record]:
    """Shorten metrics.jsonl to what a checkpoint counted, never lengthen it; the records in it."""
    path = folder.metrics_path
    path.touch()
    with open(path, "rb+") as file:
        try:
            if not 0 <= position <= os.fstat(file.fileno()).st_size:
                raise ValueError
            *lines, rest = file.read(position).split(b"\n")
            records = [record for line in lines if (record := as_record(line))]
            if rest or len(records) < len(lines):
                raise ValueError
        except ValueError as error:
            raise UserError(
                f"{path} does not belong to the latest checkpoint: the {position} bytes that it "
                "had then are cut short or changed. Put the right file back. "
                f"{folder.advice(LATEST)}"
            ) from error
        file.truncate(position)
    return records

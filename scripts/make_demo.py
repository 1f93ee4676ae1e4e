"""What playing and loading a finished run need of it, as a folder to give away.

    python scripts/make_demo.py runs/mine hypercrl/demos/push_demo
    python scripts/make_demo.py OUT/push_small_hnet_2.tar.gz hypercrl/demos/push_demo

The second is an agent that came back from `scripts/evidence.py run --agents`.
Kept are the configuration, the result with its records, and of the latest checkpoint the agent:
weights, normalisers, what the method keeps of old tasks, but no replay, no moments of optimisers
and no random states. The agent acts as before, bit for bit; training cannot go on from it.
"""

import argparse
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig

from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically
from hypercrl.base.lock import LOCK
from hypercrl.base.strict_json import from_json
from hypercrl.config.stored import read_stored
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.training.experiment import AGENT


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The one run, or agent alone, of a .tar.gz, in a folder that is gone behind the block.

    Raises:
        UserError: there is none in it, or more; or this Python is older than 3.11.4 and does not
            look at what it unpacks.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"Unpack {archive} yourself and give its folder, or take Python 3.11.4 up.")
    with TemporaryDirectory() as folder:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{archive} cannot be unpacked: {error}") from error
        configs = list(Path(folder).glob("*/config.yaml"))
        if len(configs) != 1:
            raise UserError(f"{archive} is to hold one run, and holds {len(configs)}.")
        yield configs[0].parent


def make_demo(run: Path, out: Path) -> int:
    """Write the folder; returns its size in bytes.

    Raises:
        UserError: the run has not ended, names code and is a stranger's, or something is at `out`.
    """
    folder = RunFolder.open(run)
    if not folder.ended:
        raise UserError(f"{run} has not ended. Go on with: hypercrl train resume={run}")
    config = read_stored(run / "config.yaml", trust=False)
    state = folder.load_checkpoint(LATEST)
    with RunFolder.create(out, DictConfig({**config, "run_dir": None})) as demo:
        demo.save_checkpoint(LATEST, agent_alone(state))
        write_atomically(demo.metrics_path, folder.metrics_path.read_bytes())
        demo.write_result(from_json(folder.result_path.read_bytes()))
    (out / LOCK).unlink()
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def agent_alone(state: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's state what `Experiment.load_agent` reads, its optimisers as if they were new."""
    agent = {name: state[name] for name in AGENT if name in state}
    fresh = [{} for _ in agent["method"]["optimisers"]]
    return {**agent, "method": {**agent["method"], "optimisers": fresh}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a run that has ended; its folder, or a .tar.gz")
    parser.add_argument("out", type=Path, help="folder to write, not there yet")
    arguments = parser.parse_args()
    try:
        given = arguments.run
        with unpacked(given) if given.is_file() else nullcontext(given) as run:
            size = make_demo(run, arguments.out)
    except UserError as error:
        sys.exit(f"make_demo: {error}")
    print(f"{arguments.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

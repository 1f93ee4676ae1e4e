"""The wheel on each Python, with the oldest and the newest versions that pyproject.toml allows.

    python scripts/matrix.py                         # python3.11, python3.12 and python3.13
    python scripts/matrix.py /opt/python/bin/python  # another one
    python scripts/matrix.py cuda                    # torch with CUDA where there is no other

The wheel is built once. For each interpreter and each end of the versions it is installed into a
new environment in an empty folder, where a stranger's first commands are run. An interpreter that
is not here, or that has no torch to install, is skipped and says why. Needs `packaging`.
"""

import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.version import Version
from torch_index import options

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
COMMANDS = (
    "hypercrl --version",
    "hypercrl tasks",
    "hypercrl train preset=smoke device=cpu run_dir=run",
    "hypercrl play run=run episodes=1 video=run.mp4",
    "hypercrl report run",
)


class Skipped(Exception):
    """A cell that cannot be tried here."""


class Failed(Exception):
    """A command of a cell that ended with an error: the command and the end of what it printed."""


def run(command: list[str | Path], folder: Path) -> str:
    """What the command prints.

    Raises:
        Failed: it ended with an error.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise Failed(f"{' '.join(map(str, command))}\n{end}")
    return done.stdout


def version_of(python: str) -> str:
    """The interpreter's "3.12", say.

    Raises:
        Skipped: there is no such interpreter.
    """
    if shutil.which(python) is None:
        raise Skipped("not here")
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return run([python, "-c", code], ROOT).strip()
    except Failed as error:  # pyenv's shims of versions that are not switched on
        raise Skipped("does not start") from error


def requirements(version: str) -> dict[str, Requirement]:
    """What pyproject.toml asks for on that Python, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(line) for line in project["dependencies"]]
    here = {"python_version": version}
    return {one.name: one for one in asked if one.marker is None or one.marker.evaluate(here)}


def lowest(asked: Requirement) -> str:
    """The version at the requirement's lower bound."""
    return next(bound.version for bound in asked.specifier if bound.operator == ">=")


def torch_version(python: Path, asked: Requirement, end: str, index: list[str], cuda: bool) -> str:
    """The lowest or newest torch that pip knows for this Python, without CUDA unless `cuda`.

    Raises:
        Skipped: there is none.
    """
    found = run([python, "-m", "pip", "index", "versions", "torch", *index], ROOT)
    (line,) = (row for row in found.splitlines() if row.startswith("Available versions:"))
    versions = [Version(word) for word in line.partition(":")[2].split(",")]
    versions = [one for one in versions if one in asked.specifier]
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):  # plain builds have CUDA
        versions = [one for one in versions if one.local == "cpu"] or (versions if cuda else [])
    if not versions:
        raise Skipped("pip finds no torch without CUDA for it (argument cuda: take that with CUDA)")
    return str(min(versions) if end == "lowest" else max(versions))


def try_cell(interpreter: str, end: str, wheel: Path, index: list[str], cuda: bool) -> str:
    """Install and use the wheel in an empty folder; gives the versions that were installed.

    Raises:
        Skipped: it cannot be tried here.
        Failed: a command ended with an error.
    """
    asked = requirements(version_of(interpreter))
    with TemporaryDirectory(prefix="matrix-") as name:
        folder = Path(name)
        run([interpreter, "-m", "venv", "venv"], folder)
        bin = folder / "venv/bin"
        pip: list[str | Path] = [bin / "python", "-m", "pip"]
        torch = torch_version(bin / "python", asked["torch"], end, index, cuda)
        bounds = {key: lowest(one) for key, one in asked.items()} if end == "lowest" else {}
        pins = [f"{key}=={bound}\n" for key, bound in (bounds | {"torch": torch}).items()]
        (folder / "pins.txt").write_text("".join(pins), encoding="utf-8")
        run([*pip, "install", "--constraint", "pins.txt", *index, wheel], folder)
        run([*pip, "check"], folder)
        used = folder / "used"
        used.mkdir()
        for command in COMMANDS:
            program, *arguments = command.split()
            run([bin / program, *arguments], used)
        for left in ("run.mp4", "run/report/index.html"):
            if not (used / left).is_file():
                raise Failed(f"the commands left no {left}")
        frozen = run([*pip, "freeze"], folder).splitlines()
    direct = [line for line in frozen if line.partition("==")[0].lower() in asked]
    return " ".join(direct)


def main(arguments: list[str]) -> int:
    cuda, index = "cuda" in arguments, options("cpu")
    interpreters = [word for word in arguments if word != "cuda"] or PYTHONS
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with TemporaryDirectory(prefix="wheel-") as name:
        run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", name, ROOT], Path(name))
        (wheel,) = Path(name).glob("*.whl")
        for interpreter in interpreters:
            for end in ("lowest", "newest"):
                try:
                    outcome, detail = "passed", try_cell(interpreter, end, wheel, index, cuda)
                except Skipped as error:
                    outcome, detail = "skipped", str(error)
                except Failed as error:
                    outcome, detail = "failed", str(error)
                counts[outcome] += 1
                print(f"{interpreter}, {end}: {outcome}: {detail}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

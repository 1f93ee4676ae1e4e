"""What installs the project: source archive, make, Docker, lowest versions, torch's index."""

import re
import shutil
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[1]


def output(*command: str | Path, folder: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="the extra hypercrl[dev] is not installed")
    folder = tmp_path_factory.mktemp("sdist")
    output(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    (archive,) = folder.glob("*.tar.gz")
    output("tar", "-xzf", archive, "-C", folder)
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def test_the_source_archive_holds_the_repository(unpacked):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    tracked = {name for name in output("git", "ls-files").splitlines() if (ROOT / name).is_file()}
    held = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    missing = {name for name in tracked - held if not re.match(r"videos/.*\.mp4", name)}
    assert missing == set()


def test_the_tests_run_from_the_source_archive(unpacked):
    files = ("tests/test_house.py", "tests/test_links.py", "tests/envs/test_drawn.py")
    seen = output(sys.executable, "-m", "pytest", "-q", *files, folder=unpacked)
    assert re.search(r"^\d+ passed", seen, re.M), seen
    code = "import hypercrl, hypercrl_envs; print(hypercrl.__file__, hypercrl_envs.__file__)"
    program = f"import sys; sys.path[:0] = ['.', 'envs', 'kernels']; {code}"
    assert output(sys.executable, "-c", program, folder=unpacked).count(str(unpacked)) == 2


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(("version", "has"), [("3.11", True), ("3.12", False), ("3.13", False)])
def test_make_leaves_bullet_out_where_it_has_no_wheels_and_says_so(version, has, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    shown = output("make", "-n", "-B", f"PYTHON={python}", ".venv/.installed")
    (install,) = (line for line in shown.splitlines() if "--editable" in line)
    assert ("bullet" in install) == has
    said = [line for line in shown.splitlines() if "without PyBullet" in line]
    assert len(said) == (0 if has else 1)
    assert all(version in line for line in said)


def test_make_and_docker_install_one_torch():
    made = re.search(r"^TORCH := (\S+)", (ROOT / "Makefile").read_text(), re.M)
    built = re.search(r"^ARG TORCH=(\S+)", (ROOT / "Dockerfile").read_text(), re.M)
    assert made is not None
    assert built is not None
    assert made[1] == built[1]


def test_docker_is_given_what_the_wheel_is_made_of():
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = tables["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    project = tables["project"]
    needed = {*(name.split("/")[0] for name in folders), project["readme"], "pyproject.toml"}
    needed |= set(project["license-files"])
    copied = re.findall(r"^COPY (.*) /\S*$", (ROOT / "Dockerfile").read_text(), re.M)
    given = (ROOT / ".dockerignore").read_text().splitlines()
    assert needed <= set(" ".join(copied).split())
    assert {f"!{word}" for word in " ".join(copied).split()} <= set(given)


def test_every_dependency_has_a_lowest_version_on_every_python():
    from matrix import lowest, requirements

    for version in ("3.11", "3.12", "3.13"):
        bounds = {name: lowest(asked) for name, asked in requirements(version).items()}
        assert len(bounds) == 14
        assert bounds["numpy"] == ("2.1" if version == "3.13" else "1.26")


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/cpu/torch/" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


def test_torchs_index_is_named_where_it_answers_and_missed_in_one_line(monkeypatch, capsys):
    import torch_index

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        index = f"http://127.0.0.1:{server.server_port}/cpu"
        monkeypatch.setattr(torch_index, "INDEX", index)
        Thread(target=server.serve_forever, daemon=True).start()
        assert torch_index.options("cpu") == ["--extra-index-url", index]
        assert torch_index.options("cuda") == []
        monkeypatch.setattr(torch_index, "INDEX", f"{index}/lost")
        assert torch_index.options("cpu") == []
        server.shutdown()
    monkeypatch.setattr(torch_index, "INDEX", index)
    assert torch_index.options("cpu") == []  # nobody listens any more
    missed = capsys.readouterr()
    assert missed.out == ""
    assert [line[:9] for line in missed.err.splitlines()] == ["no answer", "no answer"]

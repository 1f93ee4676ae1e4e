import hashlib
import json
import math
import os

import numpy as np
import pytest
import safetensors.torch
import torch

from hypercrl.base.errors import UserError
from hypercrl.runs.checkpoint import load_checkpoint, save_checkpoint

TREE = {
    "tensor": torch.arange(6.0).view(2, 3).t(),
    "views": [torch.arange(4)[:2], torch.arange(4)[2:]],
    "bool": torch.tensor(True),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "array": np.linspace(0, 1, 7),
    "big": 2**100,
    "nested": {"none": None, "text": "é", "float": 0.1, "list": [1, [2.5, "x"]], "empty": {}},
    7: "a key that is a number",
}


def test_comes_back_as_it_was(tmp_path):
    path = tmp_path / "a" / "c.safetensors"
    save_checkpoint(path, TREE)
    got = load_checkpoint(path)
    assert torch.equal(got["tensor"], TREE["tensor"])
    assert got["views"][1].tolist() == [2, 3]
    assert got["bool"].item() is True
    assert got["bytes"].dtype == torch.uint8
    assert isinstance(got["array"], np.ndarray)
    assert np.array_equal(got["array"], TREE["array"])
    assert got["big"] == 2**100
    assert got["nested"] == TREE["nested"]
    assert got["7"] == TREE[7]
    assert [p.name for p in path.parent.iterdir()] == ["c.safetensors"]


def test_what_shares_memory_comes_back_apart(tmp_path):
    base = torch.arange(6.0)
    array = np.arange(4)
    tree = {
        "twice": [base, base],
        "whole": base.view(2, 3),
        "part": base[1:3],
        "empty": [base[:0], torch.empty(0), torch.empty(0)],
        "expanded": torch.tensor(2.0).expand(3),
        "arrays": [array, array[::2]],
        "parameter": torch.nn.Parameter(base),
    }
    save_checkpoint(tmp_path / "c.safetensors", tree)
    got = load_checkpoint(tmp_path / "c.safetensors")
    assert [t.tolist() for t in got["twice"]] == [base.tolist()] * 2
    assert got["whole"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert got["part"].tolist() == [1, 2]
    assert [t.numel() for t in got["empty"]] == [0, 0, 0]
    assert got["expanded"].tolist() == [2, 2, 2]
    assert [a.tolist() for a in got["arrays"]] == [[0, 1, 2, 3], [0, 2]]
    assert got["parameter"].tolist() == base.tolist()
    got["twice"][0][0] = 7.0
    assert got["twice"][1][0] == got["whole"][0, 0] == base[0] == 0.0


def test_numbers_that_json_has_not_come_back_and_the_tree_is_json(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"x": [math.nan, math.inf, -math.inf, 0.0], "y": np.float64("nan")})
    got = load_checkpoint(path)
    np.testing.assert_array_equal(got["x"], [math.nan, math.inf, -math.inf, 0.0])
    assert math.isnan(got["y"])
    with safetensors.safe_open(path, framework="pt") as file:
        json.loads(file.metadata()["tree"], parse_constant=pytest.fail)


def test_other_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match="object"):
        save_checkpoint(tmp_path / "c", {"x": object()})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"x": 1})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"x": 2})
    assert load_checkpoint(path) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_is_brought_to_disk_after_the_file_has_its_name(tmp_path, monkeypatch):
    path, synced, fsync = tmp_path / "c", [], os.fsync

    def seen(descriptor):
        synced.append((os.fstat(descriptor).st_ino, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    save_checkpoint(path, {"x": 1})
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"cannot be used: it is .*damaged"):
        load_checkpoint(path)


def test_every_bit_of_the_file_counts(tmp_path):
    """Header, padding and tensors alike; a letter's case is a bit too."""
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"success": [0.0, 1.0], "x": torch.arange(5.0), "text": "sha256"})
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            refused(path, bytes(changed))


def test_every_length_but_the_right_one_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TREE)
    data = path.read_bytes()
    for length in range(len(data)):
        refused(path, data[:length])
    refused(path, data + b"\0")
    refused(path, b"not a checkpoint at all")


def deep(levels):
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"format": "hypercrl-checkpoint-2"},
        {"format": "hypercrl-checkpoint-2", "tree": "no JSON"},
        {"format": "hypercrl-checkpoint-2", "tree": "[]"},
        {"format": "hypercrl-checkpoint-2", "tree": deep(100_000)},
        {"format": "hypercrl-checkpoint-2", "tree": '{"x": {"__tensor__": []}}'},
        {"format": "hypercrl-checkpoint-2", "tree": '{"x": {"__tensor__": "7"}}'},
        {"format": "hypercrl-checkpoint-2", "tree": '{"x": {"__float__": "seven"}}'},
        {"format": "hypercrl-checkpoint-1", "tree": "{}", "crc32": "0"},
        {"format": "hypercrl-checkpoint-9", "tree": "{}"},
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_what_somebody_else_wrote_is_refused_even_with_a_checksum_that_fits(
    tmp_path, header, signed
):
    path = tmp_path / "c.safetensors"
    data = safetensors.torch.save(
        {"w": torch.zeros(2)}, {**header, "sha256": "0" * 64} if signed else header
    )
    if signed:
        data = data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode())
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"^The checkpoint .* cannot be used: .*\.$"):
        load_checkpoint(path)


def test_a_foreign_file_is_named(tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, path, {"tree": json.dumps({})})
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none")

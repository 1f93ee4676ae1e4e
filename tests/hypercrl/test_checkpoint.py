import json
import math

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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda data: b"", "cut short"),
        (lambda data: b"not a checkpoint at all", "cut short"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TREE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        load_checkpoint(path)


def test_a_foreign_file_is_named(tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, path, {"tree": json.dumps({})})
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none")

"""Checkpoints: one safetensors file, its tensors beside a JSON tree; no pickle.

The tree goes into the file's own header, so a checkpoint is one file and one atomic rename.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically

FORMAT = "hypercrl-checkpoint-1"
_TENSOR, _ARRAY, _FLOAT = "__tensor__", "__array__", "__float__"


def save_checkpoint(path: Path, tree: dict[str, Any]) -> None:
    """Save nested dicts and lists of tensors, arrays and JSON values.

    Dict keys become strings; tensors come back on the CPU.

    Raises:
        TypeError: the tree holds something else.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(tree, tensors)
    header = {
        "format": FORMAT,
        "tree": json.dumps(skeleton, allow_nan=False),
        "crc32": str(_checksum(tensors)),
    }
    write_atomically(path, safetensors.torch.save(tensors, header))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tree that `save_checkpoint` wrote.

    Raises:
        UserError: no such file, cut short or damaged, or written by something else.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"The checkpoint {path} cannot be read ({error}). It is cut short or not a checkpoint; "
            "use another one from the run's checkpoints/ folder."
        ) from error
    if header.get("format") != FORMAT:
        raise UserError(
            f"{path} is a safetensors file, but not a checkpoint of this program "
            f"(format {header.get('format')!r}, wanted {FORMAT!r})."
        )
    if int(header["crc32"]) != _checksum(tensors):
        raise UserError(
            f"The checkpoint {path} is damaged: its checksum does not fit its contents. Use "
            "another one from the run's checkpoints/ folder."
        )
    return _fill(json.loads(header["tree"]), tensors)


def _strip(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor | np.ndarray):
        key = str(len(tensors))
        tensor = torch.from_numpy(node) if isinstance(node, np.ndarray) else node
        tensors[key] = tensor.detach().cpu().contiguous().clone()
        return {_ARRAY if isinstance(node, np.ndarray) else _TENSOR: key}
    if isinstance(node, dict):
        return {str(key): _strip(value, tensors) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_strip(value, tensors) for value in node]
    if isinstance(node, float) and not math.isfinite(node):
        return {_FLOAT: str(node)}  # JSON has no such numbers, and a resumed run needs them all
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise TypeError(f"a checkpoint holds tensors, arrays and JSON values, not {type(node)}")


def _fill(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if set(node) == {_TENSOR}:
            return tensors[node[_TENSOR]]
        if set(node) == {_ARRAY}:
            return tensors[node[_ARRAY]].numpy()
        if set(node) == {_FLOAT}:
            return float(node[_FLOAT])
        return {key: _fill(value, tensors) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, tensors) for value in node]
    return node


def _checksum(tensors: dict[str, Tensor]) -> int:
    crc = 0
    for key in sorted(tensors):
        data = tensors[key].reshape(-1).view(torch.uint8)
        crc = zlib.crc32(data.numpy().data, crc)
    return crc

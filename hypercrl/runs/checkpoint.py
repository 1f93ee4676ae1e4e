"""Checkpoints: one safetensors file, its tensors beside a JSON tree; no pickle.

Tree and checksum go into the file's own header, so a checkpoint is one file and one atomic rename.
The checksum is the SHA-256 of the whole file, header included, with zeros in the checksum's place.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hypercrl.base.errors import UserError, first_line
from hypercrl.base.files import write_atomically

FORMAT = "hypercrl-checkpoint-2"
_TENSOR, _ARRAY, _FLOAT = "__tensor__", "__array__", "__float__"
FAILURES = (
    *(OSError, ValueError, LookupError, TypeError, RecursionError),
    safetensors.SafetensorError,
)
"""What reading a file that somebody else made may raise."""
_BLANK = b"0" * 64
# Inside the tree, which is a string in the header, every quote has a backslash before it.
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def save_checkpoint(
    path: Path, tree: dict[str, Any], before: Callable[[], object] = lambda: None
) -> None:
    """Save nested dicts and lists of tensors, arrays and JSON values.

    Dict keys become strings; tensors come back on the CPU.

    Args:
        path: of the file.
        tree: what to save.
        before: is called as the new file is about to take the old one's place.

    Raises:
        TypeError: the tree holds something else.
        OSError: it cannot be written; an old file is as it was.
    """
    write_atomically(path, _pack(tree), before)


def read_part(path: Path, key: str) -> Any:
    """What the tree of a checkpoint has under `key`, without its tensors and unchecked.

    Raises:
        OSError, ValueError, LookupError, TypeError, RecursionError: there is none, or it cannot be
            read.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("it is cut short or damaged")
        return json.loads(json.loads(file.read(size))["__metadata__"]["tree"])[key]


class _Tensors(dict[str, Tensor]):
    """Tensors by key, each with memory of its own, which safetensors asks for.

    Tens of megabytes: what has memory of its own as it is, is not copied.
    """

    def __init__(self) -> None:
        super().__init__()
        self._memories: set[int] = set()

    def add(self, tensor: Tensor) -> str:
        """Keep one, and give its key."""
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        if memory.nbytes() != tensor.nbytes or memory.data_ptr() in self._memories:
            tensor = tensor.clone()
        self._memories.add(tensor.untyped_storage().data_ptr())
        key = str(len(self))
        self[key] = tensor
        return key


def _pack(tree: dict[str, Any]) -> list[memoryview]:
    """The file in parts, which together are all of it."""
    tensors = _Tensors()
    skeleton = _strip(tree, tensors)
    header = {
        "format": FORMAT,
        "tree": json.dumps(skeleton, allow_nan=False),
        "sha256": _BLANK.decode(),
    }
    data = safetensors.torch.save(tensors, header)
    found = _DIGEST.search(data)
    assert found is not None
    whole, digest = memoryview(data), hashlib.sha256(data).hexdigest().encode()
    return [whole[: found.start(1)], memoryview(digest), whole[found.end(1) :]]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tree that `save_checkpoint` wrote.

    Raises:
        UserError: no such file, cut short or damaged, or written by something else.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.")
    try:
        return _unpack(path.read_bytes())
    except FAILURES as error:
        raise UserError(f"The checkpoint {path} cannot be used: {first_line(error)}.") from error


def _unpack(data: bytes) -> dict[str, Any]:
    """
    Raises:
        ValueError: the data are no checkpoint of this version's, or not as they were written.
    """
    found = _DIGEST.search(data)
    if found is None:
        raise ValueError(_what_else(data))
    digest = hashlib.sha256(data[: found.start(1)])
    digest.update(_BLANK)
    digest.update(memoryview(data)[found.end(1) :])
    if digest.hexdigest().encode() != found[1]:
        raise ValueError("it is cut short or damaged, its checksum does not fit its contents")
    header = _header(data)
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']!r}, wanted {FORMAT!r}")
    tree = _fill(json.loads(header["tree"]), safetensors.torch.load(data))
    if not isinstance(tree, dict):
        raise ValueError("its tree is not a mapping")
    return tree


def _header(data: bytes) -> dict[str, Any]:
    """What a safetensors file says beside its tensors."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size])["__metadata__"]


def _what_else(data: bytes) -> str:
    """What data without a checksum are."""
    try:
        kind = _header(data)["format"]
    except FAILURES:
        kind = FORMAT
    if kind == FORMAT:
        return "it is cut short or damaged, or not a checkpoint of this program"
    return f"it is not a checkpoint of this version (format {kind!r}, wanted {FORMAT!r})"


def _strip(node: Any, tensors: _Tensors) -> Any:
    if isinstance(node, Tensor):
        return {_TENSOR: tensors.add(node)}
    if isinstance(node, np.ndarray):
        return {_ARRAY: tensors.add(torch.from_numpy(node))}
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

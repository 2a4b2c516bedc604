"""External data: tensors whose bytes lie in another file beside the model.

The file name comes from the model, that is from whoever made it, so it must not lead anywhere else: absolute paths, folders, `..`,
symbolic links and hard links are refused, and the file is opened once and checked through its descriptor.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from onnxsub.errors import ModelError

__all__ = ["MAX_BYTES", "external_tensors", "load_external"]

MAX_BYTES = 2**31 - 1
"""What one protobuf message can hold, and hence the largest model that the checker and the runtimes read from memory."""

_SAVE_AGAIN = "save the model again with onnx.save(model, path, save_as_external_data=True, location='weights.bin')"
_BITS_4 = {"INT4", "UINT4", "FLOAT4E2M1"}
_BITS_2 = {"INT2", "UINT2"}


def external_tensors(proto: ModelProto) -> list[TensorProto]:
    """Every tensor of the model, subgraphs and functions included, that is stored in another file."""
    tensors = [*_graph(proto.graph), *(t for f in proto.functions for t in _nodes(f.node))]
    return [t for t in tensors if t.data_location == TensorProto.EXTERNAL]


def load_external(proto: ModelProto, folder: Path, where: str) -> bytes:
    """Read all external data of `proto` into it, from files in `folder`.

    Returns:
        The SHA-256 digests of the files read, in the order of their names, to be hashed behind the model's own bytes.

    Raises:
        ModelError: a file name that leads away from the folder, a link, a file that is missing or too short, over 2 GB in all.
    """
    by_file: dict[str, list[TensorProto]] = {}
    for tensor in external_tensors(proto):
        entries = {e.key: e.value for e in tensor.external_data}
        by_file.setdefault(_plain_name(entries.get("location", ""), tensor.name, where), []).append(tensor)
    digests = b""
    room = MAX_BYTES - proto.ByteSize()
    for name in sorted(by_file):
        blob = _read(folder / name, name, room, where)
        room -= len(blob)
        digests += hashlib.sha256(blob).digest()
        for tensor in by_file[name]:
            _fill(tensor, blob, name, where)
    return digests


def _plain_name(location: str, tensor: str, where: str) -> str:
    what = f"{where}: tensor {tensor!r} is stored in {location!r}"
    if not location or "\0" in location:
        raise ModelError(f"{where}: tensor {tensor!r} is external but names no file; {_SAVE_AGAIN}")
    if location in (".", "..") or any(c in location for c in "/\\:"):
        raise ModelError(f"{what}, which is not a plain file name beside the model; {_SAVE_AGAIN}")
    return location


def _read(path: Path, name: str, room: int, where: str) -> bytes:
    what = f"{where}: external data file {name!r}"
    if path.is_symlink():
        raise ModelError(f"{what} is a symbolic link; put a copy of the file itself beside the model")
    if path.is_dir():
        raise ModelError(f"{what} is a folder, not a regular file; put the data file itself beside the model")
    try:
        # O_NONBLOCK so that a pipe cannot hang the reader, O_NOFOLLOW so that a link put there meanwhile is not followed
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise ModelError(f"{what} is missing; put it beside the model file") from None
    except OSError as error:
        raise ModelError(f"{what} cannot be read ({error.strerror}); make it readable") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{what} is not a regular file; put the data file itself beside the model")
        if status.st_nlink > 1:
            raise ModelError(f"{what} is a hard link (it has {status.st_nlink} names); put a copy of its own beside the model")
        if status.st_size > room:
            raise ModelError(f"{what} makes the model larger than 2 GB, which is more than onnxsub reads; use a smaller model")
        return file.read()


def _fill(tensor: TensorProto, blob: bytes, name: str, where: str) -> None:
    entries = {e.key: e.value for e in tensor.external_data}
    what = f"{where}: tensor {tensor.name!r} in external data file {name!r}"
    needed = _bytes_of(tensor, what)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(needed)))
    except ValueError:
        raise ModelError(f"{what} has an offset or length that is no number; {_SAVE_AGAIN}") from None
    if length != needed or offset < 0:
        raise ModelError(f"{what} should take {needed} bytes, the model says {length} from {offset} on; {_SAVE_AGAIN}")
    if offset + length > len(blob):
        end = offset + length
        raise ModelError(f"{what} ends at byte {end}, the file has {len(blob)}: it is cut off; copy or download it again")
    tensor.raw_data = blob[offset : offset + length]
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def _bytes_of(tensor: TensorProto, what: str) -> int:
    known = TensorProto.DataType.values()
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING) or tensor.data_type not in known:
        raise ModelError(f"{what} has element type {tensor.data_type}, which external data cannot hold; {_SAVE_AGAIN}")
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{what} has a negative dimension in {list(tensor.dims)}; {_SAVE_AGAIN}")
    count = int(math.prod(tensor.dims))
    kind = TensorProto.DataType.Name(tensor.data_type)
    if kind in _BITS_4 or kind in _BITS_2:
        per_byte = 2 if kind in _BITS_4 else 4
        return -(-count // per_byte)
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _nodes(graph.node)


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute(attribute)


def _attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)
    if attribute.HasField("g"):
        yield from _graph(attribute.g)
    for graph in attribute.graphs:
        yield from _graph(graph)

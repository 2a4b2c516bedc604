"""From a path, bytes or a message to one checked `ModelProto`: everything that can be wrong with the file itself."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped,unused-ignore]
from onnx import ModelProto

from onnxsub.errors import ModelError
from onnxsub.external_data import MAX_BYTES, external_tensors, load_external
from onnxsub.files import one_line
from onnxsub.valid import check_valid

__all__ = ["OPSETS", "ModelFile", "read_model_file", "serialise"]

OPSETS = range(7, 27)
"""Versions of the default operator set that are read."""

_OWN_OPSET = 13
_AGAIN = "download or export it again"


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model as it was given.

    Attributes:
        where: how messages call it.
        path: where it was read from, None for bytes and messages.
        sha256: of the file's bytes; where there is external data, of these bytes followed by the SHA-256 digest of each data
            file in the order of their names.
        proto: the message, external data loaded into it.
        opset: version of the default operator set.
    """

    where: str
    path: Path | None
    sha256: str
    proto: ModelProto
    opset: int


def read_model_file(source: str | os.PathLike[str] | bytes | ModelProto) -> ModelFile:
    """Read and check. Raises ModelError for everything that is not a whole, valid model of a known opset."""
    path: Path | None = None
    if isinstance(source, ModelProto):
        where, data = "the given model", serialise(source, "the given model", ModelError)
    elif isinstance(source, bytes):
        where, data = "the given model", source
    else:
        path = Path(source)
        where = f"model file {str(path)!r}"
        data = _read(path, where)
    proto = _parse(data, where)
    digest = hashlib.sha256(data)
    if external_tensors(proto):
        if path is None:
            raise ModelError(
                f"{where} keeps tensors in other files, beside a path that is not known; give the path of the .onnx file"
            )
        digest.update(load_external(proto, path.parent, where))
    opset = _opset(proto, where)
    _check(proto, where)
    return ModelFile(where=where, path=path, sha256=digest.hexdigest(), proto=proto, opset=opset)


def serialise(proto: ModelProto, where: str, error: type[Exception]) -> bytes:
    """The message as bytes, the same bytes for the same message. Raises `error` above 2 GB, where protobuf ends."""
    try:
        data: bytes = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as cause:
        raise error(f"{where} cannot be written as one file: {one_line(cause)}; models end at 2 GB") from cause
    if len(data) > MAX_BYTES:
        raise error(f"{where} is larger than 2 GB, where one protobuf file ends; use a smaller model")
    return data


def _read(path: Path, where: str) -> bytes:
    try:
        if path.is_dir():
            raise ModelError(f"{where} is a folder; give the path of the .onnx file in it")
        # O_NONBLOCK so that a pipe without a writer cannot hang the reader
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{where} does not exist; check the path") from None
    except PermissionError:
        raise ModelError(f"{where} may not be read; give yourself read permission (chmod u+r)") from None
    except OSError as error:
        raise ModelError(f"{where} cannot be opened ({error.strerror}); check the path") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{where} is not a regular file; give the path of an .onnx file")
        if status.st_size > MAX_BYTES:
            raise ModelError(f"{where} is larger than 2 GB, where one protobuf file ends; it is no ONNX model that can be read")
        return file.read()


def _parse(data: bytes, where: str) -> ModelProto:
    if not data:
        raise ModelError(f"{where} is empty; {_AGAIN}")
    if data.startswith(b"version https://git-lfs"):
        raise ModelError(f"{where} is only a Git LFS pointer; fetch the model itself with `git lfs pull`")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{where} is not an ONNX model, or is cut off or corrupt; {_AGAIN}") from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError(f"{where} holds no ONNX graph: it is another kind of file, or cut off; {_AGAIN}")
    return proto


def _opset(proto: ModelProto, where: str) -> int:
    versions = {o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")}
    if not versions and all(node.domain not in ("", "ai.onnx") for node in proto.graph.node):
        return _OWN_OPSET  # nothing of it is used; operators that are written by others are of this one
    if not versions:
        raise ModelError(f"{where} imports no default operator set; export it again with an opset of {OPSETS[0]} to {OPSETS[-1]}")
    if len(versions) > 1 or (version := versions.pop()) not in OPSETS:
        listed = ", ".join(str(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx"))
        raise ModelError(
            f"{where} uses opset {listed}, onnxsub reads {OPSETS[0]} to {OPSETS[-1]}; "
            "export it again, or convert it with onnx.version_converter.convert_version(model, 17)"
        )
    shadowed = [f.name for f in proto.functions if f.domain in ("", "ai.onnx")]
    if shadowed:
        raise ModelError(f"{where} redefines the standard operator {shadowed[0]}; remove its function from the model")
    return int(version)


def _check(proto: ModelProto, where: str) -> None:
    try:
        check_valid(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{where} is not valid ONNX: {one_line(error)}; {_AGAIN}") from error
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{where} is too large to be checked ({one_line(error)}); use a model of less than 2 GB") from error

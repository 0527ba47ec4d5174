"""Does an ONNX graph point at files outside itself? Read from the protobuf wire format, so that no engine opens it first.

`TensorProto.data_location` and `external_data` make an engine read any path, or any address, that the sender wrote. A bundle's
graphs hold all their weights. Field numbers: onnx.proto3; wire format: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from pathlib import Path

# Message -> {field number: message inside}. Only what can lead to a tensor is followed.
_INSIDE = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 64


def external_tensors(graph: Path) -> list[str]:
    """Names of the tensors of an ONNX file whose data lie elsewhere. Raises ValueError for a file that is no protobuf."""
    return list(_walk(memoryview(graph.read_bytes()), "Model", 0))


def _walk(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("graphs nested too deep")
    if kind == "Tensor":
        yield from _tensor(message)
        return
    inside = _INSIDE[kind]
    for number, _, content in _fields(message):
        if number in inside and isinstance(content, memoryview):
            yield from _walk(content, inside[number], depth + 1)


def _tensor(message: memoryview) -> Iterator[str]:
    name, elsewhere = "", False
    for number, _, content in _fields(message):
        if number == _TENSOR_NAME and isinstance(content, memoryview):
            name = bytes(content).decode(errors="replace")
        elif number == _EXTERNAL_DATA or (number == _DATA_LOCATION and content != 0):
            elsewhere = True
    if elsewhere:
        yield name or "a tensor without a name"


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of a message, one after the other."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        # Longer keys are cut to 32 bits by some parsers and would mean another field to them than to us.
        if key >> 32:
            raise ValueError("not a protobuf message")
        number, wire = key >> 3, key & 7
        value: int | memoryview = 0
        if wire == _VARINT:
            value, at = _varint(message, at)
        else:
            length, at = _varint(message, at) if wire == _BYTES else ({_FIXED64: 8, _FIXED32: 4}.get(wire, -1), at)
            if length < 0 or at + length > end:
                raise ValueError("not a protobuf message")
            value, at = message[at : at + length], at + length
        yield number, wire, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("not a protobuf message")

"""Depthwise convolutions as wide as the kernels that run them: channels of zeros, so that none works on half a vector.

ONNX Runtime's 8-bit depthwise kernel takes 16 channels at a time and leaves a rest of 8 to one that is many times slower: 88
channels take half as long again as 96. OpenVINO has no such step and pays for the channels added: `chestxray14-small` 0.1.0 gained
14 % in ONNX Runtime and lost 5 % there (`compress.channel_counts`). Pruning knows (`round_to`); this is for networks that were
pruned without. Not one bit of what a graph says changes. Without torch.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cxredge.compress.onnx_graph import Index

LANES = 16
# What may stand between two convolutions and gives zero where it is given zero.
_BETWEEN = {"QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "Identity"}


def fill_lanes(graph: Path, out: Path, lanes: int = LANES) -> int:
    """Write a graph whose depthwise convolutions have multiples of `lanes` channels; returns how many were widened.

    Only where one convolution feeds the depthwise one and one reads it, with nothing but roundings and activations per tensor
    between: there a channel of zeros reaches nobody.
    """
    wide = _Graph(onnx.load(graph))
    widened = 0
    for node in [node for node in wide.model.graph.node if node.op_type == "Conv"]:
        channels = _attribute(node, "group")
        missing = -channels % lanes
        before, after = wide.feeding(node), wide.reading(node)
        if channels == 1 or not missing or before is None or after is None:
            continue
        if not all(wide.holds(name) for each in (before, node, after) for name in each.input[1:]):
            continue
        wide.widen(before, missing, outputs=True)
        wide.widen(node, missing, outputs=True)
        wide.widen(after, missing, outputs=False)
        next(each for each in node.attribute if each.name == "group").i = channels + missing
        widened += 1
    wide.tidy()
    onnx.save(wide.model, out)
    return widened


class _Graph(Index):
    """A graph that finds what stands around a depthwise convolution."""

    def holds(self, name: str) -> bool:
        """Whether a tensor is stored, as it is or to be dequantized."""
        made = self.maker.get(name)
        return name in self.stored or (
            made is not None and made.op_type == "DequantizeLinear" and made.input[0] in self.stored
        )

    def feeding(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The convolution whose channels a depthwise one reads, where nobody else reads them."""
        name = node.input[0]
        while self._alone(name) and name in self.maker:
            made = self.maker[name]
            if made.op_type == "Conv":
                return made if _attribute(made, "group") == 1 else None
            if not self._passes_zeros(made):
                return None
            name = made.input[0]
        return None

    def reading(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The only convolution that reads a depthwise one."""
        name = node.output[0]
        while self._alone(name):
            (reader,) = self.readers[name]
            if reader.op_type == "Conv":
                return reader if _attribute(reader, "group") == 1 and reader.input[0] == name else None
            if not self._passes_zeros(reader):
                return None
            name = reader.output[0]
        return None

    def widen(self, node: onnx.NodeProto, missing: int, *, outputs: bool) -> None:
        """Zeros as further outputs of a convolution, its bias with them, or as further inputs."""
        node.input[1] = self._padded(node.input[1], missing, axis=0 if outputs else 1)
        if outputs and len(node.input) > 2:
            node.input[2] = self._padded(node.input[2], missing, axis=0)

    def _alone(self, name: str) -> bool:
        return name not in self.outputs and len(self.readers.get(name, [])) == 1

    def _passes_zeros(self, node: onnx.NodeProto) -> bool:
        """With one scale or bound for all channels, and zero inside the bounds."""
        given = [self.stored[name] for name in node.input[1:] if name in self.stored]
        if node.op_type not in _BETWEEN or len(given) != sum(bool(name) for name in node.input[1:]):
            return False
        if node.op_type == "Clip":
            low, high = [*(float(value) for value in given), np.inf][:2]
            return low <= 0 <= high
        return all(value.size == 1 for value in given)

    def _padded(self, name: str, missing: int, axis: int) -> str:
        """The tensor with more zeros along an axis, stored under a new name; of a dequantized one its scales go on as they end."""
        wider = f"{name}.{axis}+{missing}"
        if name in self.stored:
            return self._wider(wider, self.stored[name], missing, axis)
        node = self.maker[name]
        along = _attribute(node, "axis")
        inputs = [self._wider(f"{node.input[0]}.{axis}+{missing}", self.stored[node.input[0]], missing, axis)]
        for number, each in enumerate(node.input[1:]):
            per_channel = self.stored[each].ndim > 0 and along == axis
            inputs.append(
                self._wider(
                    f"{each}.+{missing}", self.stored[each], missing, 0, mode="edge" if number == 0 else "constant"
                )
                if per_channel
                else each
            )
        self.maker[wider] = helper.make_node("DequantizeLinear", inputs, [wider], name=wider, axis=along)
        self.added.append(self.maker[wider])
        return wider

    def _wider(self, name: str, values: NDArray[np.generic], missing: int, axis: int, mode: str = "constant") -> str:
        if name not in self.stored:
            widths = [(0, missing if i == axis else 0) for i in range(values.ndim)]
            self.store(name, np.pad(values, widths, mode=mode))  # type: ignore[call-overload]
        return name


def _attribute(node: onnx.NodeProto, name: str) -> int:
    """A whole-number attribute of a Conv or DequantizeLinear; both default to 1."""
    return next((each.i for each in node.attribute if each.name == name), 1)

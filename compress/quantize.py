"""Post-training static quantization to a portable QDQ graph."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from cxredge.compress.export import head_node
from cxredge.devices import read_profile
from cxredge.runtimes import runtime


class _Films(CalibrationDataReader):  # type: ignore[misc]
    """The calibration set, a few films at a time: the histograms of one call are in memory together."""

    def __init__(self, planes: NDArray[np.uint8], at_once: int = 10) -> None:
        self._left = iter(np.split(planes, range(at_once, len(planes), at_once)))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        films = next(self._left, None)
        return None if films is None else {"image": films}


def quantize(fp32: Path, int8: Path, planes: NDArray[np.uint8], *, percentile: float) -> None:
    """Quantize convolutions and additions of a graph; normalisation, head and gate stay in float.

    planes: the calibration set, uint8 [N, 1, H, W], real training films. Weights are signed, per channel, in 7 bits:
    on x86 without VNNI, 8-bit weights with unsigned activations overflow 16-bit sums and give wrong numbers silently.
    percentile: of the activations that a layer's range covers; a few outliers clipped cost less than a coarse scale for all.
    """
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / int8.name
        quantize_static(
            str(fp32),
            str(raw),
            _Films(planes),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.Percentile,
            op_types_to_quantize=["Conv", "Add"],
            nodes_to_exclude=[head_node(onnx.load(fp32)).name],
            extra_options={"CalibPercentile": percentile},
        )
        runtime("onnxruntime").compile(raw, read_profile("generic"), int8.parent)


def quantized_convolutions(path: Path) -> tuple[int, int]:
    """How many convolutions of a QDQ graph take quantized weights, and how many there are."""
    model = onnx.load(path)
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return sum(node.input[0] in dequantized and node.input[1] in dequantized for node in convolutions), len(
        convolutions
    )

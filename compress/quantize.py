"""Post-training static quantization to a portable QDQ graph."""

import io
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from cxredge.compress.onnx_graph import head_node
from cxredge.devices import read_profile
from cxredge.runtimes import runtime

# It warns, each time it opens a graph, of an input with a default; metadata is one on purpose.
onnxruntime.set_default_logger_severity(3)


# Films whose activations are in memory at once: some 60 to 120 MB each of a MobileNetV2.
BATCH = 10
# A histogram of every batch, merged, for each calibration method whatever the option's name says; without it ONNX Runtime keeps
# all activations of all films to the end.
BY_BATCH = {"CalibStridedMinMax": 1}


class CalibrationFilms(CalibrationDataReader):  # type: ignore[misc]
    """The calibration set, uint8 [N, 1, H, W], in batches."""

    def __init__(self, planes: NDArray[np.uint8]) -> None:
        self._batches = [planes[begin : begin + BATCH] for begin in range(0, len(planes), BATCH)]
        self._left = iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        films = next(self._left, None)
        return None if films is None else {"image": films}


def quantize(
    fp32: Path, int8: Path, planes: NDArray[np.uint8], *, percentile: float, float_layers: Sequence[int] = ()
) -> None:
    """Quantize the convolutions of a graph, their activations and the additions between; the rest stays in float.

    planes: the calibration set, uint8 [N, 1, H, W], real training films. percentile: of the activations that a layer's
    range covers. float_layers: places of the convolutions that stay in float, in the order they run. Weights are signed, per
    channel, in 7 bits: on x86 without VNNI, 8-bit weights with unsigned activations overflow 16-bit sums and give wrong numbers
    silently (ONNX Runtime, quantization guide).
    """
    with tempfile.TemporaryDirectory() as scratch:
        prepared, raw = Path(scratch) / "prepared.onnx", Path(scratch) / int8.name
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        names = [node.name for node in model.graph.node if node.op_type == "Conv"]
        # ONNX Runtime prints the steps of its calibration; the caller says in one line what goes on.
        with redirect_stdout(io.StringIO()):
            quantize_static(
                str(prepared),
                str(raw),
                CalibrationFilms(planes),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                calibrate_method=CalibrationMethod.Percentile,
                # Activations too: named here, they fold into the range of their convolution instead of a second rounding.
                op_types_to_quantize=["Conv", "Clip", "Relu"],
                nodes_to_exclude=[head_node(model).name, *(names[place] for place in float_layers)],
                extra_options=BY_BATCH | {"CalibPercentile": percentile},
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

"""Post-training quantization as TensorRT takes it: signed 8 bits around zero, the bias left in float."""

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from cxredge.compress.onnx_graph import beside_the_network
from cxredge.compress.quantize import BY_BATCH, CalibrationFilms

# As in `compress`: the first convolutions see the raw film and lose most to rounding.
FLOAT_LAYERS = 3
PERCENTILE = 99.99


def quantize_symmetric(
    folded: Path, out: Path, planes: NDArray[np.uint8], *, weight_bits: int, quantize_bias: bool
) -> None:
    """Quantize weights and inputs of the convolutions, with zero points of 0; the rest stays in float.

    folded: a float32 graph whose constants are folded. planes: the calibration set, uint8 [N, 1, H, W]. weight_bits: 7 or 8.
    TensorRT's parser refuses zero points other than 0, uint8, and an int32 bias behind a DequantizeLinear.
    """
    model = onnx.load(folded)
    first = [node.name for node in model.graph.node if node.op_type == "Conv"][:FLOAT_LAYERS]
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()):
        raw = Path(scratch) / out.name
        quantize_static(
            str(folded),
            str(raw),
            CalibrationFilms(planes),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=weight_bits == 7,
            calibrate_method=CalibrationMethod.Percentile,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[*beside_the_network(model), *first],
            extra_options=BY_BATCH
            | {
                "ActivationSymmetric": True,
                "QuantizeBias": quantize_bias,
                "CalibPercentile": PERCENTILE,
                # One rounding before each convolution; TensorRT fuses it with what runs before.
                "OpTypesToExcludeOutputQuantization": ["Conv"],
            },
        )
        out.write_bytes(raw.read_bytes())

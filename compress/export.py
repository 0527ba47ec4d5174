"""A trained network as one ONNX graph that keeps the network's contract."""

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from cxredge.compress.gate import Gate
from cxredge.train.network import FilmNetwork

OPSET = 17
HEAD = "head"


class Contract(nn.Module):
    """image uint8 [N, 1, H, W] -> logits [N, L], cam [N, L, h, w], atypicality [N]."""

    def __init__(self, network: FilmNetwork, columns: list[int], gate: Gate) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Conv2d(network.head.in_channels, len(columns), 1)
        self.head.weight.data = network.head.weight.data[columns].clone()
        cast(Tensor, self.head.bias).data = cast(Tensor, network.head.bias).data[columns].clone()
        self.register_buffer("mean", torch.from_numpy(gate.mean))
        self.register_buffer("spread", torch.from_numpy(gate.spread))
        self.register_buffer("components", torch.from_numpy(gate.components))
        self.register_buffer("scales", torch.from_numpy(gate.scales))
        self.residual = gate.residual

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        middle, maps = self.network.stages(image)
        cam = self.head(maps)
        off = (middle - cast(Tensor, self.mean)) / cast(Tensor, self.spread)
        along = off @ cast(Tensor, self.components)
        whitened = ((along / cast(Tensor, self.scales)) ** 2).mean(1)
        across = ((off**2).sum(1) - (along**2).sum(1)) / self.residual
        return cam.mean((2, 3)), cam, torch.sqrt(whitened + across)


def export_fp32(network: FilmNetwork, columns: list[int], gate: Gate, size: int, out: Path) -> None:
    """Write the full-precision graph: batch norms folded, any batch size, no external data. columns: findings to carry."""
    contract = Contract(network, columns, gate).eval()
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        contract,
        (torch.zeros(1, 1, size, size, dtype=torch.uint8),),
        str(out),
        input_names=["image"],
        output_names=["logits", "cam", "atypicality"],
        dynamic_axes={name: {0: "N"} for name in ("image", "logits", "cam", "atypicality")},
        opset_version=OPSET,
        dynamo=False,
    )
    onnx.checker.check_model(str(out), full_check=True)


def head_node(model: onnx.ModelProto) -> onnx.NodeProto:
    """The convolution whose output is `cam`."""
    found: onnx.NodeProto = next(node for node in model.graph.node if "cam" in node.output and node.op_type == "Conv")
    return found


def fold_calibration(path: Path, scale: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """Fold `logit -> scale * logit + bias` per finding into the last layer of a graph, in place. scale, bias: [L].

    Works on the full-precision and on the quantized graph alike, because the last layer stays in float.
    """
    model = onnx.load(path)
    weight_name, bias_name = head_node(model).input[1:3]
    for tensor in model.graph.initializer:
        if tensor.name == weight_name:
            weight = numpy_helper.to_array(tensor) * scale[:, None, None, None]
            tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float32), weight_name))
        elif tensor.name == bias_name:
            values = numpy_helper.to_array(tensor) * scale + bias
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), bias_name))
    onnx.save(model, path)

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
from cxredge.compress.graph import head_node
from cxredge.train.network import FilmNetwork

OPSET = 17
HEAD = "head"


class Trunk(nn.Module):
    """Everything below the head: image uint8 [N, 1, H, W] -> feature maps halfway and at the end. What gets quantized."""

    def __init__(self, network: FilmNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.both_maps(image)


class Contract(nn.Module):
    """image uint8 [N, 1, H, W] -> logits [N, L], cam [N, L, h, w], atypicality [N].

    trunk: a `Trunk`, or the quantized form of one. Head and gate stay in float: they cost little and decide much.
    """

    def __init__(self, trunk: nn.Module, head: nn.Conv2d, gate: Gate) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.register_buffer("mean", torch.from_numpy(gate.mean))
        self.register_buffer("spread", torch.from_numpy(gate.spread))
        self.register_buffer("components", torch.from_numpy(gate.components))
        self.register_buffer("scales", torch.from_numpy(gate.scales))
        self.residual = gate.residual

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        halfway, maps = self.trunk(image)
        cam = self.head(maps)
        off = (halfway.mean((2, 3)) - cast(Tensor, self.mean)) / cast(Tensor, self.spread)
        along = off @ cast(Tensor, self.components)
        whitened = ((along / cast(Tensor, self.scales)) ** 2).mean(1)
        across = ((off**2).sum(1) - (along**2).sum(1)) / self.residual
        return cam.mean((2, 3)), cam, torch.sqrt(whitened + across)


def head_for(network: FilmNetwork, columns: list[int]) -> nn.Conv2d:
    """The head with the findings to carry, by their columns."""
    head = nn.Conv2d(network.head.in_channels, len(columns), 1)
    head.weight.data = network.head.weight.data[columns].clone()
    cast(Tensor, head.bias).data = cast(Tensor, network.head.bias).data[columns].clone()
    return head


def export(contract: Contract, size: int, out: Path) -> None:
    """Write a graph: batch norms folded, any batch size, no external data."""
    contract.eval()
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


def store_half(fp32: Path, out: Path) -> None:
    """The same graph with its weights kept in 16 bits, half the size: what a bundle carries as its full-precision parent.

    Only storage is 16-bit: a Cast behind each weight, folded when the graph is opened, brings it back to float32.
    """
    model = onnx.load(fp32)
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    for cast_back in reversed(casts):
        model.graph.node.insert(0, cast_back)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out)


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

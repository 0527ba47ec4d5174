"""A trained network as one ONNX graph that keeps the network's contract."""

import warnings
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from cxredge.compress.feature_distance import FeatureDistance
from cxredge.compress.onnx_graph import head_node, offset_weight
from cxredge.train.branch import MetadataBranch
from cxredge.train.metadata import COLUMNS
from cxredge.train.network import FilmNetwork

OPSET = 17
HEAD = "head"
METADATA = "metadata"


class Trunk(nn.Module):
    """Everything below the head: image uint8 [N, 1, H, W] -> feature maps halfway and at the end. What gets quantized."""

    def __init__(self, network: FilmNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.both_maps(image)


class Contract(nn.Module):
    """image uint8 [N, 1, H, W] -> logits [N, L], cam [N, L, h, w], atypicality [N].

    trunk: a `Trunk`, or the quantized form of one. Head and gate stay in float: they cost little and decide much; so does `branch`,
    where the network has one: it takes metadata, float [N, 6], and the logits are the mean of cam and its offsets.
    mirrored: read every film and its mirror image, and give the mean of both: twice the work, for logits that follow the rounding
    and the film's noise less.
    """

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Conv2d,
        gate: FeatureDistance,
        branch: MetadataBranch | None = None,
        *,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.branch, self.mirrored = trunk, head, branch, mirrored
        self.register_buffer("mean", torch.from_numpy(gate.mean))
        self.register_buffer("spread", torch.from_numpy(gate.spread))
        self.register_buffer("components", torch.from_numpy(gate.components))
        self.register_buffer("scales", torch.from_numpy(gate.scales))
        self.residual = gate.residual

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        if self.mirrored:
            # In floats, since TensorRT turns no integers about.
            image = image.float()
            image = torch.cat([image, image.flip(3)])
        halfway, maps = self.trunk(image)
        cam, atypicality = self.head(maps), self._atypicality(halfway)
        if self.mirrored:
            both = cam.reshape(2, -1, *map(int, cam.shape[1:]))
            cam, atypicality = (both[0] + both[1].flip(3)) / 2, atypicality.reshape(2, -1).mean(0)
        logits = cam.mean((2, 3))
        if self.branch is not None and metadata is not None:
            logits = logits + self.branch(metadata)
        return logits, cam, atypicality

    def _atypicality(self, halfway: Tensor) -> Tensor:
        """Distance from the training films, float [N]. halfway: float [N, M, h', w']."""
        off = (halfway.mean((2, 3)) - cast(Tensor, self.mean)) / cast(Tensor, self.spread)
        along = off @ cast(Tensor, self.components)
        whitened = ((along / cast(Tensor, self.scales)) ** 2).mean(1)
        across = ((off**2).sum(1) - (along**2).sum(1)) / self.residual
        return torch.sqrt(whitened + across)


def head_for(network: FilmNetwork, columns: list[int]) -> nn.Conv2d:
    """The head with the findings to carry, by their columns."""
    head = nn.Conv2d(network.head.in_channels, len(columns), 1)
    head.weight.data = network.head.weight.data[columns].clone()
    cast(Tensor, head.bias).data = cast(Tensor, network.head.bias).data[columns].clone()
    return head


def branch_for(network: FilmNetwork, columns: list[int]) -> MetadataBranch | None:
    """The branch for metadata with the findings to carry, by their columns; None where the network has none."""
    if network.metadata is None:
        return None
    branch = MetadataBranch(len(columns))
    branch.hidden.weight.data = network.metadata.hidden.weight.data.clone()
    branch.offset.weight.data = network.metadata.offset.weight.data[columns].clone()
    return branch


def export(contract: Contract, size: int, out: Path) -> None:
    """Write a graph: batch norms folded, any batch size, no external data. Metadata, where there is a branch for it, need not be
    given: the input has a default, "all unknown"."""
    contract.eval()
    out.parent.mkdir(parents=True, exist_ok=True)
    film = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    unknown = torch.zeros(1, len(COLUMNS))
    taken = [METADATA] if contract.branch is not None else []
    with warnings.catch_warnings():
        # All sizes but the number of films are constants, and meant to be.
        warnings.simplefilter("ignore", TracerWarning)
        torch.onnx.export(
            contract,
            (film, unknown) if taken else (film,),
            str(out),
            input_names=["image", *taken],
            output_names=["logits", "cam", "atypicality"],
            # One row of metadata serves any number of films, so its axis is not theirs.
            dynamic_axes={name: {0: "N"} for name in ("image", "logits", "cam", "atypicality")}
            | {name: {0: "M"} for name in taken},
            opset_version=OPSET,
            dynamo=False,
        )
    if taken:
        _give_default(out, unknown.numpy())
    onnx.checker.check_model(str(out), full_check=True)


def _give_default(path: Path, unknown: NDArray[np.float32]) -> None:
    """Make metadata an input that need not be given: one with an initializer (ONNX IR, "overridable initializers").

    ONNX Runtime takes it as such; OpenVINO and TensorRT make it a constant, so that there the films alone are read.
    """
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(unknown, METADATA))
    given = next(one for one in model.graph.input if one.name == METADATA)
    given.doc_string = f"{', '.join(COLUMNS)}; each pair 0 where unknown"
    onnx.save(model, path)


def store_half(fp32: Path, out: Path) -> None:
    """The same graph with its weights kept in 16 bits, half the size: what a bundle carries as its full-precision parent.

    Only storage is 16-bit: a Cast behind each weight, folded when the graph is opened, brings it back to float32.
    """
    model = onnx.load(fp32)
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2 or tensor.name == METADATA:
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
    offset_name = offset_weight(model)
    for tensor in model.graph.initializer:
        if tensor.name == weight_name:
            weight = numpy_helper.to_array(tensor) * scale[:, None, None, None]
            tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float32), weight_name))
        elif tensor.name == bias_name:
            values = numpy_helper.to_array(tensor) * scale + bias
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), bias_name))
        elif tensor.name == offset_name:
            columns = numpy_helper.to_array(tensor) * scale
            tensor.CopyFrom(numpy_helper.from_array(columns.astype(np.float32), offset_name))
    onnx.save(model, path)

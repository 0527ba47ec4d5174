"""A bundle's network as a place to train on from: its graph read back into torch, with the batch norms it was built without."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from cxredge.bundle import Bundle
from cxredge.errors import DataError
from cxredge.train.branch import MetadataBranch
from cxredge.train.network import FilmNetwork, narrow


def network_of(
    bundle: Bundle, findings: tuple[str, ...], planes: NDArray[np.uint8], *, compressed: bool = False
) -> FilmNetwork:
    """The network of a MobileNetV2 bundle, in full precision where the bundle carries it, with a head for `findings`.

    Findings that the bundle does not carry start at zero. planes: a few hundred training films, uint8 [N, 1, H, W]; on them the
    batch norms are set to what training would have found, so that in evaluation mode the logits are the bundle's (of one reading,
    where its graph reads a film and its mirror image), and training goes on from there. compressed: the network as the steps
    before quantization left it, pruned for instance, instead of the one they began with. Raises DataError for another
    architecture.
    """
    if bundle.manifest.architecture != "mobilenet_v2":
        raise DataError(
            f"{bundle.folder.name} is a {bundle.manifest.architecture}; only mobilenet_v2 can be trained on from a bundle"
        )
    graph = (bundle.float_model if compressed else bundle.full_model) or bundle.model
    network = FilmNetwork("mobilenet_v2", len(findings))
    *stored, (weight, bias) = _convolutions(graph)
    if compressed:
        _narrow_to(network, [kernel for kernel, _ in stored])
    layers = [layer for layer in network.features.modules() if isinstance(layer, nn.Conv2d)]
    if [tuple(layer.weight.shape) for layer in layers] != [kernel.shape for kernel, _ in stored]:
        raise DataError(
            f"{bundle.folder.name}: its convolutions are not those of mobilenet_v2 as torchvision builds it"
        )
    for layer, (kernel, _) in zip(layers, stored, strict=True):
        layer.weight.data = torch.from_numpy(kernel.copy())
    _set_norms(network, [torch.from_numpy(shift.copy()) for _, shift in stored], planes)
    own = {name: column for column, name in enumerate(bundle.manifest.names)}
    network.head.weight.data.zero_()
    for column, finding in enumerate(findings):
        if finding in own:
            network.head.weight.data[column] = torch.from_numpy(weight[own[finding]].copy())
            cast(Tensor, network.head.bias).data[column] = float(bias[own[finding]])
    if (stored_branch := _branch(graph)) is not None:
        hidden, offset = stored_branch
        network.metadata = branch = MetadataBranch(len(findings))
        branch.hidden.weight.data = torch.from_numpy(hidden.T.copy())
        for column, finding in enumerate(findings):
            if finding in own:
                branch.offset.weight.data[column] = torch.from_numpy(offset[:, own[finding]].copy())
    return network


def _narrow_to(network: FilmNetwork, kernels: list[NDArray[np.float32]]) -> None:
    """Take the channels out of a network that these kernels, of its convolutions in order, do not have."""
    state = {"head.weight": torch.empty(len(network.head.weight), len(kernels[-1]), 1, 1)}
    convolutions, norms = (
        [name for name, layer in network.named_modules() if isinstance(layer, kind) and name != "head"]
        for kind in (nn.Conv2d, nn.BatchNorm2d)
    )
    for convolution, norm, kernel in zip(convolutions, norms, kernels, strict=False):
        state |= {f"{convolution}.weight": torch.from_numpy(kernel), f"{norm}.weight": torch.empty(len(kernel))}
    narrow(network, state)


def _convolutions(path: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Kernel and bias of every convolution of a graph in the order of execution, as floats; the head comes last."""
    graph = onnx.load(path).graph
    value = _values(graph)
    return [(value(node.input[1]), value(node.input[2])) for node in graph.node if node.op_type == "Conv"]


def _branch(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Weights of the branch for metadata, [6, hidden] and [hidden, L], where a graph has one."""
    model = onnx.load(path)
    if not any(given.name == "metadata" for given in model.graph.input):
        return None
    value = _values(model.graph)
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    hidden = next(node for node in products if node.input[0] == "metadata")
    relu = next(node for node in model.graph.node if hidden.output[0] in node.input)
    offset = next(node for node in products if node.input[0] == relu.output[0])
    return value(hidden.input[1]), value(offset.input[1])


def _values(graph: onnx.GraphProto) -> Callable[[str], NDArray[np.float32]]:
    """What gives a graph's constant as floats, by its name, however it is stored."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}

    def value(name: str) -> NDArray[np.float32]:
        if name in stored:
            return stored[name].astype(np.float32)
        node = made_by[name]
        if node.op_type == "Cast":
            return value(node.input[0])
        integers, scale = stored[node.input[0]].astype(np.float32), stored[node.input[1]].astype(np.float32)
        # One scale per output channel, which is the first axis of a kernel.
        return integers * scale.reshape(-1, *[1] * (integers.ndim - 1))

    return value


@torch.no_grad()
def _set_norms(network: FilmNetwork, shifts: list[Tensor], planes: NDArray[np.uint8], batch: int = 32) -> None:
    """Give each batch norm the mean and variance of what reaches it, and the scale and bias that undo them but for `shifts`."""
    norms = [layer for layer in network.features.modules() if isinstance(layer, nn.BatchNorm2d)]
    sums = [torch.zeros(2, len(shift), dtype=torch.float64) for shift in shifts]
    seen = [0] * len(norms)
    for norm, shift in zip(norms, shifts, strict=True):
        _settle(norm, torch.zeros_like(shift), torch.ones_like(shift), shift)
    hooks = [
        norm.register_forward_pre_hook(lambda _, given, i=i: _add(given[0], sums, seen, i))
        for i, norm in enumerate(norms)
    ]
    network.eval()
    for films in np.array_split(planes, max(1, len(planes) // batch)):
        network.maps(torch.from_numpy(np.ascontiguousarray(films)))
    for hook in hooks:
        hook.remove()
    for norm, shift, (first, second), count in zip(norms, shifts, sums, seen, strict=True):
        mean = first / count
        _settle(norm, mean.float(), (second / count - mean**2).clamp_min(0).float(), shift)


def _add(given: Tensor, sums: list[Tensor], seen: list[int], i: int) -> None:
    sums[i] += torch.stack([given.double().sum((0, 2, 3)), given.double().pow(2).sum((0, 2, 3))])
    seen[i] += given.numel() // given.shape[1]


def _settle(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, shift: Tensor) -> None:
    cast(Tensor, norm.running_mean).copy_(mean)
    cast(Tensor, norm.running_var).copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(shift + mean)

"""Structured pruning: whole channels leave the network, with every layer that made or took them.

Which channels hang together is torch-pruning's to find (Fang et al., DepGraph, CVPR 2023). How many leave is not a ratio picked
by hand: it is searched until the network has the multiplications, or the latency, that were asked for. Latency is measured before
quantization; the report says what is left of the gain behind it.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxredge.compress.export import OPSET
from cxredge.compress.measure import Job, measure
from cxredge.errors import CxredgeError
from cxredge.train.losses import masked_loss
from cxredge.train.network import FilmNetwork

# Of one layer, what may leave at most: a layer cut to nothing breaks the network for a few multiplications.
AT_MOST = 0.75
# Halvings of the range of ratios: the last two differ by a hundredth, less than rounding channel counts does.
HALVINGS = 6
BATCH = 32


def prune(
    network: FilmNetwork,
    planes: NDArray[np.uint8],
    labels: NDArray[np.float32],
    *,
    importance: Literal["taylor", "group-norm"],
    macs: float | None = None,
    latency: float | None = None,
    engine: str = "onnxruntime",
    round_to: int = 8,
) -> FilmNetwork:
    """A copy with the least important channels gone, in evaluation mode, not yet trained again.

    planes: training films, uint8 [N, 1, H, W]; labels: float [N, L] in {0, 1, nan}; they weigh the channels where `importance` is
    "taylor" (Molchanov et al., CVPR 2019: weight times gradient), "group-norm" needs none of them. macs, latency: what is left
    of the multiplications, or of the milliseconds in `engine` (full precision, one thread), as a share in (0, 1); one of the
    two. round_to: channel counts that the target's kernels like. The findings all stay, and the head with them.
    Raises CxredgeError where that much cannot leave.
    """
    if (macs is None) == (latency is None):
        raise CxredgeError("prune to a share of the multiplications or of the latency: one of the two")
    original = copy.deepcopy(network).eval()
    if importance == "taylor":
        _gradients(original, planes, labels)
    size = planes.shape[-1]
    if latency is None:
        whole = count(original, size)[0]
        left: Callable[[FilmNetwork], float] = lambda cut: count(cut, size)[0] / whole  # noqa: E731 - one of two ways
    else:
        left = _latency(original, engine, size)
    wanted = macs or latency or 1.0
    low, high = 0.0, AT_MOST
    found: FilmNetwork | None = None
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        cut = _cut(original, ratio, importance, size, round_to)
        if left(cut) <= wanted:
            found, high = cut, ratio
        else:
            low = ratio
    if found is None:
        raise CxredgeError(
            f"pruned to {wanted:.0%}, {network.architecture} would lose more than {AT_MOST:.0%} of a layer; ask for less"
        )
    return found


def count(network: FilmNetwork, size: int) -> tuple[float, int]:
    """Multiplications for one film of `size` pixels, and parameters."""
    import torch_pruning

    example = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    macs, parameters = torch_pruning.utils.count_ops_and_params(copy.deepcopy(network).eval(), example)
    return float(macs), int(parameters)


def _cut(original: FilmNetwork, ratio: float, importance: str, size: int, round_to: int) -> FilmNetwork:
    import torch_pruning

    network = copy.deepcopy(original)
    for own, parameter in zip(network.parameters(), original.parameters(), strict=True):
        own.grad = None if parameter.grad is None else parameter.grad.clone()
    weigh = (
        torch_pruning.importance.GroupTaylorImportance()
        if importance == "taylor"
        else torch_pruning.importance.GroupMagnitudeImportance(p=2)
    )
    torch_pruning.pruner.BasePruner(
        network,
        torch.zeros(1, 1, size, size, dtype=torch.uint8),
        importance=weigh,
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=AT_MOST,
        ignored_layers=[network.head],
        round_to=round_to,
    ).step()
    network.zero_grad(set_to_none=True)
    return network.eval()


def _gradients(network: FilmNetwork, planes: NDArray[np.uint8], labels: NDArray[np.float32]) -> None:
    """Leave on every parameter the gradient of the loss over these films."""
    network.zero_grad(set_to_none=True)
    for begin in range(0, len(planes), BATCH):
        films = torch.from_numpy(np.ascontiguousarray(planes[begin : begin + BATCH]))
        known = torch.from_numpy(labels[begin : begin + BATCH])
        if not known.isnan().all():
            masked_loss(network(films), known).backward()


class _Scores(nn.Module):
    """What an engine of ours opens: logits and class activation map."""

    def __init__(self, network: FilmNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        cam = self.network.head(self.network.maps(image))
        return cam.mean((2, 3)), cam


def _latency(original: FilmNetwork, engine: str, size: int) -> Callable[[FilmNetwork], float]:
    """Milliseconds of a network over those of the original, both measured in one run, in turns."""

    def share(network: FilmNetwork) -> float:
        film = np.zeros((1, 1, size, size), np.uint8)
        with tempfile.TemporaryDirectory() as scratch:
            jobs = []
            for name, each in (("original", original), ("cut", network)):
                file = Path(scratch) / f"{name}.onnx"
                torch.onnx.export(
                    _Scores(copy.deepcopy(each)).eval(), (torch.from_numpy(film),), str(file), opset_version=OPSET,
                    input_names=["image"], output_names=["logits", "cam"], dynamo=False,
                )  # fmt: skip
                jobs.append(Job(engine, file, threads=1, spinning=False, arena=True, timed=True))
            whole, cut = measure(jobs, film)
        if error := whole.error or cut.error:
            raise CxredgeError(f"{engine} cannot run the pruned network: {error}")
        return float(np.median(cut.milliseconds) / np.median(whole.milliseconds))

    return share

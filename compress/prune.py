"""Structured pruning: whole channels leave the network, with every layer that made or took them.

Whole channels, because single weights that are zero bring nothing: with 70 % of them, scattered, ONNX Runtime and OpenVINO take
as long as with none, within 4 % (see `sparsity`). How many leave is not a ratio picked by hand: it is searched until the network
has the multiplications, or the latency, that were asked for. Latency is measured before quantization; the report says what is left
of the gain behind it.
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxredge.compress.channels import Group, Importance, channel_groups, without
from cxredge.compress.export import OPSET
from cxredge.compress.measure import Job, measure
from cxredge.compress.sensitivity import Probe, leaving
from cxredge.errors import CxredgeError
from cxredge.train.losses import masked_loss
from cxredge.train.macs import macs_of
from cxredge.train.network import FilmNetwork

# Of one group, what may leave at most: a layer cut to nothing breaks the network for a few multiplications.
AT_MOST = 0.75
# Of all channels, those that leave: two ratios differ by a hundredth, less than rounding channel counts does.
RATIOS = np.arange(1, 128) / 128
# Of the aim, what is left may lie so far below without a word.
FAR_BELOW = 0.05
BATCH = 32
Say = Callable[[str], None]


def weighed(
    network: FilmNetwork, planes: NDArray[np.uint8], labels: NDArray[np.float32], importance: Importance
) -> list[Group]:
    """The groups of channels of a network in evaluation mode, each with the importance of its channels.

    planes: training films, uint8 [N, 1, H, W]; labels: float [N, L] in {0, 1, nan}; they weigh the channels where `importance` is
    "taylor" (Molchanov et al., CVPR 2019: weight times gradient), "group-norm" needs none of them.
    """
    original = copy.deepcopy(network).eval()
    if importance == "taylor":
        _gradients(original, planes, labels)
    return channel_groups(original, planes.shape[-1], importance)


def prune(
    network: FilmNetwork,
    groups: Sequence[Group],
    size: int,
    *,
    macs: float | None = None,
    latency: float | None = None,
    engine: str = "onnxruntime",
    round_to: int = 16,
    probes: Sequence[Probe] = (),
    say: Say = lambda _line: None,
) -> FilmNetwork:
    """A copy with the least important channels gone, in evaluation mode, not yet trained again.

    groups: of this network (see `weighed`). size: side of a film in pixels. macs, latency: what is left of the multiplications, or
    of the milliseconds in `engine` (full precision, one thread), as a share in (0, 1); one of the two. round_to: channel counts
    that the target's kernels like. probes: a scan of these groups; from each as much leaves then as moves the probabilities alike,
    instead of the least important channels of all. say: told where far more leaves than was asked for.
    The findings all stay, and the head with them. Raises CxredgeError where that much cannot leave.
    """
    if (macs is None) == (latency is None):
        raise CxredgeError("prune to a share of the multiplications or of the latency: one of the two")
    if latency is None:
        whole = macs_of(network, size)
        left: Callable[[FilmNetwork], float] = lambda cut: macs_of(cut, size) / whole  # noqa: E731 - one of two ways
    else:
        left = _latency(network, engine, size)
    wanted = macs or latency or 1.0
    tries = _equally_dear(groups, probes, round_to) if probes else _least_important(groups, round_to)
    low, high = -1, len(tries)
    found, share = None, 0.0
    while high - low > 1:
        middle = (low + high) // 2
        cut = without(network, size, groups, tries[middle])
        if (now := left(cut)) <= wanted:
            found, share, high = cut, now, middle
        else:
            low = middle
    if found is None:
        raise CxredgeError(
            f"pruned to {wanted:.0%}, {network.architecture} would lose more than {AT_MOST:.0%} of a layer; ask for less"
        )
    if wanted - share > FAR_BELOW:
        say(
            f"Pruned to {share:.0%}, where {wanted:.0%} was asked for: one step less leaves more than that; a smaller `round_to`,"
            " or more films for `sensitivity`, makes finer steps"
        )
    return found


def _least_important(groups: Sequence[Group], round_to: int) -> list[dict[str, int]]:
    """Of each group, how many channels leave so that of all of them a ratio does, where no group is at its limit.

    In the order of rising ratios.
    """
    found = []
    for threshold in np.quantile(np.concatenate([group.weights for group in groups]), RATIOS):
        shares = {group.name: float((group.weights <= threshold).mean()) for group in groups}
        found.append({g.name: leaving(len(g), min(shares[g.name], AT_MOST), round_to) for g in groups})
    return found


def _equally_dear(groups: Sequence[Group], probes: Sequence[Probe], round_to: int) -> list[dict[str, int]]:
    """Of each group, how many channels leave so that by itself it moves the probabilities by no more than a limit.

    In the order of rising limits, all of those at which one group more, or more of a group, leaves. Between two probes a straight
    line; beyond the last one nothing is known, and nothing leaves.
    """
    prices: dict[str, list[tuple[float, int]]] = {}
    for group in groups:
        own = sorted((probe for probe in probes if probe.group == group.name), key=lambda probe: probe.gone)
        gone = [0, *(probe.gone for probe in own)]
        moved = np.maximum.accumulate([0.0, *(probe.moved for probe in own)])
        steps = [number for number in range(len(group) % round_to, gone[-1] + 1, round_to) if number]
        prices[group.name] = [(float(np.interp(number, gone, moved)), number) for number in steps]
    limits = sorted({price for steps in prices.values() for price, _ in steps})
    return [
        {name: max((number for price, number in steps if price <= limit), default=0) for name, steps in prices.items()}
        for limit in limits
    ]


def _gradients(network: FilmNetwork, planes: NDArray[np.uint8], labels: NDArray[np.float32]) -> None:
    """Leave on every parameter the gradient of the loss over these films, for the findings that the network knows."""
    network.zero_grad(set_to_none=True)
    # A network read from a bundle says nan of the findings of other sources: one such label would make every weight nan.
    labels = np.where(cast(Tensor, network.head.bias).isnan().numpy(), np.nan, labels).astype(np.float32)
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
                jobs.append(Job(engine, file))
            whole, cut = measure(jobs, film)
        if error := whole.error or cut.error:
            raise CxredgeError(f"{engine} cannot run the pruned network: {error}")
        return float(np.median(cut.milliseconds) / np.median(whole.milliseconds))

    return share

"""What each group of channels costs by itself: a part of it leaves, nothing is trained, and the films are read again.

A scan of this kind is how layers were chosen before whole networks were searched (Li et al., Pruning Filters for Efficient
ConvNets, ICLR 2017). It reads training films: validation stays what it is judged by.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxredge.compress.channels import Group, without
from cxredge.train import plots
from cxredge.train.macs import macs_of
from cxredge.train.network import FilmNetwork

# Of a group's channels, those that leave for a look at it.
SHARES = (0.25, 0.5, 0.75)
FILE = "sensitivity.json"
BATCH = 20
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Probe:
    """One group without some of its channels. channels: how many it has; gone: how many left.

    moved: mean absolute difference of probability, films and findings alike. macs: share of the network's multiplications saved.
    """

    group: str
    channels: int
    gone: int
    moved: float
    macs: float


def scan(
    network: FilmNetwork, groups: Sequence[Group], planes: NDArray[np.uint8], *, round_to: int, tick: Tick | None = None
) -> list[Probe]:
    """Each group at each share, its least important channels first, rounded as pruning rounds.

    network: in evaluation mode. planes: some dozens of training films, uint8 [N, 1, H, W]. tick: called with the networks tried and
    those in all. Where rounding makes two shares one, it is tried once.
    """
    size = planes.shape[-1]
    whole, said = macs_of(network, size), _probabilities(network, planes)
    tries = [
        (group, gone) for group in groups for gone in sorted({leaving(len(group), s, round_to) for s in SHARES}) if gone
    ]
    found = []
    for number, (group, gone) in enumerate(tries, 1):
        cut = without(network, size, groups, {group.name: gone})
        moved = float(np.nanmean(np.abs(_probabilities(cut, planes) - said)))
        saved = 1 - macs_of(cut, size) / whole
        found.append(Probe(group.name, len(group), gone, moved, saved))
        if tick is not None:
            tick(number, len(tries))
    return found


def leaving(channels: int, share: float, round_to: int) -> int:
    """How many channels leave so that at most that share does, and what is left is a multiple of round_to."""
    kept = channels - int(channels * share)
    return max(channels - -(-kept // round_to) * round_to, 0)


def write(found: Sequence[Probe], run: Path) -> None:
    """Keep a scan beside the network that was pruned by it."""
    (run / FILE).write_text(json.dumps([asdict(probe) for probe in found], indent=1) + "\n", encoding="utf-8")


def read(run: Path) -> tuple[Probe, ...]:
    """The scan of a step, empty where it made none."""
    file = run / FILE
    return tuple(Probe(**row) for row in json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else ()


def drawn(found: Sequence[Probe]) -> str:
    """Every group's course as one small line, SVG: multiplications saved against what the probabilities moved."""
    names = list(dict.fromkeys(probe.group for probe in found))
    with plots.drawing(6.4, 3.8) as (figure, axes):
        ax = axes[0, 0]
        dearest = sorted(names, key=lambda name: -max(_price(p) for p in found if p.group == name))[: len(plots.SERIES)]
        for name in names:
            own = [probe for probe in found if probe.group == name]
            x, y = [0.0, *(100 * p.macs for p in own)], [0.0, *(p.moved for p in own)]
            if name in dearest:
                colour, marker = plots.SERIES[dearest.index(name)]
                ax.plot(x, y, color=colour, marker=marker, ms=4, lw=1.2, label=f"{name} ({own[0].channels})", zorder=3)
            else:
                ax.plot(x, y, color=plots.GREY, lw=0.7, alpha=0.6)
        ax.set_xlabel("multiplications saved, % of the network's")
        ax.set_ylabel("mean |difference of probability|")
        ax.legend(fontsize=7, title="dearest per multiplication saved (channels)", title_fontsize=7)
        return plots.svg(figure)


def _price(probe: Probe) -> float:
    return probe.moved / max(probe.macs, 1e-9)


@torch.no_grad()
def _probabilities(network: FilmNetwork, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 [N, L], nan where the network does not know the finding."""
    parts = torch.from_numpy(np.ascontiguousarray(planes)).split(BATCH)
    found: NDArray[np.float32] = torch.cat([network(part).sigmoid() for part in parts]).numpy()
    return found

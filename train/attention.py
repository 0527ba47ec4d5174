"""Where a student looks, matched with where its teachers look: their class activation maps on the same film.

A teacher's logit says what a film shows, its map says where (Zagoruyko and Komodakis, ICLR 2017, match maps of features; those of
classes need no layer of the two networks to correspond, nor to have as many channels).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxredge.train.network import FilmNetwork


class WithMaps(nn.Module):
    """A network that gives its class activation maps beside its logits, in one pass that several processes can share."""

    def __init__(self, network: FilmNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits, float [N, L], and maps, float [N, L, h, w]. image, metadata: as the network takes them."""
        maps = self.network.maps(image)
        return self.network.logits(maps, metadata), cast(Tensor, self.network.head(maps))


def cam_total(cams: Tensor, taught: list[Tensor]) -> Tensor:
    """Sum over films and findings of the squared distance between the student's map and the teachers' mean map, a scalar.

    cams: float [N, L, h, w]; taught: of each teacher, float [N, L, h', w'], nan where it does not know the finding. All are brought
    to the coarsest grid of them. Of each map its mean is taken off, which is the logit, and its length is made 1: only where it is
    high and low counts, so a pair costs 0 (the same map) to 4 (its negative).
    """
    grid = min(((cam.shape[-2], cam.shape[-1]) for cam in (cams, *taught)), key=lambda side: side[0] * side[1])
    told = torch.stack([_on(cam.float(), grid) for cam in taught]).nanmean(0)
    known = ~told.isnan().any((2, 3))
    return (_pattern(_on(cams.float(), grid)[known]) - _pattern(told[known])).pow(2).sum()


def _on(cams: Tensor, grid: tuple[int, int]) -> Tensor:
    return cams if tuple(cams.shape[-2:]) == grid else F.adaptive_avg_pool2d(cams, grid)


def _pattern(cams: Tensor) -> Tensor:
    """float [K, h, w] -> [K, h * w], mean 0, length 1; a flat map has no pattern and stays 0."""
    flat = cams.flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True), eps=1e-6)

"""Augmentation of whole batches of films, as tensors."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def augment(films: Tensor, generator: torch.Generator, *, mirror: bool = False) -> Tensor:
    """What a film may differ in and still be the same film: position, proportions, exposure, contrast, a covered patch.

    films: uint8 [N, 1, H, W] -> uint8, same shape. Rotation to 8 degrees, scale 0.88-1.14, each side stretched by up to
    12 % (published copies are squashed to squares, a clinic's are not), shift to 6 %, gamma 0.7-1.4, contrast, noise.
    Mirrored, every other film on average, only when asked: a network that saw that can no longer tell dextrocardia.
    generator: of the CPU, whatever device the films are on.
    """
    n, device = len(films), films.device
    if mirror:
        turned = torch.rand(n, generator=generator) < 0.5
        films = torch.where(turned.view(n, 1, 1, 1).to(device), films.flip(-1), films)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * (high - low) + low).to(device)

    angle, stretch = uniform(-8, 8) * math.pi / 180, uniform(-0.12, 0.12)
    scale = uniform(0.88, 1.14)
    sx, sy = scale * (1 + stretch), scale * (1 - stretch)
    cos, sin = angle.cos(), angle.sin()
    grid = _grid(
        torch.stack([cos * sx, -sin * sx, uniform(-0.12, 0.12)]),
        torch.stack([sin * sy, cos * sy, uniform(-0.12, 0.12)]),
        films.shape[-1],
    )
    # In place from here: at this size a new array costs as much as what is computed into it.
    moved = torch.nn.functional.grid_sample(films.float().div_(255), grid, align_corners=False)
    moved.pow_(uniform(0.7, 1.4, 1, 1, 1)).mul_(uniform(0.85, 1.1, 1, 1, 1)).add_(uniform(-0.05, 0.05, 1, 1, 1))
    # A generator of the device, seeded from the one that checkpoints hold: so a resumed run draws the same on a GPU too.
    drawing = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    noise = torch.randn(moved.shape, generator=drawing, device=device)
    film = moved.add_(noise.mul_(uniform(0, 0.02, 1, 1, 1))).clamp_(0, 1).mul_(255).to(torch.uint8)
    side = films.shape[-1]
    for i in torch.nonzero(torch.rand(n, generator=generator) < 0.25).flatten().tolist():
        high, wide = torch.randint(side // 16, side // 5, (2,), generator=generator).tolist()
        top = int(torch.randint(0, side - high, (1,), generator=generator))
        left = int(torch.randint(0, side - wide, (1,), generator=generator))
        film[i, :, top : top + high, left : left + wide] = 0
    return film


def _grid(x: Tensor, y: Tensor, side: int) -> Tensor:
    """Where each pixel of an affine image is taken from, float [N, side, side, 2], as `affine_grid` without aligned corners.

    x, y: float [3, N], what the old x or y takes of the new x, of the new y, and besides. Sums of a row and a column: a third of
    the time of a matrix product with three columns.
    """
    at = (2 * torch.arange(side, device=x.device) + 1) / side - 1
    grid = torch.empty(x.shape[1], side, side, 2, device=x.device)
    for axis, (of_x, of_y, shift) in enumerate((x, y)):
        columns = of_x.view(-1, 1, 1) * at
        rows = of_y.view(-1, 1, 1) * at.view(-1, 1) + shift.view(-1, 1, 1)
        torch.add(columns, rows, out=grid[..., axis])
    return grid


def mixup(
    films: Tensor, labels: Tensor, sources: NDArray[np.str_], alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Each film blended with another of its source, and its labels likewise (Zhang et al., ICLR 2018).

    films: uint8 [N, 1, H, W]; labels: float [N, L] in {0, 1, nan}; sources: [N]; alpha: of the Beta distribution that the share is
    drawn from, one per film. Returns the same shapes and dtypes. A label is known only where both films' is. Partners are of one
    source because two sources label different findings: across them nothing would stay known.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    partner = np.arange(len(films))
    for source in np.unique(sources):
        own = np.flatnonzero(sources == source)
        partner[own] = rng.permutation(own)
    # The larger share stays a film's own: two films blended half and half and their partners would be the same film twice.
    drawn = rng.beta(alpha, alpha, len(films))
    share = torch.from_numpy(np.maximum(drawn, 1 - drawn)).float()
    wide = share.view(-1, 1, 1, 1).to(films.device)
    mixed = (wide * films.float() + (1 - wide) * films[partner].float()).round().to(torch.uint8)
    return mixed, share.view(-1, 1) * labels + (1 - share.view(-1, 1)) * labels[partner]

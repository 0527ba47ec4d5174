"""Where a class activation map is strongest, in the film's own geometry."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxredge.imaging.overlay import film_part
from cxredge.imaging.preprocess import Film

# Fine enough that a box of a nodule spans several cells.
_SIDE = 56


def strongest(film: Film, cam: NDArray[np.float32]) -> tuple[float, float]:
    """Where a finding's evidence is strongest: x and y as fractions of the film's width and height, letterbox left out.

    cam: float32 [h, w], over the whole letterboxed square. For the pointing game (Zhang et al., Top-down Neural Attention,
    IJCV 2018).
    """
    size, part = film_part(film, cam.shape, _SIDE)
    over = np.asarray(Image.fromarray(cam).resize(size, Image.Resampling.BICUBIC, box=part))
    y, x = np.unravel_index(int(over.argmax()), over.shape)
    return (float(x) + 0.5) / over.shape[1], (float(y) + 0.5) / over.shape[0]

"""Our CLAHE is OpenCV's, to one grey level."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxredge.imaging.clahe import clahe

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize(("rows", "columns"), [(224, 224), (224, 190), (190, 224), (320, 320), (213, 200), (230, 224)])
@pytest.mark.parametrize("clip_limit", [1.0, 3.0, 40.0])
def test_clahe_is_within_one_grey_level_of_opencv(
    film8: NDArray[np.uint8], film12: NDArray[np.uint16], rows: int, columns: int, clip_limit: float
) -> None:
    for film in (film8, (film12 >> 4).astype(np.uint8)):
        grey = np.asarray(Image.fromarray(film).resize((columns, rows)))
        ours = clahe(grey, clip_limit=clip_limit)
        theirs = cv2.createCLAHE(clip_limit, (10, 10)).apply(grey)
        assert ours.dtype == np.uint8
        off = np.abs(ours.astype(int) - theirs)
        assert off.max() <= 1
        assert (off > 0).mean() < 0.005


def test_clahe_with_other_tiles_follows_opencv(film8: NDArray[np.uint8]) -> None:
    theirs = cv2.createCLAHE(2.0, (8, 8)).apply(film8)
    assert np.abs(clahe(film8, tiles=8, clip_limit=2.0).astype(int) - theirs).max() <= 1

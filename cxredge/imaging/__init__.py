"""Film to pixels: one decode-and-preprocess road for training, calibration, evaluation and scan."""

from cxredge.imaging.late_gdcm import put_off_gdcm
from cxredge.imaging.preprocess import Film, Preprocessing, read_film

# No module imported above imports pydicom, and every one below this package that does is imported after this line.
put_off_gdcm()

__all__ = ["Film", "Preprocessing", "read_film"]

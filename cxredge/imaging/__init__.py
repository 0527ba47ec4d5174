"""Film to pixels: one decode-and-preprocess road for training, calibration, evaluation and scan."""

from cxredge.imaging.preprocess import Film, Preprocessing, read_film

__all__ = ["Film", "Preprocessing", "read_film"]

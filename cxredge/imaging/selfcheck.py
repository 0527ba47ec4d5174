"""Are the decoders here and right? Tiny films of every kind, decoded and compared with what was put in."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from cxredge.errors import CxredgeError
from cxredge.imaging.dicom import read_dicom
from cxredge.imaging.raster import read_raster

SAMPLES = Path(__file__).parent / "samples"
SIDE = 32
# Transfer syntaxes by pydicom's keyword.
LOSSLESS = (
    *("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"),
    *("RLELossless", "JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless"),
)
LOSSY = ("JPEGBaseline8Bit", "JPEGExtended12Bit", "JPEGLSNearLossless", "JPEG2000")
PICTURES = ("PNG", "TIFF", "BMP", "JPEG")
# Grey levels that lossy coding may change of this smooth pattern.
LOSS = 8


@dataclass(frozen=True)
class Decoded:
    """What became of one kind of film. problem: a sentence; empty when it came back as it went in."""

    kind: str
    problem: str


def pattern() -> NDArray[np.uint8]:
    """What every sample shows: a slope, uint8 [32, 32], grey levels 20 to 237."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    slope: NDArray[np.uint8] = (20 + 3 * rows + 4 * columns).astype(np.uint8)
    return slope


def check_decoders() -> list[Decoded]:
    """Decode every sample that came with cxredge."""
    films = [
        (_title(keyword), SAMPLES / f"{keyword}.dcm", 0 if keyword in LOSSLESS else LOSS)
        for keyword in (*LOSSLESS, *LOSSY)
    ]
    films += [(kind, SAMPLES / f"film.{kind.lower()}", LOSS if kind == "JPEG" else 0) for kind in PICTURES]
    return [Decoded(kind, _problem(path, allowed)) for kind, path, allowed in films]


def _title(keyword: str) -> str:
    # Its 12-bit form needs the extra `fast`.
    bits = ", 8 bits" if keyword == "JPEGExtended12Bit" else ""
    return f"DICOM {uid.UID(getattr(uid, keyword)).name.partition(':')[0]}{bits}"


def _problem(path: Path, allowed: int) -> str:
    try:
        plane = read_dicom(path) if path.suffix == ".dcm" else read_raster(path, at_least=SIDE)
    except (CxredgeError, OSError) as error:
        return str(error)
    if plane.pixels.shape != (SIDE, SIDE):
        return f"it came back as {plane.pixels.shape} pixels"
    off = int(np.abs(plane.pixels.astype(int) - pattern()).max())
    return f"its grey values are off by up to {off} levels; reinstall the decoder's package" if off > allowed else ""

"""GDCM is in memory only where it decodes something, and gives what it always gave."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import uid

from cxredge.imaging.preprocess import decode

PROGRAM = """
import sys
{before}
from cxredge.imaging.preprocess import decode
from pathlib import Path
pixels = decode(Path(sys.argv[1]), at_least=32).pixels
print("_gdcm" in sys.modules, int(pixels.astype("i8").sum()), pixels.shape)
from pydicom.pixels.decoders import JPEGLosslessSV1Decoder
print("gdcm" in JPEGLosslessSV1Decoder.available_plugins)
"""
WITHOUT_FAST = 'sys.modules["imagecodecs"] = None\nimport importlib.util as u\nfind = u.find_spec\n'
WITHOUT_FAST += 'u.find_spec = lambda name, *more: None if name == "imagecodecs" else find(name, *more)'


def told(film: Path, before: str = "") -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before), film], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    loaded, *figures, available = run.stdout.split()
    assert available == "True"
    return [loaded, " ".join(figures)]


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless, uid.JPEGLosslessSV1])
def test_gdcm_is_loaded_where_it_decodes_and_nowhere_else(
    write_dicom: Callable[..., Path], film8: NDArray[np.uint8], syntax: uid.UID
) -> None:
    film = write_dicom(film8, syntax=syntax)
    pixels = decode(film, at_least=32).pixels
    figures = f"{int(pixels.astype('i8').sum())} {pixels.shape}"
    assert told(film) == ["False", figures]
    assert told(film, WITHOUT_FAST) == [str(syntax == uid.JPEGLosslessSV1), figures]
    # Who loaded it before keeps it.
    assert told(film, "import gdcm") == ["True", figures]

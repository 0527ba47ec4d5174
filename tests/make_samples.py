"""Make the tiny films that `cxredge doctor` decodes, one of each kind:  python tests/make_samples.py

They show the pattern of `cxredge.imaging.selfcheck.pattern`, so that what comes back can be compared.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

sys.path.insert(0, str(Path(__file__).parent / "imaging"))
from conftest import coded, header

from cxredge.imaging.selfcheck import LOSSLESS, LOSSY, PICTURES, SAMPLES, pattern


def dicom(syntax: uid.UID) -> bytes:
    pixels = pattern()
    dataset = header(pixels, 8)
    del dataset.PatientName
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated:
        frame = jpeg_2000() if syntax == uid.JPEG2000 else coded(pixels, dataset, syntax)
        dataset.add_new("PixelData", "OB", encapsulate([frame]))
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.add_new("PixelData", "OB", pixels.tobytes())
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True, little_endian=syntax.is_little_endian)
    return buffer.getvalue()


def jpeg_2000() -> bytes:
    """Irreversible, at half the size: so small a picture has nothing to spare for the usual eighth."""
    buffer = io.BytesIO()
    settings = {"irreversible": True, "no_jp2": True, "quality_mode": "rates", "quality_layers": [2]}
    Image.fromarray(pattern()).save(buffer, "JPEG2000", **settings)
    return buffer.getvalue()


if __name__ == "__main__":
    SAMPLES.mkdir(exist_ok=True)
    for keyword in (*LOSSLESS, *LOSSY):
        (SAMPLES / f"{keyword}.dcm").write_bytes(dicom(getattr(uid, keyword)))
    for kind in PICTURES:
        Image.fromarray(pattern()).save(SAMPLES / f"film.{kind.lower()}", kind)

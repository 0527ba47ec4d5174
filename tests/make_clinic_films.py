"""Make films of a clinic's sizes and transfer syntaxes from the small public copies at hand.

    python tests/make_clinic_films.py DATA/chestxray14/images FOLDER 1000

The copies are 320 x 320 pixels of 8 bits. They are enlarged to about 2000 x 2000 (bicubic: there is no finer detail in them, but
decoders have as much to do as in a clinic) and written every second one as JPEG, the others as DICOM in five transfer syntaxes in
turn: uncompressed, JPEG baseline (8 bits), JPEG Lossless, JPEG-LS and JPEG 2000 lossless (12 bits with a detector's noise).
"""

import io
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from make_examples import header, recoded, save, set_frame
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid

SIDES = (1840, 2000, 2140)
# Standard deviation in 4096 grey values.
NOISE = 6.0
SYNTAXES: tuple[tuple[uid.UID, int | None], ...] = (
    (uid.ExplicitVRLittleEndian, None),
    (uid.JPEGBaseline8Bit, None),
    (uid.JPEGLosslessSV1, gdcm.TransferSyntax.JPEGLosslessProcess14_1),
    (uid.JPEGLSLossless, gdcm.TransferSyntax.JPEGLSLossless),
    (uid.JPEG2000Lossless, gdcm.TransferSyntax.JPEG2000Lossless),
)


def write_films(films: Sequence[Path], folder: Path, count: int) -> None:
    """`count` different films; where there are fewer, they come again with other noise and another size."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(
            pool.map(
                write_film, [films[i % len(films)] for i in range(count)], [folder] * count, range(count), chunksize=8
            )
        )


def write_film(film: Path, folder: Path, number: int) -> None:
    with Image.open(film) as picture:
        side = SIDES[(number + number // 977) % len(SIDES)]
        large = picture.convert("L").resize((side, side), Image.Resampling.BICUBIC)
    coded = io.BytesIO()
    large.save(coded, "JPEG", quality=92)
    if number % 2 == 0:
        (folder / f"{number:05}.jpg").write_bytes(coded.getvalue())
        return
    syntax, code = SYNTAXES[number // 2 % len(SYNTAXES)]
    grey: NDArray[Any] = np.asarray(large)
    if syntax != uid.JPEGBaseline8Bit:
        noise = np.random.default_rng(number).normal(0, NOISE, grey.shape)
        grey = np.clip(grey * 16.0 + noise, 0, 4095).astype(np.uint16)
    bits = 8 * grey.dtype.itemsize - 4 * (grey.dtype == np.uint16)
    dataset = header(f"{number:05}", syntax, uid.DigitalXRayImageStorageForPresentation, grey, bits=bits)
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    if syntax == uid.JPEGBaseline8Bit:
        set_frame(dataset, coded.getvalue())
    elif code is None:
        dataset.add_new("PixelData", "OW", grey.tobytes())
    else:
        set_frame(dataset, recoded(grey, bits=bits, syntax=code))
    save(dataset, folder / f"{number:05}.dcm")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    write_films(sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2]), int(sys.argv[3]))

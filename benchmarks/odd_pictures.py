"""How many pictures that are no chest film does the gate refuse?

    python -m cxredge.benchmarks.odd_pictures --output benchmarks/results/gate-odd-pictures.json

The pictures come with packages: photographs and microscope images of scikit-image (pip install scikit-image), CT, MR,
ultrasound and other DICOM files of pydicom, limbs of pydicom-data; and some are drawn here: text, noise, gradients. Files
that hold no single readable picture are refused before the gate and do not count.
"""

import json
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from cxredge import __version__
from cxredge.errors import Refusal
from cxredge.scan.reading import Status
from cxredge.scan.scanner import Scanner

# Chest films among pydicom-data's files; the rest of its radiographs shows limbs.
CHEST = ("RG1",)


def pictures(scratch: Path) -> Iterator[Path]:
    """Files to try, drawn ones written below `scratch`."""
    for package, folder in (("skimage", "data"), ("pydicom", "data/test_files"), ("data_store", "data")):
        root = Path(str(import_module(package).__file__)).parent / folder
        for file in sorted(root.rglob("*")):
            if file.suffix.lower() in {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"} and not file.name.startswith(
                CHEST
            ):
                yield file
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(0, 255, 400), (400, 1))
    noise = [rng.integers(0, 256, (300, 300)) for _ in range(5)]
    smooth = [np.kron(rng.integers(0, 256, (size, size)), np.ones((320 // size, 320 // size))) for size in (4, 8, 16)]
    disc = 255.0 * (np.hypot(*np.mgrid[-1:1:300j, -1:1:300j]) < 0.7)
    for number, drawn in enumerate([ramp, ramp.T, disc, 255 - disc, *noise, *smooth, *texts()]):
        # Written by hand: only cxredge.imaging opens an imaging library.
        file = scratch / f"drawn-{number}.tif"
        file.write_bytes(tiff(drawn.astype(np.uint8)))
        yield file


def texts() -> Iterator[np.ndarray]:
    """Pages of something like text: dark strokes in lines on white."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        page = np.full((400, 300), 255.0)
        for top in range(20, 380, 14):
            for left in range(20, 280, 6):
                if rng.random() < 0.8:
                    page[top : top + 8, left : left + 5] = 255 * (rng.random((8, 5)) < 0.5)
        yield page


def tiff(grey: np.ndarray) -> bytes:
    """A baseline TIFF 6.0 of one uncompressed strip. grey: uint8 [rows, columns]."""
    rows, columns = grey.shape
    fields = [
        (256, columns),
        (257, rows),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, rows),
        (279, grey.size),
    ]
    entries = b"".join(
        tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, value in fields
    )
    directory = len(fields).to_bytes(2, "little") + entries + bytes(4)
    return b"II*\x00" + (8 + grey.size).to_bytes(4, "little") + grey.tobytes() + directory


def main(
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = "chestxray14",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with the figures.", show_default=False)
    ] = None,
) -> None:
    """Share of pictures that are no chest film which the gate refuses."""
    refused, scored = 0, []
    with tempfile.TemporaryDirectory() as scratch, Scanner(model) as scanner:
        for file in pictures(Path(scratch)):
            reading = scanner.read(file)
            refused += reading.reason == Refusal.NOT_A_CHEST_FILM.code
            if reading.status is Status.OK:
                scored.append(file.name)
    found = {
        "command": f"python -m cxredge.benchmarks.odd_pictures --model {model}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "pictures": refused + len(scored),
        "refused": refused,
        "scored": scored,
    }
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

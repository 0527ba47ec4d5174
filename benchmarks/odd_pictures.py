"""How many pictures that are no chest film are refused?

    python -m cxredge.benchmarks.odd_pictures --output benchmarks/results/gate-odd-pictures.json

The pictures come with packages (pip install scikit-image scikit-learn nibabel): photographs, faces and microscope images of
scikit-image and scikit-learn, CT, MR, ultrasound and other DICOM files of pydicom, limbs of pydicom-data, slices of the MR volumes
of nibabel; and some are drawn (`drawn.py`). Nothing was fitted or chosen on them. A picture that comes in several encodings counts
once; files that hold no single readable picture are refused anyway and do not count.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from cxredge import __version__
from cxredge.benchmarks.drawn import drawn
from cxredge.errors import Refusal
from cxredge.scan.reading import Status
from cxredge.scan.scanner import Scanner

# Chest films among pydicom-data's files; the rest of its radiographs shows limbs.
CHEST = ("RG1",)
PACKAGES = (("skimage", "data"), ("sklearn", "datasets/images"), ("pydicom", "data/test_files"), ("data_store", "data"))
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"}
# Said of what is no picture, no single one, or one that this installation cannot decode.
NOT_COUNTED = {
    reason.code
    for reason in Refusal
    if reason.name in {"NOT_AN_IMAGE", "EMPTY", "ENDS_EARLY", "DAMAGED", "UNSUPPORTED", "NO_PIXELS", "MULTI_FRAME"}
}


def pictures(scratch: Path) -> Iterator[tuple[str, Path]]:
    """Kind and file; what is not a file yet is written below `scratch`."""
    for package, folder in PACKAGES:
        root = Path(str(import_module(package).__file__)).parent / folder
        for file in sorted(root.rglob("*")):
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(CHEST):
                yield package.replace("data_store", "pydicom-data"), file
    made = (("drawn", drawn()), ("faces", faces()), ("MR slices", slices()))
    for kind, source in made:
        for name, picture in source:
            file = scratch / f"{name}.png"
            cv2.imwrite(str(file), picture)
            yield kind, file


def faces() -> Iterator[tuple[str, NDArray[Any]]]:
    """Twenty grey portraits of scikit-image's part of Labeled Faces in the Wild, enlarged."""
    stored = Path(str(import_module("skimage").__file__)).parent / "data/lfw_subset.npy"
    for number, face in enumerate(np.load(stored)[:100:5]):
        yield f"face-{number}", cv2.resize((255 * face).astype(np.uint8), (250, 250), interpolation=cv2.INTER_CUBIC)


def slices() -> Iterator[tuple[str, NDArray[Any]]]:
    """Slices through the heads of nibabel's two MR volumes, across and along."""
    nibabel: Any = import_module("nibabel")

    folder = Path(str(nibabel.__file__)).parent / "tests/data"
    epi = nibabel.load(folder / "example4d.nii.gz").get_fdata()[..., 0]
    head = nibabel.load(folder / "anatomical.nii").get_fdata()
    planes = [epi[:, :, i] for i in range(2, 24, 2)] + [epi[i] for i in range(30, 100, 10)]
    planes += [head[:, :, i] for i in range(4, 22, 3)]
    for number, plane in enumerate(planes):
        low, high = np.percentile(plane, (0.5, 99.5))
        grey = np.clip((np.rot90(plane) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        scale = 300 / min(grey.shape)
        yield f"mr-{number}", cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def main(
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = "chestxray14",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with the figures.", show_default=False)
    ] = None,
) -> None:
    """Share of pictures that are no chest film which get no score, by kind, and the reasons given."""
    counts: dict[str, Counter[str]] = {}
    scored: list[str] = []
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch, Scanner(model) as scanner:
        for kind, file in pictures(Path(scratch)):
            reading = scanner.read(file)
            if reading.status is Status.FAILED or reading.reason in NOT_COUNTED or reading.digest in seen:
                continue
            seen.update(filter(None, [reading.digest]))
            counts.setdefault(kind, Counter())[reading.reason or "scored"] += 1
            if reading.status is Status.OK:
                scored.append(file.name)
    total = sum(sum(of_kind.values()) for of_kind in counts.values())
    found = {
        "command": f"python -m cxredge.benchmarks.odd_pictures --model {model}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "pictures": total,
        "refused": total - len(scored),
        "scored": scored,
        "by_kind": {kind: dict(of_kind) for kind, of_kind in counts.items()},
    }
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

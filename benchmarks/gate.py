"""How many chest films are refused by mistake, and how many that are inverted, turned or cut are not scored?

    python -m cxredge.benchmarks.gate data/chestxray14 data/chest_xray --output benchmarks/results/gate-chest-films.json

Every official test film goes through `Scanner`, as a clinic's would; none was used to fit or choose anything. Then every eighth of
them again, changed. A film that is refused for another reason than the right one is refused all the same: the reasons are counted.
Lateral views, of which none was at hand, are not measured.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from cxredge import __version__
from cxredge.devices import this_machine
from cxredge.metrics import proportion
from cxredge.scan.reading import Reading, Status
from cxredge.scan.scanner import Scanner
from cxredge.train.sources import read_source

EVERY = 8
CHANGES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "inverted": lambda film: 255 - film,
    "upside down": lambda film: film[::-1, ::-1],
    "mirrored top to bottom": lambda film: film[::-1],
    "on its right side": lambda film: np.rot90(film),
    "on its left side": lambda film: np.rot90(film, 3),
    "left half": lambda film: film[:, : film.shape[1] // 2],
    "right half": lambda film: film[:, film.shape[1] // 2 :],
    "upper half": lambda film: film[: film.shape[0] // 2],
    "lower half": lambda film: film[film.shape[0] // 2 :],
    "a quarter": lambda film: film[: film.shape[0] // 2, : film.shape[1] // 2],
    "the middle half of either side": lambda film: _middle(film, 0.5),
    "the middle 70 % of either side": lambda film: _middle(film, 0.7),
    "left 70 %": lambda film: film[:, : int(0.7 * film.shape[1])],
    "upper 70 %": lambda film: film[: int(0.7 * film.shape[0])],
    "lower 70 %": lambda film: film[int(0.3 * film.shape[0]) :],
    "burnt out": lambda film: np.where(film > np.median(film), 255, 0),
    "tinted yellow": lambda film: np.stack([film * 0.5, film * 0.95, film], 2),
}


def _middle(film: NDArray[Any], share: float) -> NDArray[Any]:
    top, left = (int((1 - share) / 2 * side) for side in film.shape[:2])
    return film[top : film.shape[0] - top, left : film.shape[1] - left]


def main(
    data: Annotated[list[Path], typer.Argument(help="Data sets in their published layouts.", show_default=False)],
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = "chestxray14",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with the figures.", show_default=False)
    ] = None,
) -> None:
    """Share of test films that get no score, as they are and changed, with the reasons given."""
    whole: dict[str, object] = {}
    changed: dict[str, dict[str, object]] = {}
    with Scanner(model) as scanner, ThreadPoolExecutor(this_machine().cores) as pool:
        for folder in data:
            films = read_source(folder).split("test")
            whole[folder.name] = _figures(pool.map(scanner.read, films.files), films.patients)
            some = films.take(np.arange(0, len(films), EVERY))
            changed[folder.name] = {
                name: _figures(
                    pool.map(lambda file, how=change: _read_changed(scanner, file, how), some.files), some.patients
                )
                for name, change in CHANGES.items()
            }
    found = {
        "command": f"python -m cxredge.benchmarks.gate {' '.join(folder.name for folder in data)} --model {model}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "chest_films": whole,
        "changed": changed,
    }
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _read_changed(scanner: Scanner, file: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Reading:
    film = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert film is not None, file  # noqa: S101 - read_source found it a moment ago
    # Twice its size: a window of these reduced copies is no small film.
    picture = np.kron(change(film), np.ones((2, 2, 1) if change(film).ndim == 3 else (2, 2))).astype(np.uint8)
    with tempfile.NamedTemporaryFile(suffix=".png") as scratch:
        scratch.write(cv2.imencode(".png", picture)[1].tobytes())
        scratch.flush()
        return scanner.read(scratch.name)


def _figures(readings: Iterable[Reading], patients: NDArray[np.str_]) -> dict[str, object]:
    """Whose the films are, [N], because several of one patient tell less than as many of others."""
    told = list(readings)
    unscored = np.array([reading.status is not Status.OK for reading in told])
    reasons = Counter(reading.reason for reading in told if reading.status is not Status.OK)
    return {"films": len(told), "unscored": asdict(proportion(unscored, patients)), "reasons": dict(reasons)}


if __name__ == "__main__":
    typer.run(main)

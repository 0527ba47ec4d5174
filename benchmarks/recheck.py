"""Do a data set's test films, read as a clinic reads them, give the numbers that the manifest promises?

    python -m cxredge.benchmarks.recheck data/chestxray14 --output benchmarks/results/recheck-chestxray14.json

Every test film goes through `Scanner`: decoded from its file, preprocessed, gated, scored, decided. Films the gate refuses have
no score and leave the AUROC, so it may differ a little from the manifest's, which was measured on all of them.
"""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cxredge import __version__
from cxredge.bundle import Manifest
from cxredge.devices import this_machine
from cxredge.metrics import auroc_interval, proportion
from cxredge.scan.reading import Reading, Status
from cxredge.scan.scanner import Scanner
from cxredge.train.sources import read_source


def main(
    data: Annotated[Path, typer.Argument(help="A data set in its published layout.", show_default=False)],
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = "chestxray14",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with all figures.", show_default=False)
    ] = None,
) -> None:
    """Read a data set's official test films with the clinic's own code and compare AUROC with the manifest."""
    films = read_source(data).split("test")
    with Scanner(model) as scanner, ThreadPoolExecutor(this_machine().cores) as pool:
        manifest, model_sha256 = scanner.bundle.manifest, scanner.bundle.model_sha256
        readings = list(track(pool.map(scanner.read, films.files), "Reading films", total=len(films), transient=True))
    columns = [films.findings.index(name) for name in manifest.names if name in films.findings]
    labels = films.labels[:, columns].astype(np.float64)
    found = {
        "command": f"python -m cxredge.benchmarks.recheck {data.name} --model {manifest.name}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "model_sha256": model_sha256,
        "films": len(films),
        "statuses": dict(Counter(reading.status.value for reading in readings)),
        "reasons": dict(Counter(reading.reason for reading in readings if reading.reason)),
        "findings": _findings(manifest, labels, readings, films.patients) if columns else {},
        "priorities": _priorities(manifest, labels, readings, films.patients) if columns else {},
    }
    _show(found)
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _findings(
    manifest: Manifest, labels: NDArray[np.float64], readings: list[Reading], patients: NDArray[np.str_]
) -> dict[str, dict[str, object]]:
    scored = np.array([reading.status is Status.OK for reading in readings])
    rows = {}
    for column, finding in enumerate(manifest.findings):
        p = np.array([reading.probabilities[finding.name] for reading in readings if reading.status is Status.OK])
        area = auroc_interval(labels[scored, column], p, patients[scored])
        rows[finding.name] = {"auroc": asdict(area), "manifest": finding.test_auroc.value}
    return rows


def _priorities(
    manifest: Manifest, labels: NDArray[np.float64], readings: list[Reading], patients: NDArray[np.str_]
) -> dict[str, dict[str, object]]:
    """Where films end up on the worklist, by what their labels say of them."""
    urgent = labels[:, [finding.urgent for finding in manifest.findings]].max(1) > 0
    other = (labels.max(1) > 0) & ~urgent
    groups = {"an urgent finding": urgent, "another finding only": other, "no finding": ~urgent & ~other}
    table: dict[str, dict[str, object]] = {}
    for name, members in groups.items():
        placed = np.array([readings[i].priority.value for i in np.flatnonzero(members)])
        shares = {each: asdict(proportion(placed == each, patients[members])) for each in sorted(set(placed.tolist()))}
        table[name] = {"films": len(placed), **shares}
    return table


def _show(found: dict[str, object]) -> None:
    console = Console()
    table = Table("finding", "AUROC here", "AUROC in the manifest")
    findings: dict[str, dict[str, object]] = found["findings"]  # type: ignore[assignment]
    for name, row in findings.items():
        table.add_row(name, f"{row['auroc']['value']:.3f}", f"{row['manifest']:.3f}")  # type: ignore[index]
    console.print(table)
    console.print_json(json.dumps({key: found[key] for key in ("films", "statuses", "reasons", "priorities")}))


if __name__ == "__main__":
    typer.run(main)

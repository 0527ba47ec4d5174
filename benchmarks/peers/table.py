"""The table of peers: Markdown for the README, JSON with every number."""

import json
import sys
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from rich.console import Console

from cxredge.benchmarks.measure import PROFILES, Latency
from cxredge.benchmarks.report import DASH
from cxredge.devices import this_machine
from cxredge.metrics import Interval


@dataclass(frozen=True)
class Row:
    """One line of the table; ratio: its engine-only median over that of cxredge's first engine, paired by round."""

    key: str
    title: str
    engine_only: Latency | None
    film_to_result: Latency | None
    ratio: float | None
    cold_start_ms: float | None
    peak_rss_mb: float | None
    size_mb: float
    mean_auroc: Interval | None
    drift: Interval | None


def write(
    rows: list[Row], said: list[str], threads: int, profile: str, output: Path, films: int
) -> None:  # fmt: skip
    """peers.md and peers.json into a folder, and the table on the screen. said: what a reader must know besides."""
    machine = this_machine().text
    command = "python -m cxredge.benchmarks.peers.run " + " ".join(_short(word) for word in sys.argv[1:])
    told = {
        "command": command, "date": date.today().isoformat(), "machine": machine, "threads": threads,
        "profile": asdict(PROFILES[profile]), "films": films, "notes": said, "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(told, indent=1).replace("NaN", "null")
    (output / "peers.json").write_text(text + "\n", encoding="utf-8")
    lines = [
        f"Measured {told['date']} on {machine['processor']}, {machine['cores']} cores ({machine['extensions']}),"
        f" {threads} thread(s) an engine, {films} test films, fresh processes in interleaved rounds: `{command}`", "",
        "| | engine p50 ms | times cxredge's | film to result p50 ms | cold start ms | peak MB | file MB | mean AUROC | drift |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|", *(_line(row) for row in rows), "",
        *(f"- {note}" for note in said),
    ]  # fmt: skip
    (output / "peers.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Console().print("\n".join(lines), markup=False, soft_wrap=True)


def _short(word: str) -> str:
    """A path's end: the folders above it are this machine's own."""
    return "/".join(Path(word).parts[-2:]) if word.startswith("/") else word


def _line(row: Row) -> str:
    def number(value: float | None, digits: int) -> str:
        return DASH if value is None or np.isnan(value) else f"{value:.{digits}f}"

    engine, film, area, drift = row.engine_only, row.film_to_result, row.mean_auroc, row.drift
    cells = [
        row.title, number(engine.p50 if engine else None, 2), number(row.ratio, 2), number(film.p50 if film else None, 2),
        number(row.cold_start_ms, 0), number(row.peak_rss_mb, 0), number(row.size_mb, 2), number(area.value if area else None, 3),
        f"{drift.value:+.4f} ({drift.low:+.4f} to {drift.high:+.4f})" if drift else DASH,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"

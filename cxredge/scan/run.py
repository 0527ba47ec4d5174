"""A whole scan: find the films, read them, keep the journal, write the results."""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cxredge import __version__
from cxredge.bundle import Bundle, Manifest, open_bundle
from cxredge.devices import peak_rss_mb, this_machine
from cxredge.errors import DataError
from cxredge.report.tables import write_csv, write_summary
from cxredge.scan.decide import margin
from cxredge.scan.discover import Found, discover
from cxredge.scan.journal import Journal
from cxredge.scan.labels import judge, match, read_labels
from cxredge.scan.reading import ORDER, Priority, Reading, Status
from cxredge.scan.scanner import Pictures, Scanner
from cxredge.scan.summary import LabelledFinding, Latency, Summary

Tick = Callable[[int, int], None]


def scan(
    roots: Sequence[Path],
    output: Path,
    *,
    model: str = "chestxray14",
    labels: Path | None = None,
    restart: bool = False,
    workers: int | None = None,
    tick: Tick | None = None,
) -> tuple[Summary, list[Reading]]:
    """Read every film below `roots` and write results.csv, summary.json, report.html and journal.sqlite into `output`.

    Films already read with this very model are taken over from the journal. workers: films read at once, one a core
    unless told; decoding, inference and drawing overlap that way. tick: called with films done and films in all.
    Returns the summary and the readings in the order of the worklist. Raises CxredgeError when the scan cannot run.
    """
    started = datetime.now().astimezone()
    films = discover(roots, leave_out=[output, *([labels] if labels else [])])
    if not films:
        raise DataError(f"no files in {', '.join(str(root) for root in roots)}")
    bundle = open_bundle(model)
    # Wrong labels are said before an hour of reading, not after it.
    labelled = match(read_labels(labels, bundle.manifest.names), [film.name for film in films]) if labels else None
    with Scanner(bundle) as scanner, Journal(output / "journal.sqlite", read_with=_read_with(scanner)) as journal:
        if restart:
            journal.forget()
        unread = [film for film in films if journal.known(film) is None]
        wholes: list[float] = []
        begin = time.perf_counter()
        for done, (film, reading, pictures, whole) in enumerate(_read_all(scanner, unread, workers), start=1):
            journal.add(film, reading, pictures)
            if reading.status is Status.OK:
                wholes.append(whole)
            if tick is not None:
                tick(len(films) - len(unread) + done, len(films))
        seconds = time.perf_counter() - begin
        journal.commit()

        readings = in_order(journal.readings(films), bundle.manifest)
        judged = judge(readings, labelled, bundle.manifest) if labelled is not None else ()
        fresh = {film.name for film in unread}
        summary = _summary(
            bundle, scanner, roots, started, readings, [r for r in readings if r.file in fresh], wholes, seconds, judged
        )
        write_csv(output / "results.csv", readings, bundle.manifest.names)
        by_name = {film.name: film for film in films}
        # Jinja takes 40 ms to import; nobody waits for it before the first film.
        from cxredge.report.html import write_report

        write_report(
            output,
            summary=summary,
            manifest=bundle.manifest,
            readings=readings,
            pictures=lambda name: journal.pictures(by_name[name]),
        )
        # Last, so that the figure covers the whole run.
        summary = replace(summary, peak_rss_mb=peak_rss_mb())
        write_summary(output / "summary.json", summary)
    return summary, readings


def in_order(readings: Iterable[Reading], manifest: Manifest) -> list[Reading]:
    """The worklist: most pressing first, within a priority the one whose top finding lies furthest above its threshold."""
    findings = {finding.name: finding for finding in manifest.findings}

    def pressing(reading: Reading) -> float:
        top = reading.top_finding
        return margin(reading.probabilities[top], findings[top]) if top else 0.0

    return sorted(readings, key=lambda reading: (ORDER[reading.priority], -pressing(reading), reading.file))


def _read_with(scanner: Scanner) -> str:
    return f"{scanner.bundle.sha256} {scanner.engine} cxredge {__version__}"


def _read_all(
    scanner: Scanner, films: Sequence[Found], workers: int | None
) -> Iterator[tuple[Found, Reading, Pictures, float]]:
    """Readings as they come, in the order of the films; only a few films are in memory at once."""
    workers = workers or this_machine().cores

    def read(film: Found) -> tuple[Reading, Pictures, float]:
        begin = time.perf_counter()
        reading, pictures = scanner.read_with_pictures(film.path, name=film.name)
        return reading, pictures, (time.perf_counter() - begin) * 1000

    with ThreadPoolExecutor(workers, thread_name_prefix="film") as pool:
        ahead: deque[tuple[Found, Future[tuple[Reading, Pictures, float]]]] = deque()
        waiting = iter(films)
        try:
            while True:
                while len(ahead) < 4 * workers and (film := next(waiting, None)) is not None:
                    ahead.append((film, pool.submit(read, film)))
                if not ahead:
                    return
                film, future = ahead.popleft()
                yield (film, *future.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _summary(
    bundle: Bundle, scanner: Scanner, roots: Sequence[Path], started: datetime, readings: list[Reading],
    fresh: list[Reading], wholes: list[float], seconds: float, labels: tuple[LabelledFinding, ...],
) -> Summary:  # fmt: skip
    manifest = bundle.manifest
    statuses = Counter(reading.status for reading in readings)
    priorities = Counter(reading.priority for reading in readings)
    read = [reading for reading in fresh if reading.status is Status.OK]
    return Summary(
        folders=tuple(os.fspath(root) for root in roots),
        started=started.isoformat(timespec="seconds"),
        films=len(readings),
        ok=statuses[Status.OK],
        refused=statuses[Status.REFUSED],
        failed=statuses[Status.FAILED],
        resumed=len(readings) - len(fresh),
        priorities={priority.value: priorities[priority] for priority in Priority},
        reasons=dict(Counter(reading.reason for reading in readings if reading.reason)),
        decode=Latency.of([reading.decode_ms for reading in read]),
        inference=Latency.of([reading.infer_ms for reading in read]),
        whole=Latency.of(wholes),
        films_per_second=len(fresh) / seconds if fresh else None,
        peak_rss_mb=peak_rss_mb(),
        operating_point="balanced",
        model={
            "name": manifest.name,
            "title": manifest.title,
            "version": manifest.version,
            "architecture": manifest.architecture,
            "precision": manifest.precision,
            "sha256": bundle.model_sha256,
            "bundle_sha256": bundle.sha256,
        },
        runtime={
            "name": scanner.runtime,
            "version": scanner.engine.removeprefix(f"{scanner.runtime} "),
            "threads": str(scanner.threads),
            "self_test": f"passed on {scanner.self_test.films} films, mean |logit difference| {scanner.self_test.mean:.4f}",
        },
        device=this_machine().text,
        drift=manifest.accuracy,
        drift_by_finding={finding.name: finding.drift for finding in manifest.findings},
        labels=labels,
    )

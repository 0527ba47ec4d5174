"""A run's summary, from what was read in it and from its worklist."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cxredge.bundle.manifest import Manifest
from cxredge.devices import peak_rss_mb, this_machine
from cxredge.scan.decide import nearness
from cxredge.scan.reading import Priority, Reading, Status
from cxredge.scan.scanner import Scanner
from cxredge.scan.summary import Ages, Latency, PointInForce, Summary
from cxredge.scan.worklist import Counts


@dataclass
class Clock:
    """Milliseconds of the films that were read and scored in this very run, eight bytes each."""

    decode: "array[float]" = field(default_factory=lambda: array("d"))
    inference: "array[float]" = field(default_factory=lambda: array("d"))
    whole: "array[float]" = field(default_factory=lambda: array("d"))
    films: int = 0
    seconds: float = 0.0

    def add(self, reading: Reading, whole_ms: float) -> None:
        self.films += 1
        if reading.status is Status.OK:
            self.decode.append(reading.decode_ms)
            self.inference.append(reading.infer_ms)
            self.whole.append(whole_ms)


def summarise(
    scanner: Scanner,
    roots: Sequence[Path],
    started: datetime,
    counts: Counts,
    clock: Clock,
    *,
    resumed: int,
) -> Summary:
    """counts: of the whole run. clock: of the films read just now. resumed: films that an earlier run read."""
    manifest, bundle = scanner.bundle.manifest, scanner.bundle
    scored, ages = counts.statuses[Status.OK], manifest.population_ages
    return Summary(
        folders=tuple(os.fspath(root) for root in roots),
        started=started.isoformat(timespec="seconds"),
        films=counts.films,
        ok=scored,
        refused=counts.statuses[Status.REFUSED],
        failed=counts.statuses[Status.FAILED],
        resumed=resumed,
        priorities={priority.value: counts.priorities[priority] for priority in Priority},
        reasons=dict(counts.reasons),
        decode=Latency.of(clock.decode),
        inference=Latency.of(clock.inference),
        whole=Latency.of(clock.whole),
        films_per_second=clock.films / clock.seconds if clock.films else None,
        peak_rss_mb=peak_rss_mb(),
        operating_point="balanced",
        points=points_in_force(manifest),
        model={
            "name": manifest.name,
            "title": manifest.title,
            "version": manifest.version,
            "architecture": manifest.architecture,
            "precision": manifest.graph_for(scanner.runtime).precision,
            "sha256": bundle.graph_sha256(scanner.runtime),
            "bundle_sha256": bundle.sha256,
        },
        runtime={
            "name": scanner.runtime,
            "version": scanner.engine.removeprefix(scanner.runtime).lstrip(": "),
            "threads": str(scanner.threads),
            "self_test": f"passed on {scanner.self_test.films} films, mean |logit difference| {scanner.self_test.mean:.4f}",
            **({"notice": "; ".join(scanner.notices)} if scanner.notices else {}),
            **({"caveat": caveat} if (caveat := manifest.caveat(scanner.runtime)) else {}),
        },
        device=this_machine().text,
        drift=manifest.accuracy,
        drift_by_finding={finding.name: finding.drift for finding in manifest.findings},
        ages=Ages.of(counts.without_age, scored, ages) if ages else None,
        reduced_decoding=scanner.reduced_decoding,
    )


def points_in_force(manifest: Manifest) -> tuple[PointInForce, ...]:
    """Where each finding is flagged in this run, and where it makes a film urgent."""
    return tuple(
        PointInForce(
            finding=finding.name,
            flagged_from=finding.balanced.threshold,
            sensitivity=finding.balanced.sensitivity,
            specificity=finding.balanced.specificity,
            urgent_from=finding.urgent_from,
            near=0.0 if finding.experimental else nearness(finding, manifest),
            experimental=finding.experimental,
        )
        for finding in manifest.findings
    )

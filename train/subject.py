"""A model as evaluation and benchmarks see it: a finished run, a bundle, or an ONNX file that keeps the network's contract."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.bundle import MANIFEST, sha256_of, shipped_names
from cxredge.errors import DataError
from cxredge.imaging import Preprocessing

RUN_RUNTIME = "torch"


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    kind: what it came as. path: the ONNX file, or the run's folder. findings: in the order of its outputs.
    thresholds: probability at which a finding is flagged, as long as `findings`; None where nobody has chosen them yet,
    with `operating_point` saying how they were. gate: atypicality above which a film is refused.
    full: the full-precision parent as ONNX, where the model carries one. bundle: what it was opened from, where it is a bundle.
    graph: precision of a graph that one engine alone loads, where `on` chose one; empty for the portable model.
    """

    name: str
    kind: Literal["bundle", "run", "onnx"]
    path: Path
    findings: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str
    sha256: str
    thresholds: tuple[float, ...] | None = None
    operating_point: str = ""
    gate: float | None = None
    full: Path | None = None
    bundle: Bundle | None = None
    graph: str = ""

    @property
    def splits_of(self) -> Path | None:
        """The run or the bundle that knows which films it was validated on; None for an ONNX file that lies in none."""
        if self.kind == "run":
            return self.path
        folder = self.bundle.folder if self.bundle else self.path.parent
        return folder if (folder / MANIFEST).is_file() else None

    @property
    def bytes(self) -> int:
        """Size of the file that holds the network, with its weights."""
        if self.kind == "run":
            return (self.path / "model.safetensors").stat().st_size
        # OpenVINO's weights lie beside the graph.
        parts = [self.path, *([self.path.with_suffix(".bin")] if self.path.suffix == ".xml" else [])]
        return sum(part.stat().st_size for part in parts)

    def on(self, runtime: str) -> "Subject":
        """The model as a scan computes it on that engine: a bundle may hold another graph for it than the portable one."""
        if self.bundle is None:
            return self
        graph = self.bundle.manifest.graph_for(runtime)
        return replace(
            self,
            path=self.bundle.graph(runtime),
            precision=graph.precision,
            sha256=self.bundle.graph_sha256(runtime),
            graph="" if graph.logits == "logits" else graph.precision,
        )


def open_subject(where: str | Path, *, like: str | Path | None = None) -> Subject:
    """Open a model by what it is: a run's folder, a bundle's folder or shipped name, an ONNX file.

    like: a bundle whose findings, preprocessing and thresholds an ONNX file shares; without it, the bundle that the file
    lies in. Raises DataError when it is none of them, and the errors of `open_bundle`.
    """
    path = Path(where)
    if (path / "run.json").is_file():
        return _run(path)
    if _is_lone(path):
        return _onnx(path, like)
    if path.is_dir() or path.suffix.lower() == ".zip" or str(where) in shipped_names():
        return _bundle(open_bundle(where))
    raise DataError(
        f"{where}: not a model; give a folder that `cxredge train` or `cxredge compress` wrote, an ONNX file, or the name of"
        f" a shipped model ({', '.join(shipped_names())})"
    )


def check_like(like: str | Path | None, models: Iterable[str | Path]) -> None:
    """Raise DataError for a `like` that none of the models would ask for: whoever gave it believes that it counts."""
    if like is not None and not any(_is_lone(Path(model)) for model in models):
        raise DataError("--like is for lone ONNX files; what was named here says itself what its findings are")


def _is_lone(path: Path) -> bool:
    return path.suffix.lower() == ".onnx"


def full_precision_of(subject: Subject) -> Subject | None:
    """The full-precision parent as a model of its own, where the subject carries it."""
    if subject.full is None:
        return None
    return replace(
        subject,
        name=f"{subject.name}, full precision",
        kind="onnx",
        path=subject.full,
        precision="fp32",
        sha256=sha256_of(subject.full),
        full=None,
        bundle=None,
    )


def _bundle(bundle: Bundle) -> Subject:
    manifest = bundle.manifest
    preprocessing = Preprocessing(size=manifest.preprocessing.size, clahe=manifest.preprocessing.clahe)
    return Subject(
        name=manifest.name,
        kind="bundle",
        path=bundle.model,
        findings=manifest.names,
        preprocessing=preprocessing,
        precision=manifest.precision,
        sha256=bundle.model_sha256,
        thresholds=tuple(finding.balanced.threshold for finding in manifest.findings),
        operating_point="balanced: Youden's index on validation films, as in the bundle",
        gate=manifest.gate.threshold if manifest.gate else None,
        full=bundle.full_model,
        bundle=bundle,
    )


def _onnx(path: Path, like: str | Path | None) -> Subject:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if like is None:
        if not (path.parent / "manifest.json").is_file():
            raise DataError(
                f"{path}: an ONNX file does not say what its findings are; name a bundle that shares them with --like BUNDLE"
            )
        like = path.parent
    beside = _bundle(open_bundle(like))
    own = path.resolve() == beside.path.resolve()
    full = beside.full is not None and path.resolve() == beside.full.resolve()
    return replace(
        beside,
        name=f"{beside.name}, full precision" if full else beside.name if own else path.stem,
        kind="onnx",
        path=path,
        precision=beside.precision if own else "fp32" if full else "unknown",
        sha256=sha256_of(path),
        operating_point=f"balanced: Youden's index on validation films, as in {beside.name}",
        full=beside.full if own else None,
        bundle=None,
    )


def read_run(run: Path) -> dict[str, Any]:
    """What a finished run's `run.json` says. Raises DataError where a power cut left none of it."""
    try:
        return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))
    except ValueError:
        raise DataError(
            f"{run / 'run.json'} is cut off or empty, so the run did not end; give its `cxredge train` command again"
        ) from None


def _run(run: Path) -> Subject:
    facts = read_run(run)
    return Subject(
        name=run.name,
        kind="run",
        path=run,
        findings=tuple(facts["findings"]),
        preprocessing=Preprocessing(**facts["preprocessing"]),
        precision="fp32",
        sha256=sha256_of(run / "model.safetensors"),
    )

"""What every shipped model is held to, as data: `benchmarks/reference.toml`, which the tests compare with what is shipped.

    python -m cxredge.benchmarks.reference tests/films/chestxray14 tests/films/chest_xray

writes it anew, which is right when a model was replaced on purpose and wrong in any other case: a difference nobody meant is what
it is there to find. Accuracy is what the manifest says was measured at build; times are kept as a ratio to the full-precision
parent, measured side by side, because a ratio carries over to another machine of the kind and a millisecond does not.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from cxredge.benchmarks.macs import count_macs
from cxredge.benchmarks.measure import Profile, Setting, measure
from cxredge.bundle import open_bundle, shipped_names
from cxredge.errors import DataError
from cxredge.train.scores import score
from cxredge.train.subject import full_precision_of, open_subject
from cxredge.train.tables import read_films

FILE = "reference.toml"
_SHORT = Profile("short", 3, 1.5, 60, 0)


@dataclass(frozen=True)
class Reference:
    """One shipped model. drift, worst_drift: AUROC against the parent, mean and of the worst finding, as the manifest has them.

    probabilities: mean over the small films of the tests, per finding: they change when pixels, graph or engine do.
    time_ratio: engine-only median over the parent's, ONNX Runtime, one thread; nan where the bundle carries no parent.
    """

    sha256: str
    bytes: int
    macs: int
    mean_auroc: float
    drift: float
    worst_drift: float
    flipped: float
    probabilities: list[float]
    time_ratio: float


def measured(name: str, films: Sequence[Path]) -> Reference:
    """What is shipped under a name, now. films: data sets of a few small films."""
    bundle, subject = open_bundle(name), open_subject(name)
    accuracy = bundle.manifest.accuracy
    told = score(subject, read_films(films, "all").files, "onnxruntime").probabilities
    return Reference(
        sha256=bundle.model_sha256,
        bytes=bundle.model.stat().st_size,
        macs=count_macs(bundle.model, subject.preprocessing.size),
        mean_auroc=accuracy.compressed.value,
        drift=accuracy.drift.value,
        worst_drift=min(finding.drift.value for finding in bundle.manifest.findings),
        flipped=accuracy.flipped,
        probabilities=np.nanmean(told, axis=0).tolist(),
        time_ratio=time_ratio(name, films),
    )


def time_ratio(name: str, films: Sequence[Path]) -> float:
    """The model's best round over its parent's best round, interleaved; nan where the bundle carries no parent."""
    subject = open_subject(name)
    full = full_precision_of(subject)
    if full is None:
        return float("nan")
    settings = [Setting(number, "onnxruntime", 1, 1) for number in (0, 1)]
    pool = read_films(films, "all").files[:8]
    small, parent = measure([subject, full], settings, pool, _SHORT, say=lambda _: None)[0]
    return min(small.engine_only.per_round) / min(parent.engine_only.per_round)


def read_reference() -> dict[str, Reference]:
    """Shipped name -> its reference. Raises DataError where the file does not fit."""
    text = (resources.files("cxredge.benchmarks") / FILE).read_text(encoding="utf-8")
    try:
        return {name: Reference(**row) for name, row in tomllib.loads(text).items()}
    except TypeError as error:
        raise DataError(f"{FILE}: {error}; write it anew with python -m cxredge.benchmarks.reference") from None


def as_toml(references: dict[str, Reference]) -> str:
    """The file's text."""
    lines = ["# Written by `python -m cxredge.benchmarks.reference`; see there. Tests compare it with what is shipped."]
    for name, reference in sorted(references.items()):
        lines += ["", f"[{name}]"]
        for key, value in asdict(reference).items():
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:.5f}" if isinstance(value, float) else str(value)


def main(
    films: Annotated[list[Path], typer.Argument(help="Data sets of a few small films.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o")] = Path("benchmarks") / FILE,
) -> None:
    """Write the reference numbers of every shipped model anew."""
    found = {name: measured(name, films) for name in shipped_names()}
    output.write_text(as_toml(found), encoding="utf-8")
    Console().print(output.read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)

"""What gets compressed: a finished run, or a bundle that carries its full-precision network."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cxredge.bundle import open_bundle
from cxredge.errors import DataError
from cxredge.imaging import Preprocessing
from cxredge.train.network import FilmNetwork, load_network
from cxredge.train.planes import cached_planes
from cxredge.train.run_folder import data_hash
from cxredge.train.sources import Films, Uncertain, carve_validation, join
from cxredge.train.tables import read_data, validation_hash, validation_hashes
from cxredge.train.teacher import is_bundle, open_bundled, split_seed_of, splits_of

# What of a manifest's recipe tells of the training; the rest tells how that bundle was quantized.
_RUN_FACTS = (
    "architecture", "findings", "preprocessing", "validation_share", "split_seed", "seed", "uncertain", "metadata", "epochs",
    "epochs_run", "kept_epoch", "sources", "data", "data_sha256", "validation_sha256", "validation_sha256_of",
    "validation_auroc", "versions", "environment", "training_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Parent:
    """A network in evaluation mode and its films.

    films: of every source, test films too, split as the network was trained. planes: the same, uint8 [N, 1, H, W].
    facts: how it was trained, as `run.json` has it.
    """

    network: FilmNetwork
    preprocessing: Preprocessing
    films: Films
    planes: NDArray[np.uint8]
    facts: dict[str, Any]

    def rows(self, split: str, source: str | None = None) -> NDArray[np.intp]:
        """Rows of the films of one split, of one source or of all."""
        own = self.films.sources == source if source else True
        return np.flatnonzero((self.films.splits == split) & own)


def open_parent(where: Path, data: Sequence[Path], cache: Path) -> Parent:
    """The network of a run's folder, or of a bundle's folder or name, with the films it was trained on.

    Raises DataError when network and data do not belong together, or a bundle carries no full-precision network.
    """
    if is_bundle(where):
        return _of_bundle(where, data, cache)
    network, findings = load_network(where)
    facts = _seconds(where) | json.loads((where / "run.json").read_text(encoding="utf-8"))
    films = _as_split(_read(data, facts), where)
    if findings != films.findings:
        raise DataError(
            f"{where} was trained on findings {', '.join(findings)}; the data given hold {', '.join(films.findings)}"
        )
    unlabelled = any(source.startswith("unlabelled-") for source in facts["sources"])
    if not unlabelled and facts.get("data_sha256") not in {None, data_hash(films.take(films.splits != "test"))}:
        raise DataError(
            f"{where} was trained on other films or labels than those given; put them back, or train it again on these"
        )
    facts |= {"validation_sha256": validation_hash(films), "validation_sha256_of": validation_hashes(films)}
    preprocessing = Preprocessing(**facts["preprocessing"])
    return Parent(network, preprocessing, films, cached_planes(films.files, preprocessing, cache), facts)


def _read(data: Sequence[Path], facts: dict[str, Any]) -> Films:
    """The films with the labels that the network was trained on, in whatever order the data sets are given."""
    uncertain = cast(Uncertain, facts.get("uncertain", "ignore"))
    return join([read_data(path, uncertain=uncertain) for path in data]).ordered(facts["findings"])


def _seconds(run: Path) -> dict[str, float]:
    """What the run's epochs took in all, where it kept a table of them."""
    table = run / "metrics.csv"
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as lines:
        return {"training_seconds": round(sum(float(row["seconds"]) for row in csv.DictReader(lines)), 1)}


def _of_bundle(where: Path, data: Sequence[Path], cache: Path) -> Parent:
    bundle = open_bundle(where)
    if bundle.full_model is None:
        raise DataError(f"{where} carries no full-precision network; compress the run it was made from")
    made = cast(dict[str, Any], bundle.manifest.training.recipe)
    carved_by = float(made["validation_share"]), int(cast(int, split_seed_of(made)))
    films = carve_validation(_read(data, made), share=carved_by[0], seed=carved_by[1])
    if missing := sorted(set(bundle.manifest.training.films) - set(films.sources.tolist())):
        raise DataError(f"{where} was trained on {', '.join(missing)} too; give its --data as well")
    preprocessing = Preprocessing(**made["preprocessing"])
    planes = cached_planes(films.files, preprocessing, cache)
    network = open_bundled(where, films, planes, preprocessing, carved_by).eval()
    facts = {key: value for key, value in made.items() if key in _RUN_FACTS}
    facts |= {"validation_sha256": validation_hash(films), "validation_sha256_of": validation_hashes(films)}
    return Parent(network, preprocessing, films, planes, facts)


def _as_split(films: Films, run: Path) -> Films:
    """The films with the splits of the run, so that no validation film of it is taken for a training one."""
    said = {(row["source"], row["file"]): row["split"] for row in splits_of(run)}
    splits = films.splits.astype("U10")
    for i, film in enumerate(zip(films.sources.tolist(), films.names, strict=True)):
        if splits[i] != "test":
            if film not in said:
                raise DataError(
                    f"{films.files[i]}: not among the films that {run} was trained on; give the same --data"
                )
            splits[i] = said[film]
    return replace(films, splits=splits)

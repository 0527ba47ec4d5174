"""A finished run as a teacher: its logits on the very films the student sees (Hinton et al. 2015; Beyer et al., CVPR 2022)."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxredge.bundle import open_bundle
from cxredge.bundle.bundle import MANIFEST, sha256_of, shipped_names
from cxredge.errors import DataError
from cxredge.imaging import Preprocessing
from cxredge.train.attention import WithMaps
from cxredge.train.bundled import network_of
from cxredge.train.network import FilmNetwork, load_network
from cxredge.train.recipe import Recipe
from cxredge.train.sources import Films
from cxredge.train.subject import read_run
from cxredge.train.tables import is_validated_on


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode and the side of the films it wants, in pixels."""

    network: FilmNetwork
    size: int

    @torch.no_grad()
    def logits(self, image: Tensor) -> Tensor:
        """Logits, float [N, L]. image: uint8 [N, 1, H, W], brought to the teacher's own size."""
        return self.network(sized(image, self.size)).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def logits_and_cams(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, float [N, L], and class activation maps, float [N, L, h, w], of the same images in one pass."""
        logits, cams = WithMaps(self.network)(sized(image, self.size))
        return logits.float(), cams.float()


def sized(image: Tensor, size: int) -> Tensor:
    """Films uint8 [N, 1, H, W] brought to size x size pixels."""
    if image.shape[-1] == size:
        return image
    resized = torch.nn.functional.interpolate(image.float(), (size, size), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def open_teacher(run: Path, films: Films, planes: NDArray[np.uint8], recipe: Recipe, device: torch.device) -> Teacher:
    """A run's network, or a bundle's, as a teacher for these films. planes: the films, uint8 [N, 1, H, W].

    Raises DataError when it has other findings, or was trained on one of their validation films: the student would be
    validated on what it was told.
    """
    if is_bundle(run):
        carved_by = (recipe.validation_share, recipe.split_seed)
        size = open_bundle(run).manifest.preprocessing.size
        network = open_bundled(run, films, planes, replace(recipe.preprocessing, size=size), carved_by).eval()
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Teacher(network, size)
    network = open_run(run, films)
    seen = read_run(run)["preprocessing"]
    if seen["clahe"] != recipe.clahe:
        raise DataError(f"{run} takes films {'with' if seen['clahe'] else 'without'} clahe; give this run the same")
    size = seen["size"]
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(network, size)


def open_run(run: Path, films: Films) -> FilmNetwork:
    """The network of a finished run, in evaluation mode, with its logits in the order of the films' findings.

    Raises DataError when it has other findings than the films, or was trained on one of their validation films.
    """
    network, findings = load_network(run)
    if sorted(findings) != sorted(films.findings):
        raise DataError(f"{run} knows {', '.join(findings)}; this run is about {', '.join(films.findings)}")
    # Their order is that in which the data sets were given.
    network.reorder([findings.index(finding) for finding in films.findings])
    seen = {(row["source"], row["file"]) for row in splits_of(run) if row["split"] == "train"}
    held_out = zip(films.sources.tolist(), films.names, films.splits.tolist(), strict=True)
    if leaked := [name for source, name, split in held_out if split == "validation" and (source, name) in seen]:
        raise DataError(
            f"{run} was trained on {len(leaked)} of this run's validation films ({leaked[0]} first); train it"
            " with the same split_seed and validation_share"
        )
    return network


def is_run(where: str | Path) -> bool:
    """Whether that is the folder of a finished run."""
    return (Path(where) / "run.json").is_file()


def is_bundle(where: str | Path) -> bool:
    """Whether that is a bundle's folder or the name of a shipped one."""
    return str(where) in shipped_names() or (Path(where) / MANIFEST).is_file()


def open_bundled(
    where: str | Path,
    films: Films,
    planes: NDArray[np.uint8],
    preprocessing: Preprocessing,
    carved_by: tuple[float, int],
    *,
    compressed: bool = False,
) -> FilmNetwork:
    """A bundle's network for these films; of a finding it does not carry its logit is nan.

    planes: the films, uint8 [N, 1, H, W], of any size. preprocessing: what the network is to see. carved_by: validation_share and
    split_seed by which validation was carved from them. compressed: see `network_of`.
    Raises DataError when its input differs, or when it was not validated on the very films this run is: its own training films
    would be among them.
    """
    bundle = open_bundle(where)
    manifest = bundle.manifest
    if manifest.preprocessing.digest != preprocessing.digest:
        raise DataError(
            f"{where} takes films of {manifest.preprocessing.size} pixels; give the run the same size and clahe"
        )
    made = manifest.training
    counted = {source: splits["validation"] for source, splits in made.films.items()}
    # Of sources that are new to it the bundle has seen nothing; one of training films only validates nothing.
    known = films.take(np.isin(films.sources, list(counted)))
    now = {
        str(source): int(((known.sources == source) & (known.splits == "validation")).sum())
        for source in sorted(set(known.sources))
    }
    then = {source: counted[source] for source in now}
    carved = (made.recipe.get("validation_share"), split_seed_of(made.recipe))
    whole = len(now) == len(counted)
    same = is_validated_on(made.recipe, known, whole=whole)
    if now and (carved != carved_by or now != then or not same):
        raise DataError(
            f"{where} was validated on other films than this run (split_seed {carved[1]}, validation_share {carved[0]}, {then});"
            " training on from it needs the same data, split_seed and validation_share, or validation would flatter"
        )
    rows = np.flatnonzero(films.splits == "train")
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(256, len(rows)), replace=False))
    seen = sized(torch.from_numpy(np.ascontiguousarray(planes[chosen])), manifest.preprocessing.size).numpy()
    network = network_of(bundle, films.findings, seen, compressed=compressed)
    missing = [column for column, finding in enumerate(films.findings) if finding not in manifest.names]
    cast(Tensor, network.head.bias).data[missing] = torch.nan
    return network


def identity(where: Path) -> str:
    """Hash of a teacher's weights."""
    return open_bundle(where).sha256 if is_bundle(where) else sha256_of(where / "model.safetensors")


def split_seed_of(facts: Mapping[str, Any]) -> int | None:
    """The seed that carved a run's validation, from its `run.json` or a manifest's recipe; older ones had one seed for all."""
    return cast(int | None, facts.get("split_seed", facts.get("seed")))


def splits_of(run: Path) -> list[dict[str, str]]:
    """Rows of a run's `splits.csv`: file, source, patient, split."""
    with (run / "splits.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))

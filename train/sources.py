"""Published data sets, in their published layouts, as one table of films."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import DataError

CHESTXRAY14 = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
KERMANY = ("Paediatric_Pneumonia", "Paediatric_Bacterial", "Paediatric_Viral")
PICTURES = {".bmp", ".dcm", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}


@dataclass(frozen=True)
class Films:
    """A table of N films and L findings.

    files, patients, sources, splits ("train", "validation" or "test"): [N].
    labels: float32 [N, L] in {0, 1, nan}; nan is unknown and never enters a loss or a figure.
    """

    files: tuple[Path, ...]
    patients: NDArray[np.str_]
    sources: NDArray[np.str_]
    splits: NDArray[np.str_]
    findings: tuple[str, ...]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Films":
        """Some of the films, by row number or mask."""
        numbers = np.arange(len(self))[rows]
        return replace(
            self,
            files=tuple(self.files[i] for i in numbers),
            patients=self.patients[numbers],
            sources=self.sources[numbers],
            splits=self.splits[numbers],
            labels=self.labels[numbers],
        )

    def split(self, name: str) -> "Films":
        """The films of one split. Raises DataError when there are none."""
        found = self.take(self.splits == name)
        if not len(found):
            raise DataError(f"no {name} films in {', '.join(sorted(set(self.sources))) or 'the data given'}")
        return found


def read_source(folder: Path) -> Films:
    """Read a data set by its published layout: ChestX-ray14 (`Data_Entry_2017*.csv`) or Kermany (`chest_xray/`).

    Raises DataError when the folder is neither, or when its tables and films contradict each other.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of films")
    if entries := sorted(folder.glob("Data_Entry_2017*.csv")):
        return _chestxray14(folder, entries[-1])
    if (folder / "train" / "NORMAL").is_dir():
        return _kermany(folder)
    raise DataError(
        f"{folder}: neither ChestX-ray14 (Data_Entry_2017*.csv and images*/) nor Kermany (train/NORMAL, train/PNEUMONIA,"
        " test/...); point --data at the folder that holds them"
    )


def join(sources: Sequence[Films]) -> Films:
    """Several data sets as one; a finding that a source does not label is unknown (nan) there."""
    findings = tuple(dict.fromkeys(finding for films in sources for finding in films.findings))
    blocks = []
    for films in sources:
        block = np.full((len(films), len(findings)), np.nan, np.float32)
        block[:, [findings.index(finding) for finding in films.findings]] = films.labels
        blocks.append(block)
    return Films(
        tuple(file for films in sources for file in films.files),
        np.concatenate([films.patients for films in sources]),
        np.concatenate([films.sources for films in sources]),
        np.concatenate([films.splits for films in sources]),
        findings,
        np.concatenate(blocks),
    )


def carve_validation(films: Films, *, share: float, seed: int, tries: int = 200) -> Films:
    """Move whole patients of the training split to validation, as close to the split's label prevalence as chance allows.

    share: of the training patients, in (0, 1). Of `tries` seeded shuffles the one whose validation prevalence per
    finding lies nearest to the whole is kept, each source by itself, so that a rare finding is not left out.
    """
    splits = films.splits.astype("U10")  # room for "validation"
    for source in sorted(set(films.sources)):
        rows = np.flatnonzero((films.sources == source) & (films.splits == "train"))
        patients, owner = np.unique(films.patients[rows], return_inverse=True)
        positive = np.nan_to_num(films.labels[rows])
        total = positive.sum(0)
        rng = np.random.default_rng(seed)
        best, best_distance = np.empty(0, np.intp), np.inf
        for _ in range(tries):
            chosen = np.isin(owner, rng.permutation(len(patients))[: max(1, round(share * len(patients)))])
            got = positive[chosen].sum(0)
            distance = float((((got - share * total) ** 2) / np.maximum(share * total, 1)).sum())
            if distance < best_distance:
                best, best_distance = rows[chosen], distance
        splits[best] = "validation"
    return replace(films, splits=splits)


def _chestxray14(folder: Path, table: Path) -> Films:
    """Wang et al., ChestX-ray8, CVPR 2017: official lists; any re-encoded copy of a film is found by its stem."""
    by_stem = {
        file.stem: file
        for images in sorted(folder.glob("images*"))
        for file in sorted(images.rglob("*"))
        if file.suffix.lower() in PICTURES
    }
    split_of = dict.fromkeys(_stems(folder / "test_list.txt"), "test")
    for stem in _stems(folder / "train_val_list.txt"):
        if split_of.setdefault(stem, "train") == "test":
            raise DataError(f"{folder}: {stem} stands in both train_val_list.txt and test_list.txt")
    files, patients, splits, labels = [], [], [], []
    with table.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            stem = Path(row["Image Index"]).stem
            if stem not in by_stem or stem not in split_of:
                continue
            named = set(row["Finding Labels"].split("|")) - {"No Finding"}
            if unknown := named - set(CHESTXRAY14):
                raise DataError(f"{table}: {stem} has a finding outside the published 14: {', '.join(sorted(unknown))}")
            files.append(by_stem[stem])
            patients.append(row["Patient ID"])
            splits.append(split_of[stem])
            labels.append([float(finding in named) for finding in CHESTXRAY14])
    return _films("chestxray14", folder, files, patients, splits, CHESTXRAY14, labels)


def _stems(listing: Path) -> list[str]:
    if not listing.is_file():
        raise DataError(f"{listing}: missing; ChestX-ray14 is published with its official split lists")
    return [Path(line).stem for line in listing.read_text(encoding="utf-8").split()]


def _kermany(folder: Path) -> Films:
    """Kermany et al., Mendeley Data 2018: `train|test/NORMAL|PNEUMONIA`, kind and patient in the file name."""
    files, patients, splits, labels = [], [], [], []
    for split in ("train", "test"):
        for kind in ("NORMAL", "PNEUMONIA"):
            for file in sorted((folder / split / kind).glob("*")):
                if file.suffix.lower() not in PICTURES:
                    continue
                match = re.match(r"(person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+)", file.name)
                if match is None:
                    raise DataError(f"{file}: not a published name (person1_bacteria_2.jpeg, IM-0001-0001.jpeg, ...)")
                files.append(file)
                # Numbers start anew in the published test set, whose children are others.
                patients.append(f"{split}/{match[1]}")
                splits.append(split)
                sick = kind == "PNEUMONIA"
                labels.append(
                    [float(sick), float(sick and "_bacteria" in file.name), float(sick and "_virus" in file.name)]
                )
    return _films("kermany", folder, files, patients, splits, KERMANY, labels)


def _films(
    name: str, folder: Path, files: list[Path], patients: list[str], splits: list[str],
    findings: tuple[str, ...], labels: Iterable[list[float]],
) -> Films:  # fmt: skip
    if not files:
        raise DataError(f"{folder}: its tables name films, but none of them is there; are the pictures unpacked?")
    owners: dict[str, str] = {}
    for patient, split in zip(patients, splits, strict=True):
        if owners.setdefault(patient, split) != split:
            raise DataError(f"{folder}: patient {patient} has films in both {owners[patient]} and {split}")
    return Films(
        tuple(files),
        np.array([f"{name}/{patient}" for patient in patients]),
        np.full(len(files), name),
        np.array(splits),
        findings,
        np.array(list(labels), np.float32),
    )

"""Published data sets, in their published layouts, as one table of films."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import DataError
from cxredge.scan.labels import slips
from cxredge.train.rows import rows_by_column, same_patient

CHESTXRAY14 = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
PUBLISHED = ("chestxray14", "kermany", "chexpert")
KERMANY = ("Paediatric_Pneumonia", "Paediatric_Bacterial", "Paediatric_Viral")
# What an uncertain label of CheXpert stands for; see `train.chexpert`.
Uncertain = Literal["ignore", "zeros", "ones"]
PICTURES = {".bmp", ".dcm", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}


@dataclass(frozen=True)
class Films:
    """A table of N films and L findings.

    files, patients, sources, splits ("train", "validation" or "test"): [N].
    labels: float32 [N, L] in {0, 1, nan}; nan is unknown and never enters a loss or a figure.
    names: what a run's tables call each film, one of a kind within its source; `name_of` its file unless told.
    """

    files: tuple[Path, ...]
    patients: NDArray[np.str_]
    sources: NDArray[np.str_]
    splits: NDArray[np.str_]
    findings: tuple[str, ...]
    labels: NDArray[np.float32]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(map(name_of, self.files)))

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Films":
        """Some of the films, by row number or mask."""
        numbers = np.arange(len(self))[rows]
        return replace(
            self,
            files=tuple(self.files[i] for i in numbers),
            names=tuple(self.names[i] for i in numbers),
            patients=self.patients[numbers],
            sources=self.sources[numbers],
            splits=self.splits[numbers],
            labels=self.labels[numbers],
        )

    def ordered(self, findings: Sequence[str]) -> "Films":
        """The same films with their findings in this order, where they are the same findings; else unchanged."""
        if sorted(findings) != sorted(self.findings):
            return self
        columns = [self.findings.index(finding) for finding in findings]
        return replace(self, findings=tuple(findings), labels=self.labels[:, columns])

    def split(self, name: str) -> "Films":
        """The films of one split. Raises DataError when there are none."""
        found = self.take(self.splits == name)
        if not len(found):
            raise DataError(f"no {name} films in {', '.join(sorted(set(self.sources))) or 'the data given'}")
        return found


@dataclass(frozen=True)
class Listing:
    """What a data set's tables say and its folders hold, with nothing held against it yet.

    films: those that are there. missing: films that a table names and that are not there, as the table names them.
    contradictions: sentences on tables that disagree. left_out: what is there and not used, and how many films of it.
    """

    films: Films
    missing: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()


def read_source(folder: Path, *, uncertain: Uncertain = "ignore") -> Films:
    """Read a data set by its published layout: ChestX-ray14 (`Data_Entry_2017*.csv`), Kermany (`chest_xray/`) or CheXpert
    (`train.csv`, `valid.csv`).

    uncertain: what CheXpert's uncertain labels become, see `chexpert.list_chexpert`; the other two have none.
    Raises DataError when the folder is none of them, or when its tables and films contradict each other.
    """
    listing = list_source(folder, uncertain=uncertain)
    if listing.contradictions:
        raise DataError(f"{folder}: {listing.contradictions[0]}")
    for patient, splits in patients_in_two_splits(listing.films).items():
        raise DataError(f"{folder}: patient {patient.split('/', 1)[1]} has films in both {splits[0]} and {splits[1]}")
    return listing.films


def list_source(folder: Path, *, uncertain: Uncertain = "ignore") -> Listing:
    """`read_source` without its verdict: a patient in two splits or a missing film is for the caller to judge.

    Raises DataError when the folder is of no known layout, or none of its films is there.
    """
    if not folder.is_dir():
        file = "a file of no known kind; give a folder of films or a labels table (.csv)"
        raise DataError(f"{folder}: {file if folder.exists() else 'no such folder of films'}")
    if entries := sorted(folder.glob("Data_Entry_2017*.csv")):
        return _chestxray14(folder, entries[-1])
    if (folder / "train" / "NORMAL").is_dir():
        return _kermany(folder)
    # It builds on this module, so it is imported when its turn comes.
    from cxredge.train.chexpert import is_chexpert, list_chexpert

    if is_chexpert(folder):
        return list_chexpert(folder, uncertain=uncertain)
    raise DataError(
        f"{folder}: neither ChestX-ray14 (Data_Entry_2017*.csv and images*/) nor Kermany (train/NORMAL, train/PNEUMONIA,"
        " test/...) nor CheXpert (train.csv, valid.csv and their folders); point --data at the folder that holds them"
    )


def patients_in_two_splits(films: Films) -> dict[str, list[str]]:
    """Patient -> the splits that hold films of theirs, for the patients with more than one. Such a test figure is worth nothing."""
    found: dict[str, list[str]] = {}
    for patient, split in dict.fromkeys(zip(films.patients.tolist(), films.splits.tolist(), strict=True)):
        found.setdefault(patient, []).append(split)
    return {patient: splits for patient, splits in found.items() if len(splits) > 1}


def name_of(file: Path) -> str:
    """What a run's tables call a film: its file's name. CheXpert names every film `view1_frontal.jpg`, so patient and study
    go before it there."""
    if file.parent.name.startswith("study") and file.parent.parent.name.startswith("patient"):
        return f"{file.parent.parent.name}/{file.parent.name}/{file.name}"
    return file.name


def is_picture(file: Path) -> bool:
    """Whether a file's name is a film's. `._x.jpeg` is what macOS lays beside x.jpeg on a disk of another system."""
    return file.suffix.lower() in PICTURES and not file.name.startswith(".")


def join(sources: Sequence[Films]) -> Films:
    """Several data sets as one; a finding that a source does not label is unknown (nan) there.

    Raises DataError when two are of one name, hold the same file, which could train in one and be a test film in the other, or call
    one finding by nearly the same name.
    """
    held: dict[Path, str] = {}
    for films in sources:
        own = set(films.sources.tolist())
        if twice := own & set(held.values()):
            raise DataError(
                f"two data sets are called {sorted(twice)[0]}; give each once, and tables names of their own"
            )
        for file, source in zip(films.files, films.sources.tolist(), strict=True):
            if (other := held.setdefault(file.resolve(), source)) not in own:
                raise DataError(f"{file} is a film of both {other} and {source}; take it out of one of them")
    findings = tuple(dict.fromkeys(finding for films in sources for finding in films.findings))
    for place, finding in enumerate(findings):
        for one, other in slips(findings[:place], [finding]).items():
            raise DataError(
                f"a finding is called {one!r} in one table and {other!r} in another; call it the same in both"
            )
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
        tuple(name for films in sources for name in films.names),
    )


def carve_validation(films: Films, *, share: float, seed: int, tries: int = 200) -> Films:
    """Move whole patients of the training split to validation, as close to the split's label prevalence as chance allows.

    share: of the training patients, in (0, 1); of each source one patient at least validates, and one trains. Of `tries` seeded
    shuffles the one whose validation prevalence per finding lies nearest to the whole is kept, each source by itself, so that a
    rare finding is not left out.
    Raises DataError for a source whose training films are all of one patient: what trained would judge itself.
    """
    splits = films.splits.astype("U10")  # room for "validation"
    for source in sorted(set(films.sources)):
        rows = np.flatnonzero((films.sources == source) & (films.splits == "train"))
        patients, owner = np.unique(films.patients[rows], return_inverse=True)
        if len(patients) == 1:
            raise DataError(
                f"{source}: all {len(rows)} training films are of one patient, so none is left to validate on; give films of more"
            )
        positive = np.nan_to_num(films.labels[rows])
        total = positive.sum(0)
        rng = np.random.default_rng(seed)
        held = min(len(patients) - 1, max(1, round(share * len(patients))))
        best, best_distance = np.empty(0, np.intp), np.inf
        for _ in range(tries):
            chosen = np.isin(owner, rng.permutation(len(patients))[:held])
            got = positive[chosen].sum(0)
            distance = float((((got - share * total) ** 2) / np.maximum(share * total, 1)).sum())
            if distance < best_distance:
                best, best_distance = rows[chosen], distance
        splits[best] = "validation"
    return replace(films, splits=splits)


def _chestxray14(folder: Path, table: Path) -> Listing:
    """Wang et al., ChestX-ray8, CVPR 2017: official lists; any re-encoded copy of a film is found by its stem."""
    by_stem = {
        file.stem: file
        for images in sorted(folder.glob("images*"))
        for file in sorted(images.rglob("*"))
        if is_picture(file)
    }
    split_of = dict.fromkeys(_stems(folder / "test_list.txt"), "test")
    contradictions = [
        f"{stem} stands in both train_val_list.txt and test_list.txt"
        for stem in _stems(folder / "train_val_list.txt")
        if split_of.setdefault(stem, "train") == "test"
    ]
    files, patients, splits, labels, missing = [], [], [], [], []
    stands: dict[str, int] = {}
    for number, row in data_entry_rows(table):
        stem = Path(row["Image Index"]).stem
        if stem not in split_of:
            continue
        if (first := stands.setdefault(stem, number)) != number:
            contradictions.append(f"{stem} stands in line {first} and again in line {number} of {table.name}")
            continue
        if stem not in by_stem:
            missing.append(row["Image Index"])
            continue
        named = {name.strip() for name in row["Finding Labels"].split("|")} - {"No Finding"}
        if unknown := named - set(CHESTXRAY14):
            odd = ", ".join(sorted(unknown)) or "none named"
            raise DataError(f"{table}, line {number}: {stem} has a finding outside the published 14: {odd}")
        files.append(by_stem[stem])
        patients.append(same_patient(row["Patient ID"]))
        splits.append(split_of[stem])
        labels.append([float(finding in named) for finding in CHESTXRAY14])
    films = made_films("chestxray14", folder, files, patients, splits, CHESTXRAY14, labels)
    spare = len(by_stem) - len(set(files))
    left_out = (("pictures that the table or the split lists do not name", spare),) if spare else ()
    return Listing(films, tuple(missing), tuple(contradictions), left_out)


def data_entry_rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of ChestX-ray14's table, by column. Raises the errors of `rows_by_column`."""
    needs = ("Image Index", "Finding Labels", "Patient ID")
    return rows_by_column(table, (*needs, "Patient Age", "Patient Gender", "View Position"), needs=needs)


def _stems(listing: Path) -> list[str]:
    if not listing.is_file():
        raise DataError(f"{listing}: missing; ChestX-ray14 is published with its official split lists")
    return [Path(line).stem for line in listing.read_text(encoding="utf-8").split()]


def _kermany(folder: Path) -> Listing:
    """Kermany et al., Mendeley Data 2018: `train|test/NORMAL|PNEUMONIA`, kind and patient in the file name."""
    files, patients, splits, labels = [], [], [], []
    for split in ("train", "test"):
        for kind in ("NORMAL", "PNEUMONIA"):
            for file in sorted((folder / split / kind).glob("*")):
                if not is_picture(file):
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
    films = made_films("kermany", folder, files, patients, splits, KERMANY, labels)
    pictures = {file for file in folder.rglob("*") if is_picture(file)}
    spare = len(pictures - set(files))
    return Listing(
        films, left_out=(("pictures outside train/ and test/, as in Kaggle's val/", spare),) if spare else ()
    )


def made_films(
    name: str, folder: Path, files: list[Path], patients: list[str], splits: list[str],
    findings: tuple[str, ...], labels: Iterable[list[float]],
) -> Films:  # fmt: skip
    """The columns of one source as a table. Raises DataError when there is no film."""
    if not files:
        raise DataError(f"{folder}: its tables name films, but none of them is there; are the pictures unpacked?")
    return Films(
        tuple(files),
        np.array([f"{name}/{patient}" for patient in patients]),
        np.full(len(files), name),
        np.array(splits),
        findings,
        np.array(list(labels), np.float32),
    )

"""Made the small data sets in tests/films from the published ones; run again, it makes the same bytes.

python tests/make_films.py DATA, where DATA holds chestxray14/ and chest_xray/ in their published layouts.
"""

import csv
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent / "films"
SIDE = 112


def shrink(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(source).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(target, quality=80)


def kermany(data: Path) -> None:
    """Each kind from each split: 8 + 8 + 8 to train on, 4 + 4 + 4 to test on."""
    for split, count in (("train", 8), ("test", 4)):
        for folder, pattern in (("NORMAL", "*"), ("PNEUMONIA", "*_bacteria_*"), ("PNEUMONIA", "*_virus_*")):
            files = sorted((data / "chest_xray" / split / folder).glob(pattern))
            for file in files[:: len(files) // count][:count]:
                shrink(file, HERE / "chest_xray" / split / folder / file.name)


def chestxray14(data: Path) -> None:
    """Films of the first patients of both lists, with the rows of the published table."""
    source, target = data / "chestxray14", HERE / "chestxray14"
    kept = []
    for name, count in (("train_val_list.txt", 16), ("test_list.txt", 8)):
        chosen = (source / name).read_text().split()[:count]
        (target / "images").mkdir(parents=True, exist_ok=True)
        (target / name).write_text("\n".join(chosen) + "\n")
        kept += chosen
    for name in kept:
        shrink(source / "images" / f"{Path(name).stem}.jpg", target / "images" / f"{Path(name).stem}.jpg")
    table = "Data_Entry_2017_v2020.csv"
    with (source / table).open(newline="") as old, (target / table).open("w", newline="") as new:
        rows, out = csv.reader(old), csv.writer(new, lineterminator="\n")
        out.writerow(next(rows))
        out.writerows(row for row in rows if row[0] in kept)


if __name__ == "__main__":
    kermany(Path(sys.argv[1]))
    chestxray14(Path(sys.argv[1]))

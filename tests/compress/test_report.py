"""The report of a compression, as its page and its JSON have it."""

import json
import shutil
from pathlib import Path

import numpy as np
from house import EXAMPLES

from cxredge.bundle import Bundle
from cxredge.compress.report import Judged, row, write_report
from cxredge.compress.to_int8 import Int8
from cxredge.imaging import Preprocessing


def test_films_of_one_name_are_told_apart_by_patient_and_study(bundle: Bundle, tmp_path: Path) -> None:
    files = [tmp_path / f"patient{number}" / "study1" / "view1_frontal.jpg" for number in range(6)]
    for file in files:
        file.parent.mkdir(parents=True)
        shutil.copyfile(EXAMPLES / "00000457_002.jpg", file)
    assert bundle.full_model is not None
    names = bundle.manifest.names
    rng = np.random.default_rng(0)
    truth = np.tile(np.arange(6)[:, None] % 2, len(names)).astype(np.float64)
    judged = Judged(rng.normal(size=truth.shape), np.full(len(names), 0.5))
    parent = row(
        "full precision", "onnxruntime", judged, None, truth=truth, patients=np.arange(6).astype(str), names=names,
        parameters=1, macs=1, megabytes=1.0, milliseconds=1.0, fused=None,
    )  # fmt: skip
    write_report(
        tmp_path / "report", [parent], [], title="T", source="chexpert test", truth=truth, names=names, files=files,
        preprocessing=Preprocessing(size=224), graphs=(bundle.full_model, bundle.model), made=Int8(bundle.model),
        differ=rng.normal(size=truth.shape),
    )  # fmt: skip
    said = json.loads((tmp_path / "report" / "compression.json").read_text(encoding="utf-8"))
    assert {each["film"] for each in said["furthest_apart"]} == {
        f"patient{n}/study1/view1_frontal.jpg" for n in range(6)
    }

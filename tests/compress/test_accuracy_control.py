"""What stays in floats is measured, and so is the speed-up that a recipe promises; real graphs of the shipped pruned model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from house import FILMS
from numpy.typing import NDArray

from cxredge.bundle import open_bundle
from cxredge.compress.accuracy_control import control, float_weights, in_float
from cxredge.compress.quantize import quantize, quantized_convolutions
from cxredge.compress.recipe import AccuracyControl
from cxredge.compress.records import score
from cxredge.compress.speedup import SlowerThanPromisedError, check_promise
from cxredge.devices import this_machine
from cxredge.imaging import Preprocessing, read_film


@pytest.fixture(scope="module")
def films() -> NDArray[np.uint8]:
    files = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))
    return np.stack([read_film(file, Preprocessing(size=224)).image for file in files])


@pytest.fixture(scope="module")
def full() -> Path:
    bundle = open_bundle("chestxray14-small")
    assert bundle.float_model is not None
    return bundle.float_model


@pytest.fixture(scope="module")
def int8(full: Path, films: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every convolution but the head rounded, by films 0 to 11."""
    out = tmp_path_factory.mktemp("int8") / "model.onnx"
    quantize(full, out, films[:12], percentile=99.99)
    assert quantized_convolutions(out) == (52, 53)
    return out


def test_what_stays_in_floats_brings_films_nearer_that_it_was_not_chosen_by(
    full: Path, int8: Path, films: NDArray[np.uint8], tmp_path: Path
) -> None:
    tried: list[tuple[int, int]] = []
    # Time is another test's: this machine may be busy.
    limits = AccuracyControl(films=8, most=2, slower=5.0)
    found = control(full, int8, films[:8], limits, tick=lambda done, tries: tried.append((done, tries)))
    assert tried[-1] == (52, 52)
    assert [trial.alone for trial in found.trials] == sorted(trial.alone for trial in found.trials)
    assert 1 <= len(found.places) <= 2
    assert found.after < found.before
    kept = [trial for trial in found.trials if trial.kept]
    assert kept[-1].together == found.after
    names = [node.name.strip("/") for node in onnx.load(full).graph.node if node.op_type == "Conv"]
    assert [names[place] for place in found.places] == sorted((trial.layer for trial in kept), key=names.index)
    fewer = tmp_path / "fewer.onnx"
    quantize(full, fewer, films[:12], percentile=99.99, float_layers=found.places)
    assert quantized_convolutions(fewer) == (52 - len(found.places), 53)
    others = films[12:]
    said = score(full, others).logits
    before, after = (np.abs(score(graph, others).logits - said).mean() for graph in (int8, fewer))
    assert after < 0.9 * before


def test_nothing_stays_in_floats_where_logits_are_near_enough_or_time_is_short(
    full: Path, int8: Path, films: NDArray[np.uint8]
) -> None:
    enough = control(full, int8, films[:2], AccuracyControl(films=8, logit_difference=1000.0))
    assert enough.places == ()
    assert enough.after == enough.before
    assert all(trial.together is None for trial in enough.trials)


def test_with_every_convolution_out_of_the_rounding_full_precision_is_left(
    full: Path, int8: Path, films: NDArray[np.uint8], tmp_path: Path
) -> None:
    whole = in_float(int8, range(52), float_weights(full), tmp_path / "whole.onnx")
    assert quantized_convolutions(whole)[0] == 0
    said = score(full, films[:4]).logits
    left, rounded = (np.abs(score(graph, films[:4]).logits - said).mean() for graph in (whole, int8))
    # What lies outside the calibrated ranges is clipped still, so it is near and not equal.
    assert left < 0.3 * rounded


def test_a_promise_is_measured_and_a_broken_one_names_what_kept_floats(
    full: Path, int8: Path, films: NDArray[np.uint8]
) -> None:
    found = check_promise({"onnxruntime": 0.5, "openvino": 0.5}, full, int8, films)
    assert set(found) == {"onnxruntime", "openvino"}
    assert all(times > 0.5 for times in found.values())
    here = this_machine()
    able, old = (replace(here, extensions=flags) for flags in (("avx2", "avx512_vnni"), ("avx2",)))
    with pytest.raises(SlowerThanPromisedError, match=r"promises 1000 .*52 of 53 convolutions .*in floats: head"):
        check_promise({"onnxruntime": 1000}, full, int8, films, able)
    # Without instructions for it, what counts is that the graph computes in 8 bits.
    assert set(check_promise({"onnxruntime": 1000}, full, int8, films, old)) == {"onnxruntime"}
    with pytest.raises(SlowerThanPromisedError, match=r"; 0 of 53 convolutions .* not judged by time"):
        check_promise({"onnxruntime": 0.1}, full, full, films, old)

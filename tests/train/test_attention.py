"""A student that looks where its teacher looks: the term itself, and training with it, alone, killed, and in two processes."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from house import FILMS, Cli
from safetensors.torch import load_file

from cxredge.train.attention import WithMaps, cam_total
from cxredge.train.network import FilmNetwork
from cxredge.train.teacher import Teacher

NAN = float("nan")


def test_the_same_pattern_costs_nothing_whatever_its_level_and_contrast() -> None:
    maps = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert cam_total(maps, [maps]) == 0
    assert cam_total(3 * maps + 5, [maps]) < 1e-6
    assert cam_total(-maps, [maps]) == pytest.approx(4 * 6)
    # Several teachers: their mean, and those alone that know the finding.
    unknown = maps.clone()
    unknown[:, 1] = NAN
    assert cam_total(maps, [maps, unknown]) < 1e-6


def test_findings_that_no_teacher_knows_and_flat_maps_pull_at_nothing() -> None:
    cams = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    told = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    told[:, 1] = NAN
    cam_total(cams, [told]).backward()
    assert cams.grad is not None
    assert cams.grad.isfinite().all()
    assert (cams.grad[:, 1] == 0).all()
    assert (cams.grad[:, [0, 2]] != 0).any((2, 3)).all()
    flat = torch.ones(2, 3, 4, 4, requires_grad=True)
    cam_total(flat, [torch.ones(2, 3, 4, 4)]).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_the_gradient_reaches_the_stem_of_another_network_of_another_size() -> None:
    torch.manual_seed(0)
    teacher, student = Teacher(FilmNetwork("densenet121", 2).eval(), 96), FilmNetwork("mobilenet_v2", 2, dropout=0)
    films = torch.randint(0, 256, (4, 1, 128, 128), dtype=torch.uint8)
    logits, told = teacher.logits_and_cams(films)
    assert torch.allclose(logits, teacher.logits(films), atol=1e-5)
    assert told.shape == (4, 2, 3, 3)
    made, cams = WithMaps(student)(films)
    assert cams.shape == (4, 2, 4, 4)
    assert torch.allclose(made, cams.mean((2, 3)), atol=1e-4)
    cam_total(cams, [told]).backward()
    stem = student.features[0][0].weight.grad  # type: ignore[index,union-attr]
    assert stem.abs().sum() > 0


UNMOVED = """
import cxredge.train.loop
cxredge.train.loop.augment = lambda films, generator, mirror: films
from cxredge.cli import main
main()
"""
SMALL = """
weights = "none"
validation_share = 0.3
batch_size = 8
accumulate = 2
dropout = 0.0
ema_decay = 0.5
checkpoint_minutes = 1e-6
"""


def test_training_with_maps_goes_on_to_the_bit_and_is_shared_by_two_processes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "teacher.toml").write_text(SMALL + "size = 96\nepochs = 1\n")
    (tmp_path / "student.toml").write_text(SMALL + "size = 64\nepochs = 2\nhead_epochs = 1\ncam_weight = 1.0\n")
    (tmp_path / "unmoved.py").write_text(UNMOVED)
    data = ("--data", FILMS / "chest_xray")
    assert cli("train", *data, "--recipe", "teacher.toml", "-o", "teacher").returncode == 0
    words = ["unmoved.py", "train", *map(str, data), "--recipe", "student.toml", "--teacher", "teacher", "-o"]

    def train(run: str, *start: str) -> None:
        made = subprocess.run(
            [sys.executable, *start, *words, run], cwd=tmp_path, env=cli.environment,
            capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr

    train("one")
    killed = subprocess.Popen(
        [sys.executable, *words, "killed"], cwd=tmp_path, env=cli.environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed" / "last.ckpt").exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    train("killed")
    one, again = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "killed"))
    assert all(torch.equal(one[key], again[key]) for key in one)

    train("two", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert json.loads((tmp_path / "two" / "run.json").read_text())["environment"]["processes"] == 2
    losses = [
        [float(row["loss"]) for row in csv.DictReader((tmp_path / run / "metrics.csv").read_text().splitlines())]
        for run in ("one", "two")
    ]
    # Beside the labels' and the teacher's the maps' loss, with the backbone frozen the same in both.
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-3)

"""Losses, mixup and sampling: each does what its paper says, and an unknown label never counts."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cxredge.train.films import mixup
from cxredge.train.losses import LabelLoss, balanced_weights, label_loss, masked_loss, teacher_total
from cxredge.train.recipe import Recipe
from cxredge.train.sampling import balanced_shares

NAN = float("nan")
LABELS = torch.tensor([[1.0, NAN, 0], [0, NAN, 1], [1, 1, NAN], [0, 0, 0]])


def some_logits() -> torch.Tensor:
    return torch.randn(LABELS.shape, generator=torch.Generator().manual_seed(0)).mul(2).requires_grad_()


@pytest.mark.parametrize("loss", ["bce", "focal", "asymmetric"])
@pytest.mark.parametrize("weight", [None, torch.tensor([3.0, 1.0, 0.5])])
def test_unknown_labels_do_not_enter_the_loss(loss: str, weight: torch.Tensor | None) -> None:
    logits = some_logits()
    recipe = Recipe(loss=loss, label_smoothing=0.1, asymmetric_margin=0.0)
    LabelLoss(recipe, weight).total(logits, LABELS).backward()
    assert logits.grad is not None
    assert ((logits.grad == 0) == torch.isnan(LABELS)).all()
    assert logits.grad.isfinite().all()


def test_cross_entropy_is_the_mean_over_known_labels_to_the_bit() -> None:
    logits, known = some_logits(), (~LABELS.isnan()).sum()
    assert torch.equal(LabelLoss(Recipe()).total(logits, LABELS) / known, masked_loss(logits, LABELS))


def test_focal_loss_is_that_of_lin_et_al() -> None:
    logits, told = some_logits(), ~LABELS.isnan()
    p, y = logits.sigmoid()[told], LABELS[told]
    p_t = torch.where(y == 1, p, 1 - p)
    expected = (-((1 - p_t) ** 2) * p_t.log()).sum()
    assert torch.allclose(LabelLoss(Recipe(loss="focal")).total(logits, LABELS), expected, rtol=1e-4)


def test_asymmetric_loss_is_that_of_ridnik_et_al() -> None:
    logits, told = some_logits(), ~LABELS.isnan()
    p, y = logits.sigmoid()[told], LABELS[told]
    p_m = (p - 0.05).clamp_min(0)
    expected = -(torch.where(y == 1, p.log(), p_m**4 * (1 - p_m).log())).sum()
    assert torch.allclose(LabelLoss(Recipe(loss="asymmetric")).total(logits, LABELS), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "plain",
    [
        {"loss": "focal", "focal_gamma": 0.0},
        {"loss": "asymmetric", "asymmetric_gamma": 0.0, "asymmetric_margin": 0.0},
    ],
)
def test_without_focus_every_loss_is_the_weighted_smoothed_cross_entropy(plain: dict[str, object]) -> None:
    logits, told, weight = some_logits(), ~LABELS.isnan(), torch.tensor([3.0, 1.0, 0.5])
    soft = LABELS * 0.8 + 0.1
    expected = F.binary_cross_entropy_with_logits(logits, soft.nan_to_num(), pos_weight=weight, reduction="none")
    for recipe in (Recipe(label_smoothing=0.2), Recipe(label_smoothing=0.2, **plain)):
        got = LabelLoss(recipe, weight).total(logits, LABELS)
        assert torch.allclose(got, expected[told].sum(), rtol=1e-3)


def test_balanced_weights_make_positives_weigh_what_negatives_do() -> None:
    labels = np.array([[1, 1, NAN], [0, 1, 0], [0, 1, 0], [0, 0, 0], [NAN, 0, 0]], np.float32)
    assert balanced_weights(labels, cap=10).tolist() == pytest.approx([3, 2 / 3, 10])
    loss = label_loss(Recipe(positive_weight="balanced", positive_weight_cap=2), labels, torch.device("cpu"))
    assert loss.positive_weight is not None
    assert loss.positive_weight.tolist() == pytest.approx([2, 2 / 3, 2])
    assert label_loss(Recipe(), labels, torch.device("cpu")).positive_weight is None


def test_mixup_stays_in_its_source_and_knows_only_what_both_films_know() -> None:
    n = 40
    sources = np.array(["a", "b"] * (n // 2))
    films = torch.from_numpy(np.where(sources == "a", 0, 200).astype(np.uint8)).view(n, 1, 1, 1).repeat(1, 1, 4, 4)
    films[:, :, 0, 0] = torch.arange(n, dtype=torch.uint8).view(n, 1)
    labels = torch.where(torch.from_numpy(sources == "a").view(n, 1), torch.tensor([[1.0, NAN]]), NAN)
    labels[10, 0] = NAN
    mixed, told = mixup(films, labels, sources, 0.5, torch.Generator().manual_seed(0))
    assert mixed.dtype == torch.uint8
    # A film of another source would show in the flat part of the picture.
    assert torch.equal(mixed[:, :, 1:], films[:, :, 1:])
    assert not torch.equal(mixed[:, :, 0, 0], films[:, :, 0, 0])
    assert told[told.isfinite()].unique().tolist() == [1.0]
    # Film 10 and the one that it was given to.
    assert int(told[sources == "a", 0].isnan().sum()) in {1, 2}
    assert told[10, 0].isnan()
    assert told[:, 1].isnan().all()
    again = mixup(films, labels, sources, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], mixed)


def test_balanced_sampling_draws_rare_findings_more_often_and_patients_alike() -> None:
    # Patient 0 has a hundred films, the others one each; the finding is known in two patients of fifty, unknown in one.
    patients = np.array(["p0"] * 100 + [f"p{i}" for i in range(1, 50)])
    labels = np.zeros((149, 2), np.float32)
    labels[100, 0] = labels[101, 0] = 1
    labels[102, 0] = NAN
    shares = balanced_shares(labels, patients)
    assert shares.sum() == pytest.approx(1)
    assert shares[:100].sum() == pytest.approx(shares[120])
    assert shares[100] / shares[120] == pytest.approx((48 / 2) ** 0.5)
    assert shares[102] == pytest.approx(shares[120])


def test_teachers_are_followed_where_they_know_and_as_softly_as_asked() -> None:
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0]], requires_grad=True)
    taught = [torch.tensor([[1.0, torch.nan], [0.0, torch.nan]]), torch.tensor([[3.0, -2.0], [0.0, torch.nan]])]
    told = torch.tensor([[2.0, -2.0], [0.0, torch.nan]])
    for temperature in (1.0, 4.0):
        (gradient,) = torch.autograd.grad(teacher_total(logits, taught, temperature), logits)
        # d/dz of T^2 BCE(z / T, sigmoid(t / T)) is T (sigmoid(z / T) - sigmoid(t / T)).
        expected = temperature * ((logits / temperature).sigmoid() - (told / temperature).sigmoid())
        assert torch.allclose(gradient, expected.detach().nan_to_num(0.0), atol=1e-6)

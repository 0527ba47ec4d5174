"""Losses over the labels that are known: cross-entropy, focal, asymmetric; weights for rare findings, smoothed labels."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cxredge.train.recipe import Recipe


@dataclass(frozen=True)
class LabelLoss:
    """The loss of a recipe.

    positive_weight: float [L], what a positive label counts where a negative counts one; None: the same.
    """

    recipe: Recipe
    positive_weight: Tensor | None = None

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the loss over the known labels, a scalar: the caller divides by how many there are in all its pieces.

        logits: float [N, L]; labels: float [N, L] in [0, 1], nan where unknown.
        With y the label and p the probability a label costs -w y f(1-p) log p - (1-y) f(p) log(1-p), where f is
        `bce`: 1; `focal` (Lin et al., ICCV 2017): |y-p|^focal_gamma, which is theirs for labels of 0 and 1; `asymmetric` (Ridnik
        et al., ICCV 2021): 1 for positives, p^asymmetric_gamma for negatives, whose p is first lowered by asymmetric_margin.
        """
        told = ~torch.isnan(labels)
        z, y = logits[told], labels[told]
        if smoothing := self.recipe.label_smoothing:
            y = y * (1 - smoothing) + smoothing / 2
        weight = None if self.positive_weight is None else self.positive_weight.expand_as(labels)[told]
        if self.recipe.loss == "bce":
            return F.binary_cross_entropy_with_logits(z, y, pos_weight=weight, reduction="sum")
        p = z.sigmoid()
        positive, negative = y * F.softplus(-z), (1 - y) * F.softplus(z)
        if self.recipe.loss == "asymmetric":
            # Off 0 and 1, where a slope is infinite.
            lowered = (p - self.recipe.asymmetric_margin).clamp(1e-6, 1 - 1e-6)
            negative = (1 - y) * lowered.pow(self.recipe.asymmetric_gamma) * -torch.log1p(-lowered)
        if weight is not None:
            positive = weight * positive
        if self.recipe.loss == "focal":
            # The slope of x^gamma at 0 is infinite for gamma < 1: a label met exactly would give nan.
            return ((positive + negative) * (y - p).abs().clamp_min(1e-6).pow(self.recipe.focal_gamma)).sum()
        return (positive + negative).sum()


def label_loss(recipe: Recipe, labels: NDArray[np.float32], device: torch.device) -> LabelLoss:
    """The loss of a recipe for a training set. labels: float32 [N, L] in {0, 1, nan}, of its training films."""
    if recipe.positive_weight == "none":
        return LabelLoss(recipe)
    weights = balanced_weights(labels, cap=recipe.positive_weight_cap)
    return LabelLoss(recipe, torch.from_numpy(weights).to(device))


def balanced_weights(labels: NDArray[np.float32], *, cap: float) -> NDArray[np.float32]:
    """Negatives over positives per finding, float32 [L], so that both weigh the same; not below 1/cap, nor above cap.

    labels: float32 [N, L] in {0, 1, nan}; unknown ones do not count. A finding without a positive film has the cap.
    """
    positives, negatives = (labels == 1).sum(0), (labels == 0).sum(0)
    weights: NDArray[np.float32] = np.clip(negatives / np.maximum(positives, 1e-9), 1 / cap, cap).astype(np.float32)
    return weights


def masked_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels, a scalar. logits, labels: float [N, L]; labels in {0, 1, nan}."""
    told = ~torch.isnan(labels)
    return F.binary_cross_entropy_with_logits(logits[told], labels[told])


def teacher_total(logits: Tensor, taught: list[Tensor], temperature: float = 1.0) -> Tensor:
    """Sum of the cross-entropy against the teachers' mean logit, a scalar.

    logits: float [N, L]; taught: of each teacher, float [N, L], nan where it does not know the finding. temperature: divides both
    logits, and its square brings the gradient back to the size it had (Hinton et al. 2015, section 2.1).
    """
    told = torch.stack(taught).nanmean(0)
    known = ~told.isnan()
    softened = (told[known] / temperature).sigmoid()
    learned = F.binary_cross_entropy_with_logits(logits[known] / temperature, softened, reduction="sum")
    return learned * temperature**2

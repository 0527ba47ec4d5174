"""Two forms of one quantized network on the same films, however the set's files are ordered."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxredge.compress.costs import Films, parities
from cxredge.compress.fused import Fused
from cxredge.compress.report import Judged, row


class Brightness(nn.Module):
    """Stands for a contract: the mean of a film is its only logit."""

    def forward(self, films: Tensor) -> tuple[Tensor]:
        return (films.float().mean(dim=(1, 2, 3))[:, None] / 64 - 2,)


def test_films_in_the_order_of_their_classes_are_compared_from_both_ends() -> None:
    rng = np.random.default_rng(0)
    truth = np.r_[np.zeros(400), np.ones(100)][:, None]
    planes = np.clip(rng.normal(110 + 40 * truth[:, 0, None, None, None], 25, (500, 1, 8, 8)), 0, 255).astype(np.uint8)
    films = Films(planes, truth, np.arange(500).astype(str))
    logits = Brightness()(torch.from_numpy(planes))[0].double().numpy() * 2.0 + 0.5
    shipped = row(
        "quantize", "onnxruntime", Judged(logits, np.array([0.5])), None, truth=truth, patients=films.patients, names=["a"],
        parameters=1, macs=None, megabytes=1.0, milliseconds=1.0, fused=Fused(1, 1),
    )  # fmt: skip
    (found,) = parities([(shipped, logits)], Brightness(), (np.array([2.0]), np.array([0.5])), films)
    assert found.between == "torch, rounding simulated, and ONNX Runtime"
    assert 200 <= found.films <= 202
    assert found.largest_probability == pytest.approx(0, abs=1e-6)
    assert found.mean_auroc == 0

"""Age, sex and view as a second, optional input: a small branch that moves each finding's logit, by nothing where none is known.

An offset on the logits, not more channels before the head: class activation maps stay those of the film alone, and
logit = mean of the map + offset, both exact. Behind a linear head a bias on the pooled features could say nothing more (its product
with the head's weights is such an offset) and would change with every channel that pruning takes away.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxredge.train.metadata import COLUMNS

HIDDEN = 32


class MetadataBranch(nn.Module):
    """Offsets of the logits. Without biases, so that the offset of an all-unknown film is exactly zero."""

    def __init__(self, findings: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(len(COLUMNS), HIDDEN, bias=False)
        self.offset = nn.Linear(HIDDEN, findings, bias=False)
        # Training starts from the network without it.
        nn.init.zeros_(self.offset.weight)

    def forward(self, metadata: Tensor) -> Tensor:
        """Offsets, float [N, L]. metadata: float [N, 6], as `metadata.encode` writes it."""
        return self.offset(torch.relu(self.hidden(metadata)))  # type: ignore[no-any-return]


def forget(metadata: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Metadata with some made unknown, so that a network learns to do without.

    metadata: float [N, 6]. Of each film age, sex and view are forgotten, each with probability `share`, and all three at once with
    the same.
    """
    lost = torch.rand(len(metadata), 4, generator=generator) < share
    return metadata * ~(lost[:, :3] | lost[:, 3:]).repeat_interleave(2, dim=1)


@torch.no_grad()
def offsets(branch: MetadataBranch, metadata: NDArray[np.float32], device: torch.device) -> NDArray[np.float64]:
    """What metadata adds to the logits of N films, float64 [N, L]. metadata: float32 [N, 6]."""
    found: NDArray[np.float64] = branch(torch.from_numpy(metadata).to(device)).double().cpu().numpy()
    return found

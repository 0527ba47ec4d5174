"""A finished run as a teacher: its logits on the very films the student sees (Hinton et al. 2015; Beyer et al., CVPR 2022)."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cxredge.errors import DataError
from cxredge.train.network import FilmNetwork, load_network
from cxredge.train.sources import Films


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode and the side of the films it wants, in pixels."""

    network: FilmNetwork
    size: int

    @torch.no_grad()
    def logits(self, image: Tensor) -> Tensor:
        """Logits, float [N, L]. image: uint8 [N, 1, H, W], brought to the teacher's own size."""
        if image.shape[-1] != self.size:
            resized = torch.nn.functional.interpolate(
                image.float(), (self.size, self.size), mode="bilinear", antialias=True
            )
            image = resized.round().clamp(0, 255).to(torch.uint8)
        return self.network(image).float()  # type: ignore[no-any-return]


def open_teacher(run: Path, films: Films, device: torch.device) -> Teacher:
    """A run's network as a teacher for these films.

    Raises DataError when it has other findings, or was trained on one of their validation films: the student would be
    validated on what it was told.
    """
    network, findings = load_network(run)
    if findings != films.findings:
        raise DataError(f"teacher {run} knows {', '.join(findings)}; this run is about {', '.join(films.findings)}")
    seen = {(row["source"], row["file"]) for row in splits_of(run) if row["split"] == "train"}
    held_out = zip(films.sources, films.files, films.splits, strict=True)
    if leaked := [file for source, file, split in held_out if split == "validation" and (source, file.name) in seen]:
        raise DataError(
            f"teacher {run} was trained on {len(leaked)} of this run's validation films ({leaked[0].name} first); train it"
            " with the same seed and validation_share"
        )
    size = json.loads((run / "run.json").read_text(encoding="utf-8"))["preprocessing"]["size"]
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(network, size)


def splits_of(run: Path) -> list[dict[str, str]]:
    """Rows of a run's `splits.csv`: file, source, patient, split."""
    with (run / "splits.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))

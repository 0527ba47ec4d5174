"""The network's contract: uint8 film in, logits and class activation maps out, everything else inside the graph."""

import json
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from cxredge.errors import DataError, RecipeError
from cxredge.train.torchvision_guard import import_torchvision

# Network -> the layer halfway whose pooled features tell what kind of picture it sees.
MIDDLE = {"mobilenet_v2": "13", "densenet121": "transition3"}
# Channels of the last feature maps.
WIDTH = {"mobilenet_v2": 1280, "densenet121": 1024}
# ImageNet's mean and deviation of grey, on the scale 0..255.
MEAN, DEVIATION = 0.449 * 255, 0.226 * 255


class FilmNetwork(nn.Module):
    """Backbone, global average pool, dropout, linear head.

    The head is a 1x1 convolution, so that its output before pooling *is* the class activation map (Zhou et al., CVPR
    2016) and the logits are exactly the map's mean.
    """

    def __init__(self, architecture: str, findings: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        if architecture not in MIDDLE:
            raise RecipeError(f"network {architecture!r} is not one of {', '.join(MIDDLE)}")
        self.architecture = architecture
        self.features = _backbone(architecture)
        self._middle = MIDDLE[architecture]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(WIDTH[architecture], findings, 1)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def maps(self, image: Tensor) -> Tensor:
        """Last feature maps. image: uint8 [N, 1, H, W] -> float [N, C, h, w]."""
        return self.stages(image)[1]

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features halfway, float [N, M], and the last feature maps, float [N, C, h, w]."""
        halfway, last = self.both_maps(image)
        return halfway.mean((2, 3)), last

    def both_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps halfway, float [N, M, h', w'], and the last ones, float [N, C, h, w].

        Halfway a network still knows what kind of picture it sees; at the end it only knows findings.
        """
        x, halfway = (image.float() - MEAN) / DEVIATION, torch.empty(0)
        for name, layer in self.features.named_children():
            x = layer(x)
            if name == self._middle:
                halfway = x
        return halfway, x

    def forward(self, image: Tensor) -> Tensor:
        """Logits, float [N, L]. image: uint8 [N, 1, H, W]."""
        pooled = self.maps(image).mean((2, 3), keepdim=True)
        return cast(Tensor, self.head(self.dropout(pooled))).flatten(1)


def _backbone(architecture: str) -> nn.Sequential:
    models = import_torchvision().models
    if architecture == "mobilenet_v2":
        features = cast(nn.Sequential, models.mobilenet_v2().features)
        _one_channel(cast(nn.Sequential, features[0]), "0")
    else:
        features = cast(nn.Sequential, models.densenet121().features)
        _one_channel(features, "conv0")
        # DenseNet's own forward ends its features with a ReLU, which the class activation map needs too.
        features.add_module("relu5", nn.ReLU())
    return features


def _one_channel(parent: nn.Sequential, name: str) -> None:
    """Replace an RGB stem by a one-channel one; its kernels are summed over the channels."""
    old = cast(nn.Conv2d, getattr(parent, name))
    new = nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)  # type: ignore[arg-type]
    new.weight.data = old.weight.data.sum(1, keepdim=True)
    setattr(parent, name, new)


def load_weights(network: FilmNetwork, weights: str) -> None:
    """Start from `imagenet` (torchvision's own download), `none`, or a safetensors file of a torchvision or cxredge network.

    Only the backbone is taken; three-channel stems are summed. Raises DataError when the download or the file fails.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        state = _imagenet(network.architecture)
    else:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not Path(weights).is_file():
            raise DataError(f"{weights}: no such weights file; use imagenet, none, or a .safetensors file")
        try:
            state = load_file(weights)
        except SafetensorError as error:
            raise DataError(f"{weights}: not a safetensors file ({error})") from None
    own = network.features.state_dict()
    prefix = "features."
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    for key, value in found.items():
        if key in own and value.ndim == 4 and value.shape[1] == 3 and own[key].shape[1] == 1:
            found[key] = value.sum(1, keepdim=True)
    missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
    if missing:
        raise DataError(
            f"{weights}: not weights of {network.architecture} ({len(missing)} tensors missing, {missing[0]} first)"
        )
    network.features.load_state_dict({key: value for key, value in found.items() if key in own}, strict=False)


def _imagenet(architecture: str) -> dict[str, Tensor]:
    models = import_torchvision().models
    try:
        state = models.get_model_weights(architecture).DEFAULT.get_state_dict(progress=True)
    except OSError as error:
        raise DataError(
            f"the ImageNet weights of {architecture} could not be downloaded ({error}); without a network give a file that was"
            " downloaded elsewhere: --weights FILE.safetensors, or start from random ones: --weights none"
        ) from None
    return cast(dict[str, Tensor], state)


def load_network(run: Path) -> tuple[FilmNetwork, tuple[str, ...]]:
    """The network of a finished run, in evaluation mode, with the names of its findings."""
    from safetensors.torch import load_file

    described = run / "run.json"
    if not described.is_file():
        raise DataError(f"{run}: not a finished training run (no run.json); give the folder that `cxredge train` wrote")
    facts = json.loads(described.read_text(encoding="utf-8"))
    findings = tuple(facts["findings"])
    network = FilmNetwork(facts["architecture"], len(findings))
    network.load_state_dict(load_file(run / "model.safetensors"))
    return network.eval(), findings

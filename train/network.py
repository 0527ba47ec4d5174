"""The network's contract: uint8 film in, logits and class activation maps out, everything else inside the graph."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from cxredge.errors import DataError, RecipeError
from cxredge.train.branch import MetadataBranch
from cxredge.train.subject import read_run
from cxredge.train.torchvision_guard import import_torchvision

# Network -> the layer halfway whose pooled features tell what kind of picture it sees.
MIDDLE = {
    "mobilenet_v2": "13",
    "densenet121": "transition3",
    "resnet50": "layer3",
    "efficientnet_b3": "5",
    "vgg19": "27",
    "inception_v3": "Mixed_6e",
    "alexnet": "7",
}
# Channels of the last feature maps.
WIDTH = {
    "mobilenet_v2": 1280,
    "densenet121": 1024,
    "resnet50": 2048,
    "efficientnet_b3": 1536,
    "vgg19": 512,
    "inception_v3": 2048,
    "alexnet": 256,
}
# The convolution that takes the film.
STEM = {
    "mobilenet_v2": "0.0",
    "densenet121": "conv0",
    "resnet50": "conv1",
    "efficientnet_b3": "0.0",
    "vgg19": "0",
    "inception_v3": "Conv2d_1a_3x3.conv",
    "alexnet": "0",
}
# ImageNet's mean and deviation of grey, on the scale 0..255.
MEAN, DEVIATION = 0.449 * 255, 0.226 * 255


class FilmNetwork(nn.Module):
    """Backbone, global average pool, dropout, linear head.

    The head is a 1x1 convolution, so that its output before pooling *is* the class activation map (Zhou et al., CVPR
    2016) and the logits are exactly the map's mean.

    metadata: a branch whose offsets age, sex and view add to the logits, where they are given; None: there is none.
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
        self.metadata: MetadataBranch | None = None

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

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Logits, float [N, L]. image: uint8 [N, 1, H, W]; metadata: float [N, 6], see `train.metadata`, or none."""
        return self.logits(self.maps(image), metadata)

    @torch.no_grad()
    def reorder(self, columns: Sequence[int]) -> None:
        """Give the logits in another order, in place: the new one's i-th is the old one's `columns[i]`-th."""
        rows = [self.head] if self.metadata is None else [self.head, self.metadata.offset]
        for layer in rows:
            for values in layer.parameters():
                values.copy_(values[list(columns)])

    def logits(self, maps: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Logits, float [N, L], from the last feature maps, float [N, C, h, w]; in training with dropout."""
        pooled = maps.mean((2, 3), keepdim=True)
        logits = cast(Tensor, self.head(self.dropout(pooled))).flatten(1)
        if metadata is None:
            return logits
        if self.metadata is None:
            raise ValueError("this network was trained without metadata")
        return logits + cast(Tensor, self.metadata(metadata))


def _backbone(architecture: str) -> nn.Sequential:
    """torchvision's network up to its last feature maps, with a stem for one channel."""
    models = import_torchvision().models
    # Inception's second classifier hangs on a layer halfway and is no part of the features.
    options = {"aux_logits": False, "init_weights": True} if architecture == "inception_v3" else {}
    whole = models.get_model(architecture, weights=None, **options)
    if hasattr(whole, "features"):
        features = cast(nn.Sequential, whole.features)
    else:
        end = {"avgpool", "dropout", "fc"}
        features = nn.Sequential(
            OrderedDict((name, layer) for name, layer in whole.named_children() if name not in end)
        )
    _one_channel(features, STEM[architecture])
    if architecture == "densenet121":
        # DenseNet's own forward ends its features with a ReLU, which the class activation map needs too.
        features.add_module("relu5", nn.ReLU())
    return features


def _one_channel(features: nn.Sequential, stem: str) -> None:
    """Replace an RGB stem by a one-channel one; its kernels are summed over the channels."""
    parent, _, name = stem.rpartition(".")
    old = cast(nn.Conv2d, features.get_submodule(stem))
    new = nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)  # type: ignore[arg-type]
    new.weight.data = old.weight.data.sum(1, keepdim=True)
    if old.bias is not None:
        cast(Tensor, new.bias).data = old.bias.data
    setattr(features.get_submodule(parent), name, new)


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
            raise DataError(
                f"{weights}: no such weights; use imagenet, none, a .safetensors file, or the folder of a finished run or a bundle"
            )
        try:
            state = load_file(weights)
        except SafetensorError as error:
            raise DataError(f"{weights}: not a safetensors file ({error})") from None
    own = network.features.state_dict()
    prefix = "features."
    # ResNet's and Inception's layers stand at top level in torchvision.
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix) or key in own}
    if network.architecture == "inception_v3":
        _scale_as_inception(found)
    for key, value in found.items():
        if key in own and value.ndim == 4 and value.shape[1] == 3 and own[key].shape[1] == 1:
            found[key] = value.sum(1, keepdim=True)
    missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
    if missing:
        raise DataError(
            f"{weights}: not weights of {network.architecture} ({len(missing)} tensors missing, {missing[0]} first)"
        )
    network.features.load_state_dict({key: value for key, value in found.items() if key in own}, strict=False)


def _scale_as_inception(state: dict[str, Tensor]) -> None:
    """Fold into an RGB stem what torchvision's Inception does to its input first (`transform_input`).

    Its weights want colours on -1..1: channel c is multiplied by deviation_c / 0.5 and moved by (mean_c - 0.5) / 0.5. The stem has
    no padding, so the first is the kernels' and the second the following batch norm's, exactly.
    """
    kernel, mean = f"{STEM['inception_v3']}.weight", "Conv2d_1a_3x3.bn.running_mean"
    if kernel not in state or state[kernel].shape[1] != 3:
        return
    means, deviations = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    moved = (state[kernel].sum((2, 3)) * (means - 0.5) / 0.5).sum(1)
    state[mean] = state[mean] - moved
    state[kernel] = state[kernel] * (deviations / 0.5).view(1, 3, 1, 1)


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

    if not (run / "run.json").is_file():
        raise DataError(f"{run}: not a finished training run (no run.json); give the folder that `cxredge train` wrote")
    facts = read_run(run)
    findings = tuple(facts["findings"])
    network = FilmNetwork(facts["architecture"], len(findings))
    state = load_file(run / "model.safetensors")
    narrow(network, state)
    if any(key.startswith("metadata.") for key in state):
        network.metadata = MetadataBranch(len(findings))
    network.load_state_dict(state)
    return network.eval(), findings


def narrow(network: FilmNetwork, state: Mapping[str, Tensor]) -> None:
    """Give the layers, in place, as many channels as their weights have, by the layer's name: pruning left some out."""
    for name, layer in network.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or not isinstance(layer, nn.Conv2d | nn.BatchNorm2d) or weight.shape == layer.weight.shape:
            continue
        parent, _, own = name.rpartition(".")
        if isinstance(layer, nn.BatchNorm2d):
            thin: nn.Module = nn.BatchNorm2d(len(weight), layer.eps, layer.momentum)
        else:
            depthwise = layer.groups > 1
            thin = nn.Conv2d(
                len(weight) if depthwise else weight.shape[1], len(weight), layer.kernel_size, layer.stride, layer.padding,  # type: ignore[arg-type]
                groups=len(weight) if depthwise else 1, bias=layer.bias is not None,
            )  # fmt: skip
        setattr(network.get_submodule(parent), own, thin)

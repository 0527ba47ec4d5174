"""Quantization-aware training with NNCF: the network learns to live with its own rounding, from its full-precision self."""

import copy
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from cxredge.compress.equalize import equalize
from cxredge.compress.export import Contract, Trunk, export
from cxredge.compress.feature_distance import FeatureDistance
from cxredge.compress.fold import fold_batch_norms
from cxredge.compress.integer_concat import share_grid
from cxredge.compress.preactivation import absorb_norms, hold_grid, is_preactivated
from cxredge.compress.recipe import QuantizationAware
from cxredge.devices import read_profile
from cxredge.errors import DataError, OutputError
from cxredge.report.files import atomic_write
from cxredge.runtimes import runtime
from cxredge.train.branch import MetadataBranch
from cxredge.train.checkpoint import load_whole
from cxredge.train.films import augment
from cxredge.train.network import FilmNetwork

# Weight of the squared logit difference beside the cross-entropy against the parent's probabilities.
LOGIT_SHARE = 0.05
# Two products of such a weight with an 8-bit activation still fit into 16 bits.
SEVEN_BITS = 64
# Seconds after which NNCF's extension is not being compiled any more, on however slow a machine.
STALE = 1800


def train_quantized(
    network: FilmNetwork, head: nn.Conv2d, planes: NDArray[np.uint8], recipe: QuantizationAware, *,
    checkpoint: Path, rounded: Callable[[nn.Module, nn.Conv2d], None] | None = None,
    choose: Callable[[Trunk], Sequence[int]] | None = None, say: Callable[[str], None] = print,
) -> tuple[nn.Module, nn.Conv2d]:  # fmt: skip
    """A quantized trunk and its head, whose logits are as near those of the full-precision network as training brings them.

    planes: training films, uint8 [N, 1, H, W]; no labels are needed. Batch norms are folded first and activations are
    quantized per tensor, else ONNX Runtime fuses nothing; weights are signed, per channel, in 7 bits (see `quantize`;
    depthwise ones in 8, their short sums cannot overflow); the first `float_layers` stay in float. Starts from post-training
    quantization. checkpoint: file that an interrupted training goes on from, left at the end; one that cannot be read is told of,
    and training begins anew. rounded: shown the trunk and head as post-training quantization leaves them. choose: asked then, with
    the trunk in full precision, which further convolutions stay in float, by their place among those of the trunk. (Jacob et al.,
    CVPR 2018; the parent as teacher: Mishra and Marr, ICLR 2018.) Raises OutputError when the disk does not take the checkpoint.
    """
    folded = absorb_norms(network) if is_preactivated(network) else fold_batch_norms(network)
    if recipe.equalize and network.architecture == "mobilenet_v2":
        equalize(folded, planes[_some(recipe.calibration_films // 5, len(planes))])
    parent = Trunk(folded).eval()
    student_head = copy.deepcopy(head)
    saved = _read(checkpoint, say)

    def post_training(more: Sequence[int]) -> nn.Module:
        places = sorted({*range(recipe.float_layers), *more})
        trunk = _post_training(copy.deepcopy(parent), planes, recipe, places)
        if is_preactivated(network):
            hold_grid(trunk)
        if rounded is not None:
            rounded(trunk, student_head)
        return trunk

    more = list(saved["more_in_float"]) if saved else []
    trunk = post_training(more)
    if choose is not None and saved is None and (more := list(choose(parent))):
        trunk = post_training(more)
    trained = [p for p in (*trunk.parameters(), *student_head.parameters()) if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.0)
    steps = -(-len(planes) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=0.1
    )
    parts: dict[str, Any] = {"trunk": trunk, "head": student_head, "optimiser": optimiser, "schedule": schedule}
    begin = 0
    if saved:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        begin = int(saved["epoch"])
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        for epoch in range(begin, recipe.epochs):
            task = bar.add_task(f"Quantization-aware epoch {epoch + 1}/{recipe.epochs}", total=len(planes))
            generator = torch.Generator().manual_seed(epoch)
            rows = np.random.default_rng(epoch).permutation(len(planes))
            for batch in np.split(rows, range(recipe.batch_size, len(rows), recipe.batch_size)):
                films = augment(torch.from_numpy(np.ascontiguousarray(planes[np.sort(batch)])), generator)
                with torch.no_grad():
                    told = _logits(parent, head, films)
                said = _logits(trunk, student_head, films)
                loss = nn.functional.binary_cross_entropy_with_logits(said, told.sigmoid())
                loss = loss + LOGIT_SHARE * nn.functional.mse_loss(said, told)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                bar.advance(task, len(batch))
            state = {name: part.state_dict() for name, part in parts.items()}
            _write(checkpoint, state | {"epoch": epoch + 1, "more_in_float": more})
            bar.remove_task(task)
    return trunk.eval(), student_head


def _read(checkpoint: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Where an interrupted training stands; None where none was, or where its file cannot be read."""
    if not checkpoint.exists():
        return None
    try:
        return load_whole(checkpoint, torch.device("cpu"))
    except DataError:
        say(f"{checkpoint} is damaged and cannot be gone on from; the training through the rounding begins anew")
        return None


def _write(checkpoint: Path, state: dict[str, Any]) -> None:
    try:
        with atomic_write(checkpoint, "wb") as out:
            torch.save(state, out)
    # What torch makes of an error of the disk.
    except RuntimeError as error:
        raise OutputError(
            f"{checkpoint}: the checkpoint cannot be written ({error}); is the disk full? The one before is kept: free some space,"
            " and the same command goes on from it"
        ) from error


def export_int8(
    trunk: nn.Module, head: nn.Conv2d, gate: FeatureDistance, size: int, out: Path, branch: MetadataBranch | None = None, *,
    mirrored: bool = False,
) -> None:  # fmt: skip
    """Write the quantized trunk with head, gate and branch as a portable QDQ graph whose weights are stored in 8 bits.

    The head computes in float too.
    """
    nncf = import_nncf()
    example = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    stripped = nncf.strip(trunk.eval(), do_copy=True, example_input=example)
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / out.name
        export(Contract(stripped, head, gate, branch, mirrored=mirrored), size, raw)
        # Exported weights are floats that were rounded; folding stores them as the integers they stand for.
        runtime("onnxruntime").compile(raw, read_profile("generic"), out.parent)
    keep_seven_bits(out)
    share_grid(out)


def keep_seven_bits(path: Path) -> None:
    """Clip what training moved out of the seven bits: a few weights in ten thousand, by a step or two.

    Depthwise convolutions may use all eight, see `widest_weight`.
    """
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4 and tensor.dims[1] > 1:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values.clip(-SEVEN_BITS, SEVEN_BITS), tensor.name))
    onnx.save(model, path)


def _post_training(
    trunk: Trunk, planes: NDArray[np.uint8], recipe: QuantizationAware, in_float: Sequence[int]
) -> nn.Module:
    """Where training starts: ranges set from calibration films. in_float: places of convolutions that are not rounded."""
    nncf = import_nncf()
    from nncf.quantization import advanced_parameters as advanced
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    chosen = planes[_some(recipe.calibration_films, len(planes))]
    samples = list(torch.from_numpy(chosen).split(1))
    beyond = StatisticsCollectorParameters(
        StatisticsType.QUANTILE, AggregatorType.MEAN, quantile_outlier_prob=1 - recipe.percentile / 100
    )
    return cast(
        nn.Module,
        nncf.quantize(
            trunk,
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            # The film comes in 8 bits: a second grid before the first convolution would only move its grey levels.
            ignored_scope=nncf.IgnoredScope(names=_names_of(trunk, samples[0], in_float)),
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                # Feature maps leave the trunk quantized, or its last convolution would have no integer output to fuse.
                quantize_outputs=True,
                overflow_fix=advanced.OverflowFix.ENABLE,
                activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
                # A range that reaches for the last activation rounds all others more coarsely.
                activations_range_estimator_params=RangeEstimatorParameters(beyond, beyond),
            ),
        ),
    )


def _names_of(trunk: Trunk, film: Tensor, places: Sequence[int]) -> list[str]:
    """What NNCF calls convolutions, by their place in the order they run. film: uint8 [1, 1, H, W]."""
    from nncf.torch.function_hook import wrap_model
    from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph

    graph = build_nncf_graph(wrap_model(copy.deepcopy(trunk)), film)
    kernels = [f"{name}.weight" for name, layer in trunk.named_modules() if isinstance(layer, nn.Conv2d)]
    # The head is the network's, and no part of what runs here.
    kernels = [name for name in kernels if not name.endswith("network.head.weight")]
    return [str(graph.get_next_nodes(graph.get_node_by_name(kernels[place]))[0].node_name) for place in places]


def _some(wanted: int, available: int) -> NDArray[np.intp]:
    return np.sort(np.random.default_rng(0).choice(available, min(max(wanted, 1), available), replace=False))


def _logits(trunk: nn.Module, head: nn.Conv2d, films: Tensor) -> Tensor:
    return cast(Tensor, head(trunk(films)[1])).mean((2, 3))


def import_nncf() -> ModuleType:
    """NNCF, with its telemetry off and its log quiet: both are decided when it is first imported."""
    os.environ.setdefault("NNCF_CI", "1")
    # At first use it compiles an extension: half a minute, on a busy machine many; given up, it would leave its lock behind.
    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", str(STALE))
    _clear_stale_lock()
    import nncf

    nncf.set_log_level(logging.ERROR)
    # `nncf.strip` loads torchao for kernels it does not use here; that some cannot be loaded is nobody's concern.
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    return nncf  # type: ignore[no-any-return]


def _clear_stale_lock() -> None:
    """A compilation that was killed leaves its lock file, for which every later one would wait without end."""
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in root.glob("*/nncf/*/*/lock"):
        if time.time() - lock.stat().st_mtime > STALE:
            lock.unlink(missing_ok=True)

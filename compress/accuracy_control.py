"""Accuracy control: which convolutions stay in floats, by what their rounding does to the logits and what leaving it out costs.

Every quantized convolution is taken out of the rounding by itself; then the worst offenders are taken out together, one more at a
time, until the logits are near enough or no more may be spent (NNCF's accuracy control ranks and takes back in the same way).
Films tell how far logits move, without labels: AUROC would want thousands of films to see what some dozens show here.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from cxredge.compress.measure import Job, measure
from cxredge.compress.recipe import AccuracyControl
from cxredge.compress.records import score
from cxredge.errors import CxredgeError

# A layer that brings the logits nearer by less than this share of what is left is not worth its time: training takes that back.
WORTH = 0.1
Tick = Callable[[int, int], None]
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Trial:
    """One convolution out of the rounding. place: among the convolutions of the graph, in the order they run.

    alone: mean absolute difference of logit from full precision with this one in floats. together, slower: the same, and how many
    times the quantized graph's time, with those before it that stayed in floats too; None where it was not tried. kept: it stays.
    """

    layer: str
    place: int
    alone: float
    together: float | None = None
    slower: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class Controlled:
    """before, after: mean absolute difference of logit from full precision. trials: every convolution, the worst first."""

    before: float
    after: float
    trials: tuple[Trial, ...]

    @property
    def places(self) -> tuple[int, ...]:
        """The convolutions that stay in floats, by their place."""
        return tuple(sorted(trial.place for trial in self.trials if trial.kept))


def control(
    full: Path, int8: Path, planes: NDArray[np.uint8], limits: AccuracyControl, *, tick: Tick | None = None
) -> Controlled:
    """Choose the convolutions of a quantized graph that had better stay in floats.

    full, int8: graphs of the very same weights, before calibration. planes: training films, uint8 [N, 1, H, W]. tick: called
    with the convolutions tried and those in all. Raises CxredgeError where the engine cannot run a graph.
    """
    model = onnx.load(int8)
    said = score(full, planes).logits
    floats = float_weights(full)
    names = [node.name for node in _quantized(model)]
    places = [place for place, node in enumerate(_convolutions(model)) if node.name in names]

    def apart(graph: Path) -> float:
        return float(np.abs(score(graph, planes).logits - said).mean())

    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "trial.onnx"
        before = apart(int8)
        trials = []
        for number, (name, place) in enumerate(zip(names, places, strict=True), 1):
            trials.append(Trial(name.strip("/"), place, apart(in_float(int8, [place], floats, out))))
            if tick is not None:
                tick(number, len(names))
        trials.sort(key=lambda trial: trial.alone)
        after, kept = before, list[int]()
        for row, trial in enumerate(trials):
            helps = before - trial.alone > WORTH * after
            if len(kept) == limits.most or after <= limits.logit_difference or not helps:
                break
            graph = in_float(int8, [*kept, trial.place], floats, out)
            together = apart(graph)
            slower = _slower(int8, graph, planes[:1], limits.engine)
            stays = together < after * (1 - WORTH) and slower <= limits.slower
            trials[row] = replace(trial, together=together, slower=slower, kept=stays)
            if stays:
                after = together
                kept.append(trial.place)
    return Controlled(before, after, tuple(trials))


def in_float(graph: Path, places: Sequence[int], weights: Sequence[Weights], out: Path) -> Path:
    """Write a quantized graph in which some convolutions read what was not rounded, with weights that were not rounded either.

    places: of the convolutions, in the order they run. weights: kernel and bias of every convolution.
    """
    model = onnx.load(graph)
    nodes = model.graph.node
    maker = {name: node for node in nodes for name in node.output}
    convolutions = _convolutions(model)
    for place in places:
        node = convolutions[place]
        dequantize = maker[node.input[0]]
        if dequantize.op_type == "DequantizeLinear":
            node.input[0] = _clipped(model, node.name, maker[dequantize.input[0]])
        for number, values in enumerate(weights[place], 1):
            name = f"{node.name}.float{number}"
            model.graph.initializer.append(numpy_helper.from_array(values, name))
            node.input[number] = name
    # What nobody reads any more would still be computed.
    while unread := _unread(model):
        for node in unread:
            nodes.remove(node)
    onnx.save(model, out)
    return out


def _clipped(model: onnx.ModelProto, name: str, quantize: onnx.NodeProto) -> str:
    """What goes into a quantizer, clipped as it clips and not rounded: a ReLU6 may live in its range alone."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scale, zero = (stored[given] for given in quantize.input[1:3])
    whole = np.iinfo(zero.dtype)
    ends = [np.float32((end - int(zero)) * float(scale)) for end in (whole.min, whole.max)]
    for end, value in zip(("low", "high"), ends, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), f"{name}.{end}"))
    clip = onnx.helper.make_node("Clip", [quantize.input[0], f"{name}.low", f"{name}.high"], [f"{name}.clipped"])
    # Nodes stand in the order they run.
    model.graph.node.insert(list(model.graph.node).index(quantize), clip)
    return f"{name}.clipped"


def float_weights(full: Path) -> list[Weights]:
    """Kernel and bias of every convolution of a full-precision graph, however they are stored, in the order they run."""
    with tempfile.TemporaryDirectory() as scratch:
        folded = Path(scratch) / "folded.onnx"
        quant_pre_process(str(full), str(folded), skip_symbolic_shape=True)
        model = onnx.load(folded)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        (numpy_helper.to_array(stored[node.input[1]]), numpy_helper.to_array(stored[node.input[2]]))
        for node in _convolutions(model)
    ]


def _convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def _quantized(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node for node in _convolutions(model) if rounded.issuperset(node.input[:2])]


def _unread(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    return [node for node in model.graph.node if not read & set(node.output)]


def _slower(quantized: Path, other: Path, film: NDArray[np.uint8], engine: str) -> float:
    """How many times the time of a quantized graph another takes, both measured in turns. film: uint8 [1, 1, H, W]."""
    jobs = [Job(engine, graph) for graph in (quantized, other)]
    one, two = measure(jobs, film)
    if error := one.error or two.error:
        raise CxredgeError(f"{engine} cannot run the quantized network: {error}")
    return float(np.median(two.milliseconds) / np.median(one.milliseconds))

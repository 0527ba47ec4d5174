"""One network in every form an engine asks for, and of each form: does the engine really compute its convolutions in 8 bits?"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization.shape_inference import quant_pre_process

from cxredge.compress.fused import fused
from cxredge.compress.measure import Job, measure
from cxredge.compress.recipe import Form
from cxredge.compress.symmetric import quantize_symmetric
from cxredge.compress.tensorrt_check import check
from cxredge.devices import read_profile
from cxredge.errors import CxredgeError
from cxredge.metrics import Floats, Interval, mean_auroc_interval
from cxredge.runtimes import Artifact, runtime
from cxredge.runtimes.openvino_ import OpenVinoSession

# The profile whose TensorRT engine the graph is made for.
DEVICE = "jetson"
FILES = (
    "model.fp32.onnx", "model.int8.onnx", "model.int8.tensorrt.onnx", "openvino/model.xml", "openvino/model.bin",
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A file of the family in one engine. drift: of its mean AUROC against the full-precision parent's, on the test films.

    quantized: of `convolutions`, those the engine computes in 8 bits; None where no engine was there to say so. said: what else
    the engine's own checker tells.
    """

    file: str
    engine: str
    megabytes: float
    quantized: int | None
    convolutions: int | None
    drift: Interval
    said: str = ""


def for_tensorrt(fp32: Path, out: Path, planes: NDArray[np.uint8]) -> None:
    """Write the graph as TensorRT takes it: signed, zero points of 0, on calibration films.

    planes: uint8 [N, 1, H, W]. Raises CxredgeError where TensorRT's parser, if one is installed, refuses it.
    """
    engine = next(each for each in read_profile(DEVICE).engines if each.name == "tensorrt")
    with tempfile.TemporaryDirectory() as scratch:
        folded = Path(scratch) / "folded.onnx"
        quant_pre_process(str(fp32), str(folded), skip_symbolic_shape=True)
        quantize_symmetric(folded, out, planes, weight_bits=engine.weight_bits, quantize_bias=engine.bias == "int32")
    found = check(out)
    if found is not None and not found.legal:
        raise CxredgeError(f"{found.library} refuses the graph made for it: {found.refused[0]}")


def write_family(
    out: Path, fp32: Path, int8: Path, forms: Sequence[Form], tensorrt: Path | None, *,
    planes: NDArray[np.uint8], truth: Floats, patients: NDArray[np.str_], parent: Floats,
) -> list[Member]:  # fmt: skip
    """Write `model.fp32.onnx`, `model.int8.onnx` and the forms asked for into `out`, and say what each engine makes of each.

    tensorrt: the graph of `for_tensorrt`. planes: test films, uint8 [N, 1, H, W]; truth [N, L]; parent: the full-precision
    parent's logits of them [N, L]. Raises CxredgeError where an engine cannot run its graph.
    """
    out.mkdir(parents=True, exist_ok=True)
    # Of an earlier run; whatever else lies in the folder is somebody's.
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    openvino = runtime("openvino").available() is True
    whole, small = (
        Path(shutil.copy(graph, out / f"model.{name}.onnx")) for graph, name in ((fp32, "fp32"), (int8, "int8"))
    )
    plans = [(whole, "onnxruntime"), (small, "onnxruntime")]
    if openvino:
        plans.append((small, "openvino"))
    if openvino and "openvino" in forms:
        made = runtime("openvino").compile(small, read_profile("generic"), out / "openvino")
        plans.append((made.path, "openvino"))
    if tensorrt is not None:
        # ONNX Runtime reads it as well, rounding where TensorRT rounds: its numbers, not its speed.
        plans.append((Path(shutil.copy(tensorrt, out / "model.int8.tensorrt.onnx")), "onnxruntime"))
    jobs = [Job(engine, graph, timed=False) for graph, engine in plans]
    members = []
    for (graph, engine), measured in zip(plans, measure(jobs, planes), strict=True):
        if measured.error:
            raise CxredgeError(f"{engine} cannot run {graph.name}: {measured.error}")
        drift = mean_auroc_interval(truth, np.array(measured.logits), patients, baseline=parent)
        size = sum(each.stat().st_size for each in (graph, graph.with_suffix(".bin")) if each.exists()) / 1e6
        quantized, convolutions, said = _told(graph, engine)
        ran_by = "tensorrt" if "tensorrt" in graph.name else engine
        name = graph.relative_to(out).as_posix()
        members.append(Member(name, ran_by, size, quantized, convolutions, drift, said))
    return members


def _told(graph: Path, engine: str) -> tuple[int | None, int | None, str]:
    """Convolutions in 8 bits, convolutions, and what else there is to say, of one file in its engine."""
    if graph.suffix == ".xml":
        session = cast(OpenVinoSession, runtime("openvino").load(Artifact("openvino", graph), 1))
        types = [precision for kind, precision, _ in session.layers() if kind == "Convolution"]
        session.close()
        return sum(each in {"i8", "u8"} for each in types), len(types), ""
    if "tensorrt" not in graph.name:
        found = fused(engine, graph)
        return found.quantized, found.convolutions, ""
    checked = check(graph)
    if checked is None:
        return None, None, "not parsed: no TensorRT library here; figures are ONNX Runtime's"
    said = f"parsed by {checked.library}, not run; figures are ONNX Runtime's"
    return checked.convolutions.get("int8", 0), sum(checked.convolutions.values()), "; ".join([said, *checked.warnings])

"""The graphs a build may choose from, each made once from a bundle and kept: portable, full, 16-bit floats, symmetric INT8."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from cxredge import __version__
from cxredge.bundle import Bundle
from cxredge.bundle.record import Precision
from cxredge.compress.half import to_half
from cxredge.compress.symmetric import quantize_symmetric
from cxredge.devices import Engine, Profile
from cxredge.runtimes import runtime

# What the files of a kept folder were when they were written: name -> SHA-256.
HASHES = "sha256.json"


@dataclass(frozen=True)
class Graph:
    """A graph for an engine. onnx: the ONNX form, which ONNX Runtime can run too. files: name in the bundle -> file, first
    the one that the engine loads. logits: the array of reference.npz that it must reproduce.
    """

    onnx: Path
    files: dict[str, Path]
    logits: str


class Graphs:
    """Makes graphs from a bundle. calibration: uint8 [N, 1, H, W]. cache: folder to keep them in."""

    def __init__(self, bundle: Bundle, calibration: NDArray[np.uint8], cache: Path) -> None:
        self._bundle, self._calibration, self._cache = bundle, calibration, cache
        self._films = hashlib.sha256(np.ascontiguousarray(calibration).data).hexdigest()

    def make(self, engine: Engine, precision: Precision, profile: Profile) -> Graph | str:
        """The graph for an engine in a precision, or in words why there is none."""
        made = self._onnx(engine, precision)
        openvino = runtime("openvino")
        # Where OpenVINO is not installed its bundle carries no IR: it reads the ONNX graph as well, only slower to start.
        if isinstance(made, str) or engine.name != "openvino" or openvino.available() is not True:
            return made
        how = ["openvino", openvino.version()]
        folder = self._kept(made.onnx, how, lambda out: openvino.compile(made.onnx, profile, out))
        return Graph(made.onnx, {f"openvino/{name}": folder / name for name in ("model.xml", "model.bin")}, made.logits)

    def _onnx(self, engine: Engine, precision: Precision) -> Graph | str:
        manifest, full = self._bundle.manifest, self._bundle.float_model
        if precision == manifest.precision and engine.activations == "unsigned":
            if engine.weight_bits == 7 and widest_weight(self._bundle.model) > 64:
                return "the model has 8-bit weights, which overflow on this processor"
            return Graph(self._bundle.model, {manifest.model: self._bundle.model}, "logits")
        if full is None:
            return "needs the full-precision parent, which this bundle does not carry; compress the run again"
        if precision == "fp32":
            return Graph(full, {full.name: full}, "float" if manifest.float_model else "full")
        folder = "tensorrt" if engine.name.startswith("tensorrt") else engine.name
        name = f"{folder}/{precision}.onnx"
        if precision == "fp16":
            made = self._kept(full, ["fp16"], lambda out: to_half(self._folded, out / "model.onnx"))
        elif engine.activations == "signed-symmetric":
            bits, bias = engine.weight_bits, engine.bias == "int32"
            made = self._kept(
                full,
                ["symmetric", bits, bias, self._films],
                lambda out: quantize_symmetric(
                    self._folded, out / "model.onnx", self._calibration, weight_bits=bits, quantize_bias=bias
                ),
            )
        else:
            return f"the bundle's model is {manifest.precision}; its INT8 form with unsigned activations is `compress`'s to make"
        return Graph(made / "model.onnx", {name: made / "model.onnx"}, f"logits_{folder}_{precision}")

    @cached_property
    def _folded(self) -> Path:
        """The full-precision graph with its constants folded."""
        full = self._bundle.float_model
        assert full is not None  # noqa: S101 - asked for only where there is one
        made = self._kept(
            full,
            ["folded"],
            lambda out: quant_pre_process(str(full), str(out / "model.onnx"), skip_symbolic_shape=True),
        )
        return made / "model.onnx"

    def _kept(self, source: Path, how: Sequence[object], make: Callable[[Path], object]) -> Path:
        """The folder that `make` fills, made anew only when source, way or tools differ, or its files are not what was written."""
        said = [
            hashlib.sha256(source.read_bytes()).hexdigest(),
            list(how),
            __version__,
            onnx.__version__,
            onnxruntime.__version__,
        ]
        folder = self._cache / "graphs" / hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
        if not _is_whole(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                make(made)
                _seal(made)
                _take_place(made, folder)
        return folder


def distrust(cache: Path) -> None:
    """Have every graph kept there made anew when it is next asked for; a build that reads one now keeps its files."""
    for hashes in (cache / "graphs").glob(f"*/{HASHES}"):
        hashes.unlink(missing_ok=True)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.name != HASHES)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _is_whole(folder: Path) -> bool:
    with suppress(OSError, ValueError):
        return bool(json.loads((folder / HASHES).read_text(encoding="utf-8")) == _hashes(folder))
    return False


def _take_place(made: Path, folder: Path) -> None:
    """Move a made folder to where it is looked for. One that another build has just put there stays: it may be reading it."""
    try:
        made.replace(folder)
    except OSError:
        if _is_whole(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)


def _seal(folder: Path) -> None:
    """Note what the files are, and have all of it on the disk before the folder gets its name."""
    (folder / HASHES).write_text(json.dumps(_hashes(folder)), encoding="utf-8")
    for file in folder.iterdir():
        with file.open("rb+") as written:
            os.fsync(written.fileno())


def widest_weight(graph: Path) -> int:
    """The largest magnitude among the 8-bit weights of a graph's convolutions; 0 where it has none.

    Depthwise ones do not count: their kernels multiply one by one into 32 bits, and an emulated Haswell gives the very same
    numbers with all eight bits in use.
    """
    stored = [
        t for t in onnx.load(graph).graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4
    ]
    kernels = [numpy_helper.to_array(tensor).astype(np.int16) for tensor in stored if tensor.dims[1] > 1]
    return max((int(np.abs(kernel).max()) for kernel in kernels), default=0)

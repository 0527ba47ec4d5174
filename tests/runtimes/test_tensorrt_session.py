"""Running TensorRT engines, as far as it goes without a GPU: the builder is the real one, driver and engine are stand-ins."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from house import ROOT
from numpy.typing import NDArray

from cxredge.runtimes import Artifact, Tuning, runtime, tensorrt_
from cxredge.runtimes.cuda import Cuda, CudaError
from cxredge.runtimes.tensorrt_build import MAX_BATCH

LIBRARY = "tensorrt_rtx"
trt = pytest.importorskip(LIBRARY, reason="an extra: pip install cxredge[tensorrt-rtx]")


class Driver:
    """Stands in for libcuda: an Orin whose memory is this process's."""

    def __init__(self, *, devices: int = 1, gpu: bytes = b"Orin") -> None:
        self.devices, self.gpu, self.held = devices, gpu, dict[int, Any]()

    def cuInit(self, _flags: int) -> int:  # noqa: N802 - the driver's names
        return 0 if self.devices else 100

    def cuGetErrorName(self, _code: int, word: Any) -> int:  # noqa: N802
        word._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0

    def cuDeviceGetName(self, name: Any, _size: int, _device: int) -> int:  # noqa: N802
        name.value = self.gpu
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12060
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, _device: int) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[which]
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.held[address._obj.value] = block
        return 0

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        del self.held[address.value]
        return 0

    def cuMemcpyHtoDAsync_v2(self, address: Any, source: Any, size: Any, _stream: Any) -> int:  # noqa: N802
        ctypes.memmove(address.value, source.value, size.value)
        return 0

    def cuMemcpyDtoHAsync_v2(self, target: Any, address: Any, size: Any, _stream: Any) -> int:  # noqa: N802
        ctypes.memmove(target.value, address.value, size.value)
        return 0

    def __getattr__(self, name: str) -> Any:
        assert name in {"cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuStreamCreate",
                        "cuStreamSynchronize", "cuStreamDestroy_v2"}, name  # fmt: skip
        return lambda *_: 0


class Engine:
    """Stands in for an engine and its context: ONNX Runtime on the same graph, over the stand-in driver's memory."""

    def __init__(self, graph: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.tensors)
        self.addresses: dict[str, int] = {}
        self.films, self.size = 0, self.tensors[0].shape[-1]

    def create_execution_context(self) -> "Engine":
        return self

    def get_tensor_name(self, i: int) -> str:
        return str(self.tensors[i].name)

    def get_tensor_dtype(self, name: str) -> Any:
        return trt.uint8 if name == "image" else trt.float32

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = next(tensor.shape for tensor in self.tensors if tensor.name == name)
        return (self.films or -1, *shape[1:])

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        self.films = shape[0]
        return 1 <= shape[0] <= MAX_BATCH and shape[1:] == (1, self.size, self.size)

    def execute_async_v3(self, _stream: int) -> bool:
        held = (ctypes.c_uint8 * (self.films * self.size**2)).from_address(self.addresses["image"])
        image = np.frombuffer(held, np.uint8).reshape(self.films, 1, self.size, self.size)
        names = [tensor.name for tensor in self.session.get_outputs()]
        for name, values in zip(names, self.session.run(names, {"image": image}), strict=True):
            ctypes.memmove(self.addresses[name], values.tobytes(), values.nbytes)
        return True


def test_a_session_moves_films_and_results_between_the_memories(legal: Path, images: NDArray[np.uint8]) -> None:
    driver = Driver()
    session = tensorrt_.TensorRtSession(trt, Engine(legal), Cuda(driver))
    plain = runtime("onnxruntime").load(Artifact("onnxruntime", legal), 1)
    # More films than the engine takes at once, and one.
    for films in (images, images[:1]):
        found, expected = session.run(films), plain.run(films)
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
        np.testing.assert_allclose(found.cam, expected.cam, atol=1e-5)
        assert found.atypicality is not None
        assert found.atypicality.shape == (len(films),)
    with pytest.raises(ValueError, match="takes no images of"):
        session.run(images[:1, :, :10, :10])
    with pytest.raises(ValueError, match="takes uint8"):
        session.run(images[:1].astype(np.float32))  # type: ignore[arg-type]
    assert driver.held
    session.close()
    assert not driver.held


@pytest.mark.parametrize(
    ("machine", "build"), [("jetson-orin-nano", ", R36.4.3"), ("gpu-server", ", 570.124.06"), ("x86-avx2", "")]
)
def test_a_gpu_says_what_an_engine_is_bound_to(machine: str, build: str) -> None:
    """The driver's build too: an update within one CUDA version calls for a new self-test."""
    root = ROOT / "tests" / "devices" / "machines" / machine
    assert Cuda(Driver(), root).text == f"Orin, compute capability 8.7, CUDA driver 12.6{build}"


def test_a_machine_without_a_gpu_is_told_so_by_its_driver() -> None:
    with pytest.raises(CudaError, match=r"cuInit: CUDA_ERROR_NO_DEVICE \(100\)"):
        Cuda(Driver(devices=0))


def test_an_engine_is_built_once_per_graph_and_gpu(
    legal: Path, float_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real builder, the real store; only the GPU that would open the engine is a stand-in."""
    opened: list[bytes] = []

    class Runtime:
        def __init__(self, _logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> Engine:
            opened.append(plan)
            return Engine(legal)

    monkeypatch.setattr(trt, "Runtime", Runtime)
    said: list[str] = []

    def load(graph: Path, gpu: bytes = b"Orin") -> int:
        """How many engines were built for it."""
        said.clear()
        monkeypatch.setattr(tensorrt_, "Cuda", lambda: Cuda(Driver(gpu=gpu)))
        runtime(LIBRARY).load(Artifact(LIBRARY, graph), 1, Tuning(cache=tmp_path, say=said.append)).close()
        return sum("once; this can take minutes" in line for line in said)

    assert load(float_graph) == 1
    assert said[-1].startswith("Built the TensorRT for RTX engine in")
    assert load(float_graph) == 0
    assert opened[0] == opened[1]
    assert load(float_graph, gpu=b"Thor") == 1
    assert load(legal) == 1
    # A power cut while the disk was being written.
    for file in (tmp_path / LIBRARY).iterdir():
        file.write_bytes(file.read_bytes()[:-10])
    assert load(float_graph) == 1

"""The few calls of the CUDA driver that running an engine takes; the driver is there wherever the GPU is.

Function names and signatures: NVIDIA, CUDA Driver API.
"""

import ctypes
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

COMPUTE_MAJOR, COMPUTE_MINOR = 75, 76
_ADDRESS = ctypes.c_uint64


class CudaError(RuntimeError):
    """A call of the driver failed; the message is the driver's word for it."""


class Cuda:
    """The first GPU, through its driver. Raises CudaError where there is none. root: of the driver's files, for tests."""

    def __init__(self, library: Any = None, root: Path = Path("/")) -> None:
        self._library = library or _driver()
        self._call("cuInit", 0)
        number, version = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(number), 0)
        self._device = number.value
        name = ctypes.create_string_buffer(100)
        self._call("cuDeviceGetName", name, 100, self._device)
        self._call("cuDriverGetVersion", ctypes.byref(version))
        self.name = name.value.decode(errors="replace")
        self.capability = f"{self._attribute(COMPUTE_MAJOR)}.{self._attribute(COMPUTE_MINOR)}"
        self.driver = f"{version.value // 1000}.{version.value % 1000 // 10}{_driver_build(root)}"
        self._context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.use()

    @property
    def text(self) -> str:
        """GPU, compute capability and driver: what an engine is bound to."""
        return f"{self.name}, compute capability {self.capability}, CUDA driver {self.driver}"

    def use(self) -> None:
        """Make this GPU's context the calling thread's."""
        self._call("cuCtxSetCurrent", self._context)

    def stream(self) -> int:
        """A new stream's handle."""
        handle = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(handle), 0)
        return handle.value or 0

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the GPU."""
        address = _ADDRESS()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def upload(self, address: int, values: NDArray[Any], stream: int) -> None:
        """Copy a contiguous array to the GPU. It must live until the stream was waited for."""
        source, size = ctypes.c_void_p(values.ctypes.data), ctypes.c_size_t(values.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", _ADDRESS(address), source, size, ctypes.c_void_p(stream))

    def download(self, values: NDArray[Any], address: int, stream: int) -> None:
        """Copy from the GPU into a contiguous array, which is filled once the stream was waited for."""
        target, size = ctypes.c_void_p(values.ctypes.data), ctypes.c_size_t(values.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", target, _ADDRESS(address), size, ctypes.c_void_p(stream))

    def wait(self, stream: int) -> None:
        """Until everything of the stream is done; an error of the GPU comes out here."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", _ADDRESS(address))

    def free_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), which, self._device)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            word = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(word))
            raise CudaError(f"{function}: {(word.value or b'error').decode()} ({code})")


def _driver_build(root: Path) -> str:
    """Which build the driver is: it may change while its CUDA version stays. Empty where no file tells (Windows)."""
    for name, pattern in (
        ("proc/driver/nvidia/version", r"Module.*?\s(\d+\.[\d.]+)"),
        ("etc/nv_tegra_release", r"(R\d+) .*?REVISION: ([\d.]+)"),
    ):
        with suppress(OSError):
            if said := re.search(pattern, (root / name).read_text(encoding="utf-8", errors="replace")):
                return f", {'.'.join(said.groups())}"
    return ""


def _driver() -> Any:
    names = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise CudaError(f"the driver's library {names[0]} is not there")

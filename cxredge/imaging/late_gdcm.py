"""GDCM where it is used, and not already where pydicom is imported: 22 MB of memory and 40 ms that most scans never need.

pydicom loads it to read its version and to see whether a class has a certain method. A stand-in answers both, and loads the library
for whatever else is asked of it; with the extra `fast` nothing is, as long as films are sound.
"""

import sys
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from threading import Lock
from types import ModuleType, SimpleNamespace
from typing import Any

_NAME, _PACKAGE = "gdcm", "python-gdcm"
_LOADING = Lock()


class _Constructor:
    """Stands for `gdcm.DataElement`, which pydicom asks for this method (there since GDCM 3.0.10) long before it makes one."""

    SetByteStringValue = True

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *said: Any) -> Any:
        return self._make(*said)


class _StandIn(ModuleType):
    """Knows GDCM's version and loads it for anything else."""

    def __init__(self) -> None:
        super().__init__(_NAME)
        self.Version = SimpleNamespace(GetVersion=self._version)
        self.DataElement = _Constructor(lambda *said: self._loaded().DataElement(*said))

    def _version(self) -> str:
        try:
            return metadata.version(_PACKAGE)
        except metadata.PackageNotFoundError:
            # Built by hand, or of another packager: only the library itself can say.
            return str(self._loaded().Version.GetVersion())

    def _loaded(self) -> ModuleType:
        with _LOADING:
            if sys.modules.get(_NAME) is self:
                del sys.modules[_NAME]
                try:
                    import_module(_NAME)
                except BaseException:
                    sys.modules[_NAME] = self
                    raise
        return sys.modules[_NAME]

    def __getattr__(self, name: str) -> Any:
        # Python's own questions about a module are no reason to load it.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loaded(), name)


def put_off_gdcm() -> None:
    """Put the stand-in where pydicom will look for GDCM. To be called before pydicom is imported; later it does nothing."""
    if _NAME in sys.modules or (spec := find_spec(_NAME)) is None:
        return
    stand_in = _StandIn()
    stand_in.__spec__ = spec
    sys.modules[_NAME] = stand_in

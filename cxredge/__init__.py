"""cxredge: chest X-ray models on the small computers of rural clinics, offline.

>>> from cxredge import Scanner
>>> with Scanner("chestxray14") as scanner:
...     reading = scanner.read("film.dcm")
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxredge.bundle import Bundle, open_bundle
    from cxredge.scan.reading import Priority, Reading, Status
    from cxredge.scan.scanner import Scanner

__version__ = "0.1.0"
__all__ = ["Bundle", "Priority", "Reading", "Scanner", "Status", "__version__", "open_bundle"]

# ONNX Runtime reports to its maker from its first import on, with an identifier it keeps on the disk, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Loaded when first asked for: whoever imports cxredge for its version waits for no engine.
_HOMES = {
    "Bundle": "cxredge.bundle",
    "Priority": "cxredge.scan.reading",
    "Reading": "cxredge.scan.reading",
    "Scanner": "cxredge.scan.scanner",
    "Status": "cxredge.scan.reading",
    "open_bundle": "cxredge.bundle",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

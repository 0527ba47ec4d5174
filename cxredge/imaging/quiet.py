"""Keep what pydicom and Pillow warn about, at times with a header's values, off the user's screen."""

import warnings
from threading import Lock
from types import TracebackType


class Quiet:
    """A context that any number of threads may be in at once.

    `warnings.catch_warnings` alone takes the filter away from all threads as soon as one of them leaves.
    """

    def __init__(self, modules: str) -> None:
        self._modules = modules
        self._lock = Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=self._modules)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(kind, error, at)


DECODERS_QUIET = Quiet(r"(pydicom|PIL)(\.|$)")

"""Folders of the user's own, outside every output folder."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def cache_folder(part: str = "") -> Path:
    """What may be deleted at any time: compiled engines, passed self-tests, unpacked archives, templates, a build's graphs."""
    return _own(user_cache_path) / part


def data_folder() -> Path:
    """What must not be lost: the salt of the pseudonyms."""
    return _own(user_data_path)


def _own(find: Callable[..., Path]) -> Path:
    """cxredge's folder of a kind; for a user without a home, as a service may be, one in which nothing can be kept."""
    with suppress(RuntimeError):
        # Older platformdirs leave "~" as it is, which would be a folder of that name here.
        if (folder := find("cxredge", appauthor=False)).is_absolute():
            return folder
    return Path(os.devnull) / "without-HOME"

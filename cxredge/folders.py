"""Folders of the user's own, outside every output folder."""

from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def cache_folder(part: str = "") -> Path:
    """What may be deleted at any time: compiled engines, passed self-tests, unpacked archives, templates, a build's graphs."""
    return user_cache_path("cxredge", appauthor=False) / part


def data_folder() -> Path:
    """What must not be lost: the salt of the pseudonyms."""
    return user_data_path("cxredge", appauthor=False)

"""A device profile: one TOML file, one frozen record."""

import tomllib
from importlib import resources
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Profile:
    """What is known of a device before a model is built for it.

    runtimes: engines in the order to try them. precisions: candidates to build. threads: per film.
    source: where the figures come from.
    """

    name: str
    title: str
    architecture: str
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: int
    source: str


def read_profile(name: str) -> Profile:
    """A profile by its shipped name or by the path of a TOML file.

    Raises ValueError that names the file for an unknown name, an unknown or missing key, a wrong value.
    """
    shipped = resources.files("cxredge.devices") / "profiles" / f"{name}.toml"
    file = Path(name) if name.endswith(".toml") else shipped
    if not file.is_file():
        raise ValueError(f"no device profile {name!r}; known ones: {', '.join(profile_names())}")
    try:
        return TypeAdapter(Profile).validate_python(tomllib.loads(file.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{file}: {mistakes}") from None


def profile_names() -> list[str]:
    """Names of the profiles that come with cxredge."""
    folder = resources.files("cxredge.devices") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))

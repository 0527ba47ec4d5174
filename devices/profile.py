"""A device profile: one TOML file, one frozen record."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

Precision = Literal["int8", "fp16", "fp32"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Engine:
    """An engine that a device may use, and what graph to make for it.

    name: of the runtime. precisions: candidates, to be measured against each other: 8 bits are not always faster.
    activations: "unsigned" (uint8, any zero point) or "signed-symmetric" (int8, zero point 0).
    weight_bits: 7 where 8-bit weights overflow 16-bit sums (x86 without VNNI). bias: "int32" behind a DequantizeLinear, or
    left in "float". source: where this comes from.
    """

    name: str
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)]
    activations: Literal["unsigned", "signed-symmetric"]
    weight_bits: Literal[7, 8]
    bias: Literal["int32", "float"]
    source: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Profile:
    """What is known of a device before a model is built for it.

    aliases: other names for it. boards: parts of the names that such boards give themselves.
    architecture: "any", or as Linux says it. extensions: CPU flags that the profile counts on, as /proc/cpuinfo names them;
    of a group with "|" one is enough. cores, memory_mb (10^6 bytes): None where they differ from machine to machine.
    engines: in the order to try them. threads: of the engine, for one film. spinning: whether waiting threads keep a core
    busy. arena: whether ONNX Runtime keeps freed memory. latency_budget_ms, memory_budget_mb: of one inference, and of the
    whole process; what `build` warns about. compute_capabilities: of the GPU, or of those it may have, as TensorRT counts
    ("8.7"); none without one.
    notes: what a technician should know first. sources: figure -> where it comes from.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    architecture: Literal["x86_64", "aarch64", "any"]
    engines: Annotated[tuple[Engine, ...], Field(min_length=1)]
    threads: Annotated[int, Field(ge=1)]
    spinning: bool
    arena: bool
    latency_budget_ms: Annotated[float, Field(gt=0)]
    memory_budget_mb: Annotated[int, Field(gt=0)]
    sources: dict[str, str]
    aliases: tuple[str, ...] = ()
    boards: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    cores: Annotated[int, Field(ge=1)] | None = None
    memory_mb: Annotated[int, Field(gt=0)] | None = None
    compute_capabilities: tuple[Annotated[str, Field(pattern=r"^\d+\.\d$")], ...] = ()
    notes: str = ""

    @model_validator(mode="after")
    def _sources_name_figures(self) -> Self:
        if unknown := sorted(set(self.sources) - set(FIGURES)):
            raise ValueError(f"sources: {', '.join(unknown)} is no figure of a profile ({', '.join(FIGURES)})")
        if len({engine.name for engine in self.engines}) != len(self.engines):
            raise ValueError("engines: one of them stands there twice")
        return self

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names of the engines, in the order to try them."""
        return tuple(engine.name for engine in self.engines)

    def engine(self, name: str) -> Engine:
        """The engine of that name. Raises KeyError where the device has none such."""
        return {engine.name: engine for engine in self.engines}[name]


# What needs a source, besides the engines, which carry their own.
FIGURES = (
    "extensions",
    "cores",
    "memory_mb",
    "threads",
    "spinning",
    "arena",
    "latency_budget_ms",
    "memory_budget_mb",
    "compute_capabilities",
)


def read_profile(name: str) -> Profile:
    """A profile by its shipped name or alias, or by the path of a TOML file.

    Raises ValueError that names the file for an unknown name, an unknown or missing key, a wrong value.
    """
    if name.endswith(".toml"):
        return _parse(Path(name))
    file = _folder() / f"{name}.toml"
    if file.is_file():
        return _parse(file)
    for profile in shipped_profiles():
        if name in profile.aliases:
            return profile
    raise ValueError(
        f"no device profile {name!r}; known ones: {', '.join(profile_names())}; one of your own: give the path of its TOML file"
    )


def shipped_profiles() -> list[Profile]:
    """Every profile that comes with cxredge."""
    return [_parse(entry) for entry in sorted(_folder().iterdir()) if entry.name.endswith(".toml")]


def profile_names() -> list[str]:
    """Names and aliases of the profiles that come with cxredge."""
    return sorted(name for profile in shipped_profiles() for name in (profile.name, *profile.aliases))


def _folder() -> Path:
    return Path(str(resources.files("cxredge.devices") / "profiles"))


def _parse(file: Path) -> Profile:
    try:
        return TypeAdapter(Profile).validate_python(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: the device profile cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'profile'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{file}: {mistakes}") from None

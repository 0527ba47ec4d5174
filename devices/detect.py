"""Which profile fits the machine at hand."""

from dataclasses import dataclass

from cxredge.devices.probe import Machine
from cxredge.devices.profile import Profile, read_profile, shipped_profiles


@dataclass(frozen=True)
class Match:
    """A profile, and why it was taken. exact: made for this very kind of machine, not for its nearest relative."""

    profile: Profile
    why: str
    exact: bool = True


def profile_of(machine: Machine) -> Match:
    """The shipped profile that fits best: by the board's own name, then by its GPU's driver, then by what the CPU can do."""
    for profile in shipped_profiles():
        if any(name in machine.board for name in profile.boards):
            return Match(profile, f"the board calls itself {machine.board!r}")
    if "Orin" in machine.board:
        return Match(
            read_profile("jetson-orin-nano"),
            f"the board calls itself {machine.board!r}, the same GPU generation",
            exact=False,
        )
    if machine.architecture == "x86_64" and machine.nvidia:
        return Match(read_profile("gpu-server"), f"an NVIDIA driver is loaded ({machine.nvidia})")
    # From the most demanding to the least.
    for name in ("x86-vnni", "x86-avx2"):
        profile = read_profile(name)
        found = [flag for group in profile.extensions for flag in group.split("|") if flag in machine.extensions]
        if profile.architecture == machine.architecture and len(found) >= len(profile.extensions):
            return Match(profile, f"the processor has {', '.join(found)}")
    return Match(
        read_profile("generic"), f"nothing more is known of a {machine.architecture} with these extensions", exact=False
    )

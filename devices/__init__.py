"""Devices: their profiles, and what machine this is."""

from cxredge.devices.detect import Match, profile_of
from cxredge.devices.probe import Machine, peak_rss_mb, power_mode, temperatures, this_machine
from cxredge.devices.profile import Engine, Profile, profile_names, read_profile, shipped_profiles

__all__ = [
    "Engine",
    "Machine",
    "Match",
    "Profile",
    "peak_rss_mb",
    "power_mode",
    "profile_names",
    "profile_of",
    "read_profile",
    "shipped_profiles",
    "temperatures",
    "this_machine",
]

"""Devices: their profiles, and what machine this is."""

from cxredge.devices.probe import Machine, peak_rss_mb, this_machine
from cxredge.devices.profile import Profile, profile_names, read_profile

__all__ = ["Machine", "Profile", "peak_rss_mb", "profile_names", "read_profile", "this_machine"]

"""The unit that travels: a folder with a model, its manifest, its self-test films and its card."""

from cxredge.bundle.bundle import Bundle, open_bundle, shipped_names, write_bundle
from cxredge.bundle.manifest import Manifest

__all__ = ["Bundle", "Manifest", "open_bundle", "shipped_names", "write_bundle"]

"""Which findings of a film get a heat map, and the maps themselves."""

from cxredge.bundle.manifest import Manifest
from cxredge.imaging import Film
from cxredge.imaging.overlay import heat_maps
from cxredge.runtimes import Outputs
from cxredge.scan.decide import margin
from cxredge.scan.reading import Reading

AT_MOST = 3


def explained(reading: Reading, manifest: Manifest) -> list[str]:
    """Up to three flagged findings: those with evidence first, then by how far they lie above their threshold."""
    flagged = [finding for finding in manifest.findings if reading.flags.get(finding.name)]
    flagged.sort(key=lambda f: (f.experimental, -margin(reading.probabilities[f.name], f)))
    return [finding.name for finding in flagged[:AT_MOST]]


def explain(film: Film, outputs: Outputs, reading: Reading, manifest: Manifest) -> dict[str, bytes]:
    """A transparent PNG per explained finding, see `heat_maps`; empty bytes where no place stands out."""
    names = explained(reading, manifest)
    if not names:
        return {}
    cams = outputs.cam[0, [manifest.names.index(name) for name in names]]
    return dict(zip(names, heat_maps(film, cams), strict=True))

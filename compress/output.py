"""Where results may go: asked before hours of work, not after them."""

from pathlib import Path

from cxredge.bundle.bundle import check_output
from cxredge.errors import OutputError


def bundle_folder(out: Path) -> Path:
    """The folder to write a bundle to, with a name: where a link leads, since a folder cannot take a link's place, or `.`.

    Raises OutputError for what must not be overwritten, see `check_output`.
    """
    folder = out.resolve() if out.is_symlink() or not out.name else out
    check_output(folder)
    return folder


def check_report(report: Path, bundle: Path) -> None:
    """Raise OutputError where a report's folder is a file, or in the bundle's, which holds what its manifest lists and no more."""
    if report.exists() and not report.is_dir():
        raise OutputError(f"{report} is a file; choose another --report")
    if report.resolve().is_relative_to(bundle.resolve()):
        raise OutputError(f"{report} lies in the bundle's own folder, {bundle}; choose a --report beside it")

"""Everything that can go wrong and that a person can do something about, one class each.

A message says what happened, to which file, and what to do next.
"""

from enum import Enum
from pathlib import Path


class CxredgeError(Exception):
    """Base of every error that the command line prints as one line, without a traceback (exit code 2)."""


class Refusal(Enum):
    """Why a film gets no score. A refusal is never read as 'normal'.

    The name, in lower case, is the code that reports carry; the value is what a person reads.
    """

    NOT_AN_IMAGE = "not an image file"
    EMPTY = "the file is empty"
    ENDS_EARLY = "the file ends early"
    DAMAGED = "the file is damaged"
    UNSUPPORTED = "a kind of image that is not supported"
    NO_PIXELS = "holds no image"
    MULTI_FRAME = "holds several images, a film holds one"
    TOO_SMALL = "too small to read"
    TOO_LARGE = "larger than any film"
    BLANK = "no image content"
    SATURATED = "burnt out: hardly any grey between black and white"
    COLOUR = "a colour picture, films are grey"
    NOT_A_CHEST_FILM = "does not look like a frontal chest film"
    LATERAL = "a lateral view; the model knows frontal films only"
    INVERTED = "black and white are swapped"
    TURNED = "lies on its side or upside down"
    CROPPED = "does not show the whole chest"
    OUTSIDE_POPULATION = "the patient's age lies outside the model's range"

    @property
    def code(self) -> str:
        return self.name.lower()


class FilmRefusedError(CxredgeError):
    """The file was read and holds no film that may be scored; reading it again would not help."""

    def __init__(self, reason: Refusal, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class FilmFailedError(CxredgeError):
    """The film may be good but could not be read now (permissions, disk, a missing decoder): the next run tries again."""


class BundleError(CxredgeError):
    """A bundle that may not be used."""

    def __init__(self, bundle: Path | str, what: str) -> None:
        super().__init__(f"{bundle}: {what}")
        self.bundle = str(bundle)
        self.what = what


class BundleMissingError(BundleError):
    """There is no bundle at that path or of that name."""


class BundleAmbiguousError(BundleError):
    """A name that means two bundles."""


class BundleSchemaError(BundleError):
    """The manifest is not of the schema that this version of cxredge reads."""


class BundleHashError(BundleError):
    """A file of the bundle is not the file that was built."""


class BundleTooNewError(BundleSchemaError):
    """The manifest was written by a newer cxredge."""


class BundleContentError(BundleError):
    """The bundle does not hold what its manifest lists."""


class BundleFileMissingError(BundleContentError):
    """A file that the manifest lists is not there."""


class BundleFileExtraError(BundleContentError):
    """A file is there that the manifest does not list."""


class BundlePathError(BundleContentError):
    """A path, in the manifest, in the archive or by a link, leads out of the bundle."""


class BundleExternalDataError(BundleContentError):
    """A graph asks the engine to read a file of the sender's choosing."""


class BundleArchiveError(BundleError):
    """An archive that cannot be read, or that is not one bundle."""


class BundleTooLargeError(BundleArchiveError):
    """An archive that would unpack to more than any bundle holds."""


class BundleSignatureError(BundleError):
    """The signature asked for is missing, is of another key, or does not fit the bundle."""


class KeyFileError(CxredgeError):
    """A key that cannot be read, or that would be overwritten."""


class SelfTestError(CxredgeError):
    """The runtime at hand does not give the numbers that the bundle was built with."""


class RuntimeMissingError(CxredgeError):
    """An engine is not installed here, or cannot open the graph; the message says what to do."""


class DeviceError(CxredgeError):
    """A device profile that is not known, or has mistakes."""


class DataError(CxredgeError):
    """A data set is not in its published layout, or contradicts itself."""


class LabelsError(CxredgeError):
    """A labels table cannot be matched to the films of this run."""


class RecipeError(CxredgeError):
    """A recipe with mistakes; the message lists all of them."""


class TooFewFilmsError(CxredgeError):
    """A figure was asked for that these films cannot give (no positive or no negative film)."""


class NotFiniteError(CxredgeError):
    """A network gave scores that are no numbers: any figure made of them would be wrong."""


class DivergedError(CxredgeError):
    """Training left the numbers; what it had learned is lost from there on."""


class OutputError(CxredgeError):
    """Results cannot be written where they were asked for."""

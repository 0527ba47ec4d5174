"""What to do next with a film that got no result, per reason code."""

from cxredge.errors import Refusal
from cxredge.scan.reading import Reading, Status

_REFUSED = {
    Refusal.NOT_AN_IMAGE: "If it should be a film, export it again as DICOM, PNG or JPEG. If not, remove it.",
    Refusal.EMPTY: "Copy the film again from the X-ray machine, then run the scan again.",
    Refusal.ENDS_EARLY: "The copy broke off. Copy the film again, whole, then run the scan again.",
    Refusal.DAMAGED: "Copy or export the film again. If the new copy is damaged too, have the disk or card checked.",
    Refusal.UNSUPPORTED: "Export the film again as DICOM, PNG or JPEG, in grey, then run the scan again.",
    Refusal.NO_PIXELS: "This file is a report or an index, not a picture. Export the film itself.",
    Refusal.MULTI_FRAME: "Export each film as a file of its own, then run the scan again.",
    Refusal.TOO_SMALL: "This may be a preview. Export the film at full size.",
    Refusal.TOO_LARGE: "Export the film at the size the X-ray machine took it, then run the scan again.",
    Refusal.BLANK: "Look at the film on the X-ray machine. If it is blank there too, tell the radiographer.",
    Refusal.SATURATED: "The film is over- or underexposed, or was exported with a wrong window. Export it again or repeat it.",
    Refusal.COLOUR: "Export the film itself in grey; a photograph of a film or of a screen gets no score.",
    Refusal.LATERAL: "Have the lateral view read without the model. If it is a frontal film, its header is wrong: correct it.",
    Refusal.INVERTED: "Export the film again with black air and white bone, or with the right photometric interpretation.",
    Refusal.TURNED: "Turn the film upright where it comes from, then run the scan again.",
    Refusal.CROPPED: "Export the whole film. If it is whole, have it read without the model.",
    Refusal.OUTSIDE_POPULATION: "Have the film read without the model: it was not made for patients of this age.",
    Refusal.NOT_A_CHEST_FILM: (
        "Look at the film. If it is a frontal chest film, have it read without the model; lateral views and other parts"
        " of the body get no score."
    ),
}
_FAILED = {
    "cannot_be_opened": "Check that the file is still there and that you may read it, then run the same command again.",
    "decoder_broke_down": "Copy or export the film again. If that does not help, have it read without the model.",
    "out_of_memory": "Close other programs, then run the same command again.",
}
_OTHERWISE = {
    Status.REFUSED: "Look at the film and have it read without the model.",
    Status.FAILED: "Check the file and its permissions, then run the same command again: it reads only what failed.",
}
_BY_CODE = {refusal.code: advice for refusal, advice in _REFUSED.items()} | _FAILED


def advice(reading: Reading) -> str:
    """One or two sentences for the person at the machine; empty for a film that was read."""
    if reading.status is Status.OK:
        return ""
    return _BY_CODE.get(reading.reason, _OTHERWISE[reading.status])

"""The one place that imports torchvision.

torchvision's registry wheel is built for CUDA; beside a CPU-only torch its compiled operators do not load and the plain
import fails with "operator torchvision::nms does not exist". Classification networks need none of those operators, so
their two schemas are declared and the import is tried again, and only then.
"""

import sys
from types import ModuleType

import torch

_kept_alive: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Import torchvision with its models, on a CUDA or a CPU build of torch alike."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(library)
        import torchvision
    import torchvision.models

    return torchvision  # type: ignore[no-any-return]

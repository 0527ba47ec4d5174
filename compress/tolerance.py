"""How far an honest engine's logits may lie from those a bundle was built with."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cxredge.bundle.manifest import Tolerance

# Of films, those whose logit compression moved by less than what a finding's `rounding` says.
MOVED_LESS = 0.95
# Below these, differences are rounding and not worth a refusal.
LEAST_MEAN, LEAST_LARGEST = 0.02, 0.1


def tolerance(graph: Path, images: NDArray[np.uint8], logits: NDArray[np.float32]) -> Tolerance:
    """Three times what two honest ways of computing the same graph differ by: fused integer kernels, and float ones.

    images: uint8 [N, 1, H, W]; logits: float32 [N, L], of ONNX Runtime with all its optimisations.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    plain = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    off = np.abs(np.concatenate([plain.run(["logits"], {"image": image[None]})[0] for image in images]) - logits)
    return Tolerance(mean=max(LEAST_MEAN, 3 * float(off.mean())), largest=max(LEAST_LARGEST, 3 * float(off.max())))

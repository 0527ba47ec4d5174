"""The speed-up that a recipe promises is measured; where it is not there, the step fails rather than ship a slow model unsaid."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.compress.fused import fused
from cxredge.compress.measure import Job, measure
from cxredge.compress.recipe import Engine
from cxredge.devices import Machine, this_machine
from cxredge.errors import CxredgeError
from cxredge.runtimes import runtime


class SlowerThanPromisedError(CxredgeError):
    """INT8 is not as fast as the recipe says."""


def check_promise(
    promised: Mapping[Engine, float], full: Path, int8: Path, planes: NDArray[np.uint8], machine: Machine | None = None
) -> dict[str, float]:
    """How many times as fast as the full-precision graph the quantized one is, per engine that is promised and installed.

    promised: engine -> times as fast, at the least. planes: uint8 [N, 1, H, W]; latency is taken on the first film, one thread,
    both graphs in turns. machine: this one unless told. A processor that cannot multiply bytes shows no such speed-up, however good
    the graph (benchmarks/results/against-torch-avx2.json): there most convolutions have to compute in 8 bits instead.
    Raises SlowerThanPromisedError, with what kept floats, or CxredgeError where an engine cannot run a graph.
    """
    found: dict[str, float] = {}
    by_time = (machine or this_machine()).multiplies_bytes
    for engine, least in promised.items():
        if runtime(engine).available() is not True:
            continue
        jobs = [Job(engine, graph) for graph in (full, int8)]
        slow, fast = measure(jobs, planes[:1])
        if error := slow.error or fast.error:
            raise CxredgeError(f"{engine} cannot run the network: {error}")
        found[engine] = float(np.median(slow.milliseconds) / np.median(fast.milliseconds))
        if by_time and found[engine] >= least:
            continue
        told = fused(engine, int8)
        if by_time or 2 * told.quantized < told.convolutions:
            what_to_do = (
                "Run on a machine that does nothing else, let fewer layers stay in floats, or promise less"
                if by_time
                else "This processor has no instructions for 8-bit products and is not judged by time: leave fewer in floats"
            )
            raise SlowerThanPromisedError(
                f"{engine}: INT8 is {found[engine]:.2f} times as fast as full precision here, the recipe promises {least:g}"
                f" (`speedup`); {told.quantized} of {told.convolutions} convolutions compute in 8 bits"
                f"{', in floats: ' + ', '.join(told.in_float) if told.in_float else ''}. {what_to_do}"
            )
    return found

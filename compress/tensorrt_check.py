"""Would TensorRT take this graph? Asked of its own parser and builder, which need no GPU, in a process of their own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxredge.errors import CxredgeError
from cxredge.runtimes.tensorrt_build import GraphCheck, check_graph


def check(graph: Path, capabilities: Sequence[str] = ()) -> GraphCheck | None:
    """What TensorRT's parser and builder say of a graph (see `check_graph`); None where no TensorRT is installed.

    Raises CxredgeError where the library dies over it.
    """
    child = subprocess.run(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", "cxredge.compress.tensorrt_check", str(graph), *capabilities],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise CxredgeError(f"TensorRT ended with exit {child.returncode} over it: {last}")
    found: dict[str, Any] | None = json.loads(child.stdout.splitlines()[-1])
    return None if found is None else GraphCheck(**found)


def take(graph: Path, capabilities: Sequence[str] = ()) -> tuple[bool, str]:
    """Whether TensorRT takes a graph, and in words what was tried or what it objects to.

    capabilities: of the target's GPU ("8.7"), or of those it may have; without any the graph is only parsed. Where no TensorRT
    is installed nothing was tried, which is no objection.
    """
    try:
        found = check(graph, capabilities)
    except CxredgeError as error:
        return False, str(error)
    if found is None:
        return True, 'not parsed: no TensorRT library here (pip install "cxredge[tensorrt-rtx]" brings one that parses)'
    if not found.legal:
        return (
            False,
            f"{found.library} takes {100 * found.covered:.0f} % of its nodes and refuses it: {found.refused[0]}",
        )
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(found.convolutions.items()))
    if not found.built:
        return True, f"every node parsed by {found.library} (convolutions: {types}); not built, not run"
    built = [f"{near} as the nearest to {wanted}" * (near != wanted) or near for wanted, near in found.built.items()]
    # Without the library's own functions and files around the reason.
    failed = "".join(
        f"; no engine for {wanted}: {why.split('] ')[-1].split('. In ')[0]}" for wanted, why in found.failed.items()
    )
    return True, (
        f"every node parsed and engines built by {found.library} for compute capability {', '.join(built)}"
        f" (convolutions: {types}); not run{failed}"
    )


if __name__ == "__main__":
    checked = check_graph(Path(sys.argv[1]), sys.argv[2:])
    print("\n" + json.dumps(None if checked is None else asdict(checked)))

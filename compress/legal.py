"""Would TensorRT take this graph? Asked of its own parser and builder, which need no GPU, in a process of their own."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxredge.runtimes.tensorrt_build import check_graph


def take(graph: Path, compute_capability: str | None) -> tuple[bool, str]:
    """Whether TensorRT takes a graph, and in words what was tried or what it objects to.

    compute_capability: of the target ("8.7"); None: the graph is only parsed. Where no TensorRT is installed nothing was
    tried, which is no objection.
    """
    child = subprocess.run(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "cxredge.compress.legal", str(graph), compute_capability or ""],
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        return False, f"TensorRT ended with exit {child.returncode} over it: {last}"
    found: dict[str, Any] | None = json.loads(child.stdout.splitlines()[-1])
    if found is None:
        return True, 'not parsed: no TensorRT library here (pip install "cxredge[tensorrt-rtx]" brings one that parses)'
    if not found["legal"]:
        return False, f"{found['library']} refuses it: {found['refused'][0]}"
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(found["convolutions"].items()))
    if found["built_for"] is None:
        return True, f"parsed by {found['library']} (convolutions: {types}); not built, not run"
    nearest = "" if found["exact"] else f", the nearest to {compute_capability} it can build for"
    return True, (
        f"parsed and built by {found['library']} for compute capability {found['built_for']}{nearest}"
        f" (convolutions: {types}); not run"
    )


if __name__ == "__main__":
    checked = check_graph(Path(sys.argv[1]), sys.argv[2] or None)
    print("\n" + json.dumps(None if checked is None else asdict(checked)))

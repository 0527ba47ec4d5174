"""The measured process of a peer: as `cxredge.benchmarks.child`, with the peer's own engine. Prints one JSON object.

    python -m cxredge.benchmarks.peers.child JOB.json

With `scores` in the job it does not measure but scores the films and writes the logits there, .npy, float32 [N, L].
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cxredge.benchmarks.child import Job, measured
from cxredge.benchmarks.peers.entries import PEERS, Ask, Peer
from cxredge.imaging import Preprocessing, read_film
from cxredge.train.engine import import_engine, open_engine


def ourselves(engine: str, scratch: Path) -> Peer:
    """cxredge on one of its engines, as a peer among peers."""

    def opened(path: Path, threads: int) -> Ask:
        session = open_engine(path, engine, threads, scratch)
        return lambda image: session.run(image).logits

    return Peer(engine, lambda start, _: start.full, lambda: import_engine(engine), opened)


def main(told: dict[str, Any]) -> dict[str, object]:
    """Measure or score one contestant: a peer by its name, or cxredge itself as `cxredge/ENGINE`."""
    scores, name = told.pop("scores", None), told.pop("peer")
    job = Job(**told)
    preprocessing = Preprocessing(size=job.size, clahe=job.clahe)
    with tempfile.TemporaryDirectory() as scratch:
        peer = PEERS[name] if name in PEERS else ourselves(name.removeprefix("cxredge/"), Path(scratch))
        read = peer.read or (lambda film: read_film(Path(film), preprocessing).image)
        if scores is None:
            return measured(job, library=peer.library, load=lambda: peer.open(Path(job.path), job.threads), read=read)
        peer.library()
        ask = peer.open(Path(job.path), job.threads)
        np.save(scores, np.concatenate([ask(read(film)[None]) for film in job.films]))
    return {}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))

"""Films read ahead by several workers, handed over as they are done; only a few are in memory at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Given = TypeVar("Given")
Got = TypeVar("Got")
# Films in hand per worker: the one being read, and a few so that none waits while the journal is written to the disk.
AHEAD = 4


def read_ahead(read: Callable[[Given], Got], films: Iterable[Given], workers: int) -> Iterator[tuple[Given, Got]]:
    """`read` of every film, each as soon as it is done: a film that takes as long as ten others holds up none of them.

    Threads: decoders, engine and hashes give up Python's lock while they work, and one engine serves all of them, where
    processes would each need its memory. Stopped early, it finishes the films in hand and begins no other.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="film") as pool:
        waiting = iter(films)
        in_hand: dict[Future[Got], Given] = {}
        try:
            while True:
                for film in islice(waiting, AHEAD * workers - len(in_hand)):
                    in_hand[pool.submit(read, film)] = film
                if not in_hand:
                    return
                done, _ = wait(in_hand, return_when=FIRST_COMPLETED)
                for future in done:
                    yield in_hand.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

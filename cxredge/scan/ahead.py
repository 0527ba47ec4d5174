"""Films read ahead by several workers, handed over in their order; only a few are in memory at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Got = TypeVar("Got")
# Films that may be read before the oldest of them is taken over, per worker.
AHEAD = 4


def read_ahead(read: Callable[[Given], Got], films: Iterable[Given], workers: int) -> Iterator[tuple[Given, Got]]:
    """`read` of every film, in the order of the films.

    Threads: decoders, engine and hashes give up Python's lock while they work, and one engine serves all of them, where
    processes would each need its memory. Stopped early, it finishes the films in hand and begins no other.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="film") as pool:
        ahead: deque[tuple[Given, Future[Got]]] = deque()
        waiting = iter(films)
        try:
            while True:
                while len(ahead) < AHEAD * workers and (film := next(waiting, None)) is not None:
                    ahead.append((film, pool.submit(read, film)))
                if not ahead:
                    return
                film, future = ahead.popleft()
                yield film, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

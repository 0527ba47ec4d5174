"""Reading ahead: one slow film holds up no other, and only a few are in hand at a time."""

from collections.abc import Iterator
from threading import Event, Lock

import pytest

from cxredge.scan.ahead import AHEAD, read_ahead


def test_a_slow_film_holds_up_none_of_the_others() -> None:
    others_are_done = Event()

    def read(film: int) -> int:
        if film == 0:
            assert others_are_done.wait(20), "the others wait for the slow film"
        return 10 * film

    handed_over = []
    for film, got in read_ahead(read, range(50), workers=2):
        assert got == 10 * film
        handed_over.append(film)
        if len(handed_over) == 49:
            others_are_done.set()
    assert handed_over[-1] == 0
    assert sorted(handed_over) == [*range(50)]


def test_films_are_begun_only_as_earlier_ones_are_taken_over() -> None:
    asked = 0

    def films() -> Iterator[int]:
        nonlocal asked
        for film in range(40):
            asked += 1
            yield film

    for taken, _ in enumerate(read_ahead(lambda film: film, films(), workers=3), start=1):
        assert asked <= taken + AHEAD * 3


def test_stopped_early_it_begins_no_other_film() -> None:
    lock, begun = Lock(), []

    def read(film: int) -> int:
        with lock:
            begun.append(film)
        return film

    reading = read_ahead(read, range(1000), workers=2)
    next(reading)
    reading.close()
    assert 1 <= len(begun) <= 2 * AHEAD


def test_what_a_film_raises_reaches_the_caller() -> None:
    def read(film: int) -> int:
        raise ValueError(film)

    with pytest.raises(ValueError, match="7"):
        list(read_ahead(read, [7], workers=2))

"""Warnings of the decoders stay off the screen however many threads decode."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from cxredge.imaging.quiet import Quiet


def test_one_thread_leaving_does_not_uncover_another(recwarn: pytest.WarningsRecorder) -> None:
    quiet = Quiet(__name__)
    both_inside, first_left = Barrier(2), Barrier(2)

    def leave_first() -> None:
        with quiet:
            both_inside.wait(5)
        first_left.wait(5)

    def stay() -> None:
        with quiet:
            both_inside.wait(5)
            first_left.wait(5)
            warnings.warn("an oddity", stacklevel=1)

    with ThreadPoolExecutor(2) as pool:
        for future in (pool.submit(leave_first), pool.submit(stay)):
            future.result()
    assert not recwarn.list
    warnings.warn("heard again", stacklevel=1)
    assert len(recwarn.list) == 1


def test_warnings_of_others_are_heard(recwarn: pytest.WarningsRecorder) -> None:
    with Quiet("pydicom"):
        warnings.warn("something else", stacklevel=1)
    assert len(recwarn.list) == 1

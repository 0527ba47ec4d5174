"""`cxredge scan --watch`: read films as they arrive in a folder."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Event

from cxredge.errors import DataError
from cxredge.scan.discover import Found
from cxredge.scan.reading import Reading
from cxredge.scan.run import Run, Tick
from cxredge.scan.summarise import Clock
from cxredge.scan.summary import Summary

# A file that has not changed for so long has arrived; a slower copy is read again once it has.
SETTLED_SECONDS = 2.0
# Network shares tell nobody of new files, and events can be lost anywhere, so the folders are looked through too.
POLL_SECONDS, LOOK_AGAIN_SECONDS = 5.0, 30.0
TRY_AGAIN_SECONDS = 25.0
NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ncpfs",
    "afs",
    "9p",
    "davfs",
    "fuse.sshfs",
    "fuse.davfs2",
    "fuse.rclone",
}

Batch = Callable[[Summary, list[Reading]], None]


class Arrivals:
    """Which of the files there are whole: those that look the same as some seconds ago.

    Two looks decide, not the file's own time: clocks of cameras and servers are wrong.
    """

    def __init__(self, settled: float = SETTLED_SECONDS) -> None:
        self.settled = settled
        self._seen: dict[Path, tuple[object, float]] = {}

    def whole(self, films: Sequence[Found], now: float) -> list[Found]:
        """Of these files, those that have not changed since a look at least `settled` seconds ago. now: monotonic seconds."""
        found = []
        # A film that comes back under its old name is another one until it has been looked at.
        there = {film.path for film in films}
        self._seen = {path: seen for path, seen in self._seen.items() if path in there}
        for film in films:
            looks = _look(film.path)
            before, since = self._seen.get(film.path, (None, now))
            if before != looks:
                since = now
            self._seen[film.path] = (looks, since)
            if now - since >= self.settled:
                found.append(film)
        return found


def watch(
    run: Run,
    roots: Sequence[Path],
    *,
    batch: Batch,
    say: Callable[[str], None] = lambda _line: None,
    stop: Event | None = None,
    tick: Tick | None = None,
) -> None:
    """Read what lies below `roots`, then what arrives there, until `stop` is set or Ctrl-C is pressed.

    What was read by then is in the results. batch: called when results have been written. A film that was read stays in the
    results of this watch when its file is moved away, also when the watch is cut off and begun again. A folder that cannot be
    listed for a while, such as a share that is offline, is tried again; `say` is told. So is a film that cannot be read.
    Raises DataError for a folder that is not there to begin with, OutputError when results cannot be written.
    """
    stop = stop or Event()
    arrivals = Arrivals()
    kept = {film.path: film for film in map(_absolute, run.watched())}
    # Of other folders than these: names are told apart within one call's folders only.
    kept = {path: film if _is_below(path, roots) else replace(film, name=str(path)) for path, film in kept.items()}
    shown: dict[Path, object] = {}
    # Of films that could not be read, such as on a share that went away for a moment: when to try again.
    again: dict[Path, float] = {}
    run.films()
    stale, wake, said = False, _wakes(roots, stop), ""
    try:
        while not stop.is_set():
            films: list[Found] = []
            # What is not there now may be there again in a moment.
            try:
                films, said = [*map(_absolute, run.films())], ""
            except DataError as error:
                if str(error) != said:
                    say(f"{error}; trying again")
                said = str(error)
            whole = arrivals.whole(films, time.monotonic())
            there = {film.path for film in films}
            shown = {path: looks for path, looks in shown.items() if path in there}
            due = {path for path, when in again.items() if time.monotonic() >= when}
            new = {film.path: film for film in whole if film.path in due or shown.get(film.path) != _look(film.path)}
            if new:
                looks = {path: _look(path) for path in new}
                started = datetime.now().astimezone()
                unread = [film for film in new.values() if not run.known(film)]
                # Machines use a name again once the folder was emptied: what lay there before is another patient's film.
                aside = {film.path: run.set_aside(film, started) for film in unread if film.path in kept}
                kept |= new | {old.path: old for old in aside.values() if old}
                # Before any of them is read: cut off from here on, what was set aside would be in nobody's list.
                run.keep_watched(kept.values())
                stale = True
                clock = run.read(unread, of=len(kept), tick=tick)
                for path, old in aside.items():
                    if old and run.shows_the_same(old, new[path]):
                        del kept[old.path]
                # The beginning of a film that was still being copied, under the name that it had until then.
                kept = {path: film for path, film in kept.items() if path in there or run.read_whole(film)}
                run.keep_watched(kept.values())
                failed = {path for path, film in new.items() if run.may_be_read_later(film)}
                # Tried again in vain, they stand in the results already.
                if not (failed == new.keys() <= due):
                    batch(*run.write([*kept.values()], started=started, clock=clock))
                waiting = {path: when for path, when in again.items() if path in there and path not in new}
                again = waiting | dict.fromkeys(failed, time.monotonic() + TRY_AGAIN_SECONDS)
                shown |= looks
                stale = False
            wake(arrivals.settled / 2 if len(whole) < len(films) else LOOK_AGAIN_SECONDS)
    except KeyboardInterrupt:
        read = [film for film in kept.values() if run.has(film)]
        if stale and read:
            batch(*run.write(read, started=datetime.now().astimezone(), clock=Clock()))
    run.keep_watched([])


def _absolute(film: Found) -> Found:
    """Under the one path that it has wherever a watch is begun anew, from another folder or by another path."""
    # Not resolved: a link is a film of its own.
    return replace(film, path=Path.cwd() / film.path)


def _is_below(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(Path.cwd() / root) for root in roots)


def _look(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does or another one takes its place: size, and the times of its content and of its entry."""
    try:
        said = path.stat()
    except OSError:
        return None
    return said.st_size, said.st_mtime_ns, said.st_ctime_ns


def _wakes(roots: Sequence[Path], stop: Event) -> Callable[[float], None]:
    """A function that returns when something below the roots changed, the seconds given are over, or `stop` is set."""
    if any(on_network(root) for root in roots):
        return lambda seconds: _sleep(stop, min(seconds, POLL_SECONDS))
    from watchfiles import watch as changes

    def events() -> Iterator[object]:
        return changes(
            *(root if root.is_dir() else root.parent for root in roots), stop_event=stop, debounce=200, step=100,
            rust_timeout=250, yield_on_timeout=True, raise_interrupt=True, ignore_permission_denied=True, watch_filter=None,
        )  # fmt: skip

    try:
        told = events()
        next(told)
    except (OSError, RuntimeError):
        # Out of watches, or a folder that is not there yet.
        return lambda seconds: _sleep(stop, min(seconds, POLL_SECONDS))

    def wait(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop.is_set():
            if next(told, None):
                return

    return wait


def _sleep(stop: Event, seconds: float) -> None:
    stop.wait(seconds)


def on_network(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether a folder lies on a network share, which does not tell of new files. False where the system does not say."""
    if not mounts.is_file():
        return False
    real = str(path.resolve())
    kind, longest = "", -1
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _device, where, of_kind, *_ = [*line.split(" "), "", "", ""]
        where = where.replace("\\040", " ")
        if (real == where or real.startswith(where.rstrip("/") + "/")) and len(where) > longest:
            kind, longest = of_kind, len(where)
    return kind in NETWORK

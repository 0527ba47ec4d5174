"""The readings of a run in the order in which somebody should look at them, fetched one by one: memory stays flat."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, overload

from cxredge.bundle.manifest import Manifest
from cxredge.scan.decide import margin
from cxredge.scan.discover import Found
from cxredge.scan.journal import Journal
from cxredge.scan.reading import ORDER, Priority, Reading, Status
from cxredge.scan.scanner import Pictures

DUPLICATE = "duplicate"
# Films without a score that are named when a run is over.
NAMED = 8


@dataclass
class Counts:
    """films: in all. Of them how many have each status, priority and reason; without_age: scored though their file says no age."""

    films: int = 0
    statuses: "Counter[Status]" = field(default_factory=Counter)
    priorities: "Counter[Priority]" = field(default_factory=Counter)
    reasons: "Counter[str]" = field(default_factory=Counter)
    without_age: int = 0


class _Place(NamedTuple):
    """What a film is sorted by, and what is counted of it. number: of the film, so that no two are equal up to there."""

    order: int
    pressing: float
    name: str
    number: int
    status: Status
    priority: Priority
    reason: str
    says_age: bool


class Worklist(Sequence[Reading]):
    """Most pressing first; within a priority the one whose top finding lies furthest above its threshold.

    A film whose very picture the run holds under another name is scored like it and says so: none is left out, for one of
    the two may bear the wrong patient's name. films: all of them read; in the order they were found, which decides whose copy
    is whose. Only as long as the journal is open.
    counts: of the whole run.
    """

    def __init__(self, journal: Journal, films: Sequence[Found], manifest: Manifest) -> None:
        self._journal, self._films = journal, films
        self._by_name = {film.name: film for film in films}
        self._findings = {finding.name: finding for finding in manifest.findings}
        self._twins: dict[int, int] = {}
        firsts: dict[str, int] = {}
        # The first copy that says whose it is, for one that does not would hide that others contradict each other; and the first of
        # those that say another patient's.
        named: dict[str, tuple[int, str]] = {}
        denied: dict[str, int] = {}
        places: list[_Place] = []
        for number, film in enumerate(films):
            reading = self._stored(film)
            if reading.digest and reading.status is Status.OK:
                first = firsts.setdefault(reading.digest, number)
                if first != number:
                    self._twins[number] = first
                if reading.patient:
                    _, patient = named.setdefault(reading.digest, (number, reading.patient))
                    if _mixed_up(patient, reading.patient):
                        denied.setdefault(reading.digest, number)
            places.append(self._place(number, reading))
        if denied:
            self._tell_all(named, denied, places)
        places.sort()
        self._order = [place.number for place in places]
        self.counts = _counted(places)
        unread: dict[Status, list[int]] = {Status.REFUSED: [], Status.FAILED: []}
        for at, place in enumerate(places):
            if place.status is not Status.OK and len(unread[place.status]) < NAMED:
                unread[place.status].append(at)
        self._unread = [*unread[Status.REFUSED], *unread[Status.FAILED]]

    def _tell_all(self, named: dict[str, tuple[int, str]], denied: dict[str, int], places: list[_Place]) -> None:
        """Of pictures that bear two patients' names every copy that bears one says so: which of them is right is not known."""
        for number in sorted({*self._twins, *self._twins.values()}):
            reading = self._stored(self._films[number])
            if reading.digest not in denied or not reading.patient:
                continue
            first, patient = named[reading.digest]
            self._twins[number] = first if _mixed_up(patient, reading.patient) else denied[reading.digest]
            places[number] = self._place(number)

    def _place(self, number: int, reading: Reading | None = None) -> _Place:
        film = self._films[number]
        reading = self._marked(number, reading or self._stored(film))
        top = reading.top_finding
        pressing = margin(reading.probabilities[top], self._findings[top]) if top else 0.0
        return _Place(
            ORDER[reading.priority], -pressing, film.name, number,
            reading.status, reading.priority, reading.reason, reading.says_age,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, place: int) -> Reading: ...
    @overload
    def __getitem__(self, place: slice) -> list[Reading]: ...
    def __getitem__(self, place: int | slice) -> Reading | list[Reading]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        number = self._order[place]
        return self._marked(number, self._stored(self._films[number]))

    def without_score(self) -> list[Reading]:
        """The first few refused films, then the first few failed ones, in the order of the worklist."""
        return [self[place] for place in self._unread]

    def pictures(self, name: str) -> Pictures:
        """Thumbnail and heat maps of a film, by its name in the run."""
        return self._journal.pictures(self._by_name[name])

    def found(self, name: str) -> Found:
        """Where a film lies, by its name in the run."""
        return self._by_name[name]

    def _stored(self, film: Found) -> Reading:
        reading = self._journal.reading(film)
        if reading is None:
            raise LookupError(f"{film.name} was not read in this run")
        return reading

    def _marked(self, number: int, reading: Reading) -> Reading:
        if number not in self._twins:
            return reading
        other = self._stored(self._films[self._twins[number]])
        note, priority = f"the same picture as {other.file}", reading.priority
        if _mixed_up(reading.patient, other.patient):
            note += ", under another patient: one of the two is wrong"
            priority = Priority.REVIEW if priority is Priority.ROUTINE else priority
        return replace(reading, reason=DUPLICATE, note="; ".join(filter(None, (note, reading.note))), priority=priority)


def _counted(places: Sequence[_Place]) -> Counts:
    counts = Counts(len(places))
    for place in places:
        counts.statuses[place.status] += 1
        counts.priorities[place.priority] += 1
        if place.reason:
            counts.reasons[place.reason] += 1
        counts.without_age += place.status is Status.OK and not place.says_age
    return counts


def _mixed_up(one: str, other: str) -> bool:
    return bool(one and other and one != other)

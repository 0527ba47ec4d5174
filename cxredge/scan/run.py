"""A whole scan: find the films, read them, keep the journal, write the results."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict, Unpack

from cxredge import __version__
from cxredge.bundle import open_bundle
from cxredge.bundle.bundle import DEFAULT
from cxredge.devices import peak_rss_mb, this_machine
from cxredge.errors import DataError, Refusal
from cxredge.folders import data_folder
from cxredge.report.files import drop_unfinished
from cxredge.report.tables import csv_table, json_table, write_summary
from cxredge.scan.ahead import read_ahead
from cxredge.scan.discover import Found, discover, key
from cxredge.scan.in_hand import InHand, survives
from cxredge.scan.journal import Journal, Looks, fingerprint
from cxredge.scan.labels import judge, match, read_labels
from cxredge.scan.memory import give_back_freed_memory
from cxredge.scan.reading import Reading, Status
from cxredge.scan.scanner import Pictures, Scanner
from cxredge.scan.summarise import Clock, summarise
from cxredge.scan.summary import Labelled, Summary
from cxredge.scan.worklist import Worklist

if TYPE_CHECKING:
    from cxredge.report.dicom_out import DicomWriter

Tick = Callable[[int, int], None]


class Options(TypedDict, total=False):
    """What `Run` takes besides films and output folder; see there."""

    model: str
    trust: Path | None
    labels: Path | None
    restart: bool
    workers: int | None
    explain: bool
    dicom_out: bool
    with_patient_ids: bool
    reduced_decoding: bool
    runtime: str | None
    threads: int | None
    say: Callable[[str], None]


def scan(
    roots: Sequence[Path], output: Path, *, tick: Tick | None = None, **options: Unpack[Options]
) -> tuple[Summary, list[Reading]]:
    """Read every film below `roots` and write the results into `output`; options as `Run` takes them.

    tick: called with films done and films in all. Returns the summary and the first few films without a score.
    Raises CxredgeError when the scan cannot run.
    """
    with Run(roots, output, **options) as run:
        films = run.films()
        if not films:
            raise DataError(f"no files in {', '.join(str(root) for root in roots)}")
        return run.update(films, tick=tick)


# Refusals of a file that is all there, whatever is in it.
_OF_WHOLE_FILES = {
    refusal.code for refusal in Refusal if refusal not in {Refusal.EMPTY, Refusal.ENDS_EARLY, Refusal.DAMAGED}
}
# Failures that are the disk's or the machine's, not the film's.
_MAY_PASS = {"cannot_be_opened", "out_of_memory"}


class Run:
    """An output folder held open for a scan; what is written into it, `discover.WRITTEN` lists.

    roots: films, or folders of them. model: a bundle's folder, archive or shipped name. trust: a public key that must have
    signed it. labels: CSV that this run is to be judged by. restart: forget what an earlier run read. workers: films read at
    once, one a core unless told. explain: heat maps of flagged findings, in the report and in `heatmaps/`. dicom_out:
    Structured Reports and Secondary Captures of DICOM films in `dicom/`. with_patient_ids: results carry names and numbers of
    patients. reduced_decoding, runtime, threads, say: as `Scanner` takes them.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        output: Path,
        *,
        model: str = DEFAULT,
        trust: Path | None = None,
        labels: Path | None = None,
        restart: bool = False,
        workers: int | None = None,
        explain: bool = True,
        dicom_out: bool = False,
        with_patient_ids: bool = False,
        reduced_decoding: bool = False,
        runtime: str | None = None,
        threads: int | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        give_back_freed_memory()
        if dicom_out:
            from cxredge.report.dicom_out import require_highdicom

            require_highdicom()
        self._roots, self._output, self._labels = roots, output, labels
        self._explain = explain
        self._read_here: set[Path] = set()
        self._deadly: set[Path] = set()
        self._dicom_out: DicomWriter | None = None
        self._workers = workers or this_machine().cores
        if not dicom_out and (left := sum(1 for _ in (output / "dicom").glob("s?-2.25.*.dcm"))):
            say(
                f"{output / 'dicom'} holds {left} files of an earlier run with --dicom-out, with patients' names: this run leaves"
                " them as they are; delete that folder, or give --dicom-out again"
            )
        bundle = open_bundle(model, trust=trust)
        self._manifest = bundle.manifest
        if labels:
            # Wrong labels are said before an hour of reading, not after it.
            match(read_labels(labels, bundle.manifest.names), [film.name for film in self.films()])
        self._journal = Journal(output / "journal.sqlite", restart=restart)
        if not self._journal.salt_is_own:
            say(
                f"the salt of the patients' pseudonyms cannot be kept in {data_folder()}, so it lies in"
                f" {output / 'journal.sqlite'}: keep that file to yourself when you pass on results; pseudonyms differ from those"
                " of other folders"
            )
        # The folder is ours alone now, so what is unfinished in it was left by a run that was killed.
        drop_unfinished(output)
        try:
            self._scanner = Scanner(
                bundle,
                runtime=runtime,
                threads=threads,
                salt=self._journal.salt,
                with_patient_ids=with_patient_ids,
                reduced_decoding=reduced_decoding,
                say=say,
            )
            self._read_with = f"{bundle.sha256} {self._scanner.engine} cxredge {__version__}"
            salted = hashlib.sha256(self._journal.salt).hexdigest()[:12]
            if reduced_decoding:
                self._read_with += ", reduced decoding"
            self._journal.read_with = f"{self._read_with} {salted}{' with patients' if with_patient_ids else ''}"
            if not with_patient_ids:
                self._journal.forget_patients()
            self._in_hand = InHand(output / "in-hand")
            if dicom_out:
                from cxredge.report.dicom_out import DicomWriter as Writer

                self._dicom_out = Writer(output, bundle.manifest, read_with=self._read_with)
        except BaseException as error:
            self._journal.__exit__(type(error), error, None)
            raise

    def films(self) -> list[Found]:
        """Every file below the roots, without what this run writes. Raises DataError for a missing root."""
        return discover(self._roots, output=self._output, leave_out=[self._labels] if self._labels else [])

    def known(self, film: Found) -> bool:
        """Whether a film, as it lies there now, has been read."""
        return self._journal.known(film, heat_maps_too=self._explain)

    def has(self, film: Found) -> bool:
        """Whether there is a reading of a film, be it of what lay there before."""
        return self._journal.reading(film) is not None

    def update(
        self, films: Sequence[Found], *, unread: Sequence[Found] | None = None, tick: Tick | None = None
    ) -> tuple[Summary, list[Reading]]:
        """Read what of these films has not been read, and write the results of all of them.

        unread: which of them to read, where the caller knows. Returns the summary and the first few films without a score.
        """
        started = datetime.now().astimezone()
        if unread is None:
            unread = [film for film in films if not self.known(film)]
        return self.write(films, started=started, clock=self.read(unread, of=len(films), tick=tick))

    def read(self, unread: Sequence[Found], *, of: int, tick: Tick | None = None) -> Clock:
        """Read these films into the journal. of: how many the run has in all, for `tick`."""
        clock, begin = Clock(), time.perf_counter()
        unread = self._without_deadly(unread)
        for film, (looks, reading, pictures, whole_ms) in read_ahead(self._read, unread, self._workers):
            self._journal.add(film, reading, pictures, looks)
            self._read_here.add(film.path)
            clock.add(reading, whole_ms)
            if tick is not None:
                tick(of - len(unread) + clock.films, of)
        clock.seconds = time.perf_counter() - begin
        self._journal.commit()
        return clock

    def _without_deadly(self, unread: Sequence[Found]) -> list[Found]:
        """These films but for those that a process does not survive, which are entered as failed."""
        tried = [film for film in unread if key(film.path) in self._in_hand.left]
        self._in_hand.left -= {key(film.path) for film in tried}
        deadly = [film for film in tried if not survives(film.path, reduced=self._scanner.reduced_decoding)]
        for film in deadly:
            self._deadly.add(film.path)
            self._read_here.add(film.path)
            self._journal.add(film, self._scanner.deadly(film.name), Pictures(), fingerprint(film.path))
        return [film for film in unread if film not in deadly]

    def set_aside(self, film: Found, when: datetime) -> Found | None:
        """Give the reading of what lay under a film's name a name of its own, before the film itself is read; None where that was
        no whole film, such as the beginning of this one."""
        if not self.read_whole(film):
            return None
        aside = self._journal.set_aside(film, f"{film.name} (before {when:%Y-%m-%d %H:%M:%S})")
        self._read_here.add(aside.path)
        return aside

    def read_whole(self, film: Found) -> bool:
        """Whether there is a reading of a film, and of all of it."""
        reading = self._journal.reading(film)
        return reading is not None and (reading.status is Status.OK or reading.reason in _OF_WHOLE_FILES)

    def may_be_read_later(self, film: Found) -> bool:
        """Whether a film could not be read for a reason that may pass, such as a share that went away."""
        reading = self._journal.reading(film)
        return reading is not None and reading.status is Status.FAILED and reading.reason in _MAY_PASS

    def shows_the_same(self, one: Found, other: Found) -> bool:
        """Whether two files were read and are the same picture, of the same patient; or, where no picture was seen, the same."""
        first, second = self._journal.reading(one), self._journal.reading(other)
        if first is None or second is None:
            return False
        if first.digest or second.digest:
            return (first.digest, first.patient) == (second.digest, second.patient)
        content = self._journal.content(one)
        return content is not None and content == self._journal.content(other)

    def watched(self) -> list[Found]:
        """What a watch showed that was cut off, such as by a power cut."""
        return self._journal.watched()

    def keep_watched(self, films: Iterable[Found]) -> None:
        """What a watch shows by now; nothing once it has come to its end."""
        self._journal.keep_watched(films)

    def write(self, films: Sequence[Found], *, started: datetime, clock: Clock) -> tuple[Summary, list[Reading]]:
        """Write the results of films that have all been read; each file takes the place of the old one only when whole."""
        worklist, names = Worklist(self._journal, films, self._manifest), self._manifest.names
        earlier = sum(film.path not in self._read_here for film in films)
        summary = summarise(self._scanner, self._roots, started, worklist.counts, clock, resumed=earlier)
        if self._labels:
            labels = read_labels(self._labels, names)
            found = match(labels, [film.name for film in films])
            judged, scored = judge(worklist, found, self._manifest)
            summary = replace(summary, labels=judged, labelled=Labelled.of(len(labels), len(found), scored))
        with (
            csv_table(self._output / "results.csv", names, with_patients=self._scanner.with_patient_ids) as add_row,
            json_table(self._output / "results.json", summary) as add_line,
        ):
            # One look at each reading for both tables: it comes from the journal.
            for reading in worklist:
                add_row(reading)
                add_line(reading)
        # Jinja takes 40 ms to import; nobody waits for it before the first film.
        from cxredge.report.html import write_report

        def pictures(name: str) -> Pictures:
            stored = worklist.pictures(name)
            return stored if self._explain else replace(stored, heat_maps=None)

        if self._dicom_out:
            films_read = ((worklist.found(reading.file).path, reading) for reading in worklist)

            def as_read(name: str) -> bool:
                return self._journal.known(worklist.found(name))

            summary = replace(summary, dicom_out=self._dicom_out.write(films_read, pictures, as_read))
        write_report(self._output, summary=summary, manifest=self._manifest, readings=worklist, pictures=pictures)
        # Last, so that the figure covers the whole run.
        summary = replace(summary, peak_rss_mb=peak_rss_mb())
        write_summary(self._output / "summary.json", summary)
        return summary, worklist.without_score()

    def _read(self, film: Found) -> tuple[Looks, Reading, Pictures, float]:
        # Before it is read: what changes while it is read is another film, to be read next time.
        begin, looks = time.perf_counter(), fingerprint(film.path)
        self._in_hand.begin(film.path)
        try:
            reading, pictures = self._scanner.read_with_pictures(film.path, name=film.name, heat_maps_too=self._explain)
        finally:
            self._in_hand.done(film.path)
        return looks, reading, pictures, (time.perf_counter() - begin) * 1000

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scanner.close()
        self._in_hand.close(self._deadly)
        self._journal.__exit__(kind, error, traceback)

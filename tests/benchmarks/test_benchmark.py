"""`cxredge benchmark` as a whole: report, limits, comparison."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from house import FILMS, ROOT, Cli
from rich.console import Console

from cxredge.benchmarks.accuracy import judge_all
from cxredge.benchmarks.command import show_changes
from cxredge.benchmarks.compare import compare
from cxredge.benchmarks.limits import LimitsFile, read_limits, violations
from cxredge.benchmarks.measure import Profile, Samples, throttled
from cxredge.benchmarks.plots import pareto
from cxredge.benchmarks.report import accuracy_table, html, markdown, speed_table, write
from cxredge.benchmarks.run import Report, _unread, benchmark
from cxredge.bundle import open_bundle
from cxredge.bundle.bundle import write_bundle
from cxredge.bundle.manifest import EngineGraph
from cxredge.errors import DataError, RecipeError, TooFewFilmsError
from cxredge.metrics import Interval
from cxredge.train.evaluate import evaluate
from cxredge.train.subject import open_subject


@pytest.fixture(scope="module")
def measured(table: Path, parent: Path) -> tuple[Report, Samples]:
    """The shipped model against the stand-in for its parent, for the blink of an eye."""
    return benchmark(
        ["chestxray14"], [table], profile=Profile("blink", 2, 0.4, 8, 0.2), runtimes=["onnxruntime"],
        threads=(1, 4096), reference=str(parent), like="chestxray14", samples=100, say=lambda _: None,
    )  # fmt: skip


def test_the_reference_is_measured_too_and_drift_is_against_it(measured: tuple[Report, Samples]) -> None:
    report, _ = measured
    assert report.reference == "parent"
    assert [one.model for one in report.measured] == ["chestxray14", "parent"]
    small, full = report.accuracy
    assert full.drift is None
    assert small.drift is not None
    assert {one.finding for one in small.findings} == {"Effusion", "Hernia"}
    for one in small.findings:
        base = next(other for other in full.findings if other.finding == one.finding)
        assert one.drift is not None
        assert one.drift.value == pytest.approx(one.auroc.value - base.auroc.value, abs=1e-12)
    assert small.drift.value == pytest.approx(small.mean_auroc.value - full.mean_auroc.value, abs=1e-12)
    assert any("4096 threads" in line for line in report.left_out)


def test_the_areas_are_those_of_evaluate(measured: tuple[Report, Samples], table: Path) -> None:
    found, _ = evaluate(open_subject("chestxray14"), [table], samples=100, examples=0)
    small = measured[0].accuracy[0]
    assert small.mean_auroc == found.mean_auroc
    assert [one.auroc for one in small.findings] == [one.auroc for one in found.findings]


def test_a_finding_of_several_data_sets_is_ranked_within_each(table: Path, parent: Path, tmp_path: Path) -> None:
    with table.open(newline="") as lines:
        header, *rows = list(csv.reader(lines))
    data = [tmp_path / "north.csv", tmp_path / "south.csv"]
    for path, own in zip(data, (rows[:12], rows[12:]), strict=True):
        with path.open("w", newline="") as out:
            csv.writer(out).writerows([header, *([str(table.parent / row[0]), *row[1:]] for row in own)])
    models = [open_subject("chestxray14"), open_subject(str(parent), like="chestxray14")]
    small, full = judge_all(models, [["onnxruntime"]] * 2, data, reference=1, samples=20, say=lambda _: None)
    for model, found in zip(models, (small, full), strict=True):
        same, _ = evaluate(model, data, samples=20, examples=0)
        assert [one.auroc for one in found.findings] == [one.auroc for one in same.findings]
        assert found.mean_auroc == same.mean_auroc
    pooled = judge_all(models[:1], [["onnxruntime"]], [table], reference=None, samples=20, say=lambda _: None)[0]
    assert pooled.mean_auroc != small.mean_auroc
    for one, base in zip(small.findings, full.findings, strict=True):
        assert one.drift is not None
        assert one.drift.value == pytest.approx(one.auroc.value - base.auroc.value, abs=1e-12)
    assert small.drift is not None
    assert small.drift.value == pytest.approx(small.mean_auroc.value - full.mean_auroc.value, abs=1e-12)


def test_a_model_against_itself_drifts_by_nothing_and_flips_nothing(table: Path) -> None:
    one = open_subject("chestxray14")
    _, again = judge_all(
        [one, replace(one, name="again")], [["onnxruntime"]] * 2, [table], reference=0, samples=20, say=lambda _: None
    )
    assert again.drift == Interval(0, 0, 0)
    assert again.flips == 0


def test_the_report_is_one_page_with_its_numbers_beside_it(measured: tuple[Report, Samples], tmp_path: Path) -> None:
    report, raw = measured
    write(report, raw, tmp_path)
    told = json.loads((tmp_path / "benchmark.json").read_text())
    assert told["measured"][0]["engine_only"]["p50"] == report.measured[0].engine_only.p50
    page = (tmp_path / "benchmark.html").read_text()
    assert page == html(report)
    assert page.count("<svg") == 5
    assert "default-src 'none'" in page
    lines = markdown(report).splitlines()
    assert sum(line.startswith("| chestxray14") for line in lines) == 2
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["chestxray14/onnxruntime/1/1/0/engine_only"].size >= 4


def test_limits_that_are_broken_are_named_and_those_that_are_kept_are_not(measured: tuple[Report, Samples]) -> None:
    report, _ = measured

    def broken(text: dict[str, object], *, added: bool = True) -> list[str]:
        return violations(
            LimitsFile.model_validate(text), report.measured, report.accuracy, reference="parent", added=added
        )

    assert (
        broken({"limits": {"size_mb": 100, "peak_rss_mb": 2000, "p90_ms": 60_000, "drift": -1, "worst_drift": -1}})
        == []
    )
    assert [line.split(": ")[1].split()[0] for line in broken({"limits": {"size_mb": 0.1, "p90_ms": 0.001}})] == [
        "file",
        "p90",
    ]
    assert "allowed +1.0000" in broken({"limits": {"drift": 1}})[0]
    assert broken({"limits": {"size_mb": 0.1}, "models": {"chestxray14": {"size_mb": 100}}}) == []
    assert broken({"models": {"other": {"size_mb": 1}}}) == ["other: has limits but was not measured"]
    without = [replace(one, drift=None, findings=[]) for one in report.accuracy]
    said = violations(LimitsFile.model_validate({"limits": {"drift": -1}}), [], without, reference=None, added=False)
    assert all("was not measured" in line for line in said)
    assert said
    # The reference has limits where somebody named it, and no drift from itself.
    assert report.reference_added
    named = broken({"limits": {"size_mb": 0.1, "p90_ms": 0.001, "drift": -1, "worst_drift": -1}}, added=False)
    assert sorted(line.split()[0] for line in named) == ["chestxray14", "chestxray14", "parent", "parent"]


def test_a_model_alone_that_is_its_own_reference_keeps_its_limits(parent: Path, table: Path) -> None:
    report, _ = benchmark(
        [str(parent)], [table], profile=Profile("blink", 1, 0.2, 4, 0.2), runtimes=["onnxruntime"], like="chestxray14",
        reference=str(parent), samples=20, say=lambda _: None,
    )  # fmt: skip
    assert (report.reference, report.reference_added) == ("parent", False)
    limits = LimitsFile.model_validate({"limits": {"size_mb": 0.001, "drift": -1}})
    (line,) = violations(
        limits, report.measured, report.accuracy, reference=report.reference, added=report.reference_added
    )
    assert line.startswith("parent on onnxruntime")


def test_a_finding_with_films_of_one_kind_only_is_named_and_may_be_the_worst(
    table: Path, measured: tuple[Report, Samples], tmp_path: Path
) -> None:
    with table.open(newline="") as lines:
        header, *rows = list(csv.reader(lines))
    column = header.index("Effusion")
    one_kind = [[str(table.parent / row[0]), *row[1:column], "0", *row[column + 1 :]] for row in rows]
    with (tmp_path / "films.csv").open("w", newline="") as out:
        csv.writer(out).writerows([header, *one_kind])
    model = open_subject("chestxray14")
    (found,) = judge_all(
        [model], [["onnxruntime"]], [tmp_path / "films.csv"], reference=None, samples=20, say=lambda _: None
    )
    assert ([one.finding for one in found.findings], found.unjudged) == (["Hernia"], ["Effusion"])
    report = replace(measured[0], accuracy=[replace(measured[0].accuracy[0], unjudged=["Effusion"])])
    assert "chestxray14: Effusion (films of one kind only)" in html(report)
    assert "- not judged: chestxray14: Effusion (films of one kind only)" in markdown(report)

    def broken(limits: dict[str, float]) -> list[str]:
        told = LimitsFile.model_validate({"limits": limits})
        return violations(told, [], report.accuracy, reference="parent", added=True)

    assert broken({"drift": -1}) == []
    (line,) = broken({"worst_drift": -1})
    assert "Effusion could not be judged" in line


def test_a_finding_that_the_reference_does_not_look_for_may_be_the_worst(measured: tuple[Report, Samples]) -> None:
    (judged, *_), limits = measured[0].accuracy, LimitsFile.model_validate({"limits": {"drift": -1, "worst_drift": -1}})
    first, *others = judged.findings
    partly = replace(judged, findings=[replace(first, drift=None, bootstrap=None, flips=None), *others])
    assert violations(limits, [], [judged], reference="parent", added=True) == []
    (line,) = violations(limits, [], [partly], reference="parent", added=True)
    assert f"{first.finding} could not be judged, and may be the worst; parent does not look for it" in line


def test_throttling_is_counted_within_the_rounds_of_a_setting() -> None:
    """Between them others run: a counter that went up there is not this setting's."""

    def rounds(*counters: tuple[int | None, ...]) -> list[dict[str, Any]]:
        return [{"sensed": [{"throttled": count} for count in of_round]} for of_round in counters]

    assert throttled(rounds((0, 0), (50, 50), (100, 100))) == 0
    assert throttled(rounds((0, 3), (50, 50, 54))) == 7
    assert throttled(rounds((None, None), (None,))) is None


def test_a_file_of_limits_with_mistakes_lists_them(tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text("[limits]\np90 = 3\nsize_mb = -1\n")
    with pytest.raises(RecipeError, match=r"limits.size_mb.*limits.p90"):
        read_limits(tmp_path / "limits.toml")


def test_comparing_tells_a_change_from_noise_and_from_a_slower_machine(
    measured: tuple[Report, Samples], tmp_path: Path
) -> None:
    report, raw = measured
    write(report, raw, tmp_path / "a")
    told = json.loads((tmp_path / "a" / "benchmark.json").read_text())

    def changed(name: str, latency: float, yardstick: float) -> dict[str, str]:
        other = json.loads(json.dumps(told))
        for one in other["measured"]:
            one["engine_only"]["per_round"] = [latency * value for value in (10, 10.1)]
            one["yardstick_ms"] = [yardstick * value for value in (4, 4)]
        (tmp_path / name).write_text(json.dumps(other))
        found = compare(tmp_path / "base.json", tmp_path / name)
        return {one.setting: one.verdict for one in found.changes if one.figure.startswith("engine only")}

    changed_base = json.loads(json.dumps(told))
    for one in changed_base["measured"]:
        one["engine_only"]["per_round"], one["yardstick_ms"] = [10, 10.1], [4, 4]
    (tmp_path / "base.json").write_text(json.dumps(changed_base))
    assert set(changed("same.json", 1.0, 1.0).values()) == {"noise"}
    assert set(changed("slower.json", 1.3, 1.0).values()) == {"slower"}
    assert set(changed("faster.json", 0.7, 1.0).values()) == {"faster"}
    assert set(changed("machine.json", 1.3, 1.3).values()) == {"noise"}
    plain = compare(tmp_path / "base.json", tmp_path / "same.json")
    assert plain.notes == []
    assert {one.verdict for one in plain.changes if one.figure == "mean AUROC"} == {"same"}
    # What else may differ is said, and no time of another machine is called slower.
    other = json.loads((tmp_path / "slower.json").read_text())
    other["machine"]["processor"], other["models"][0]["sha256"] = "Another one", "0" * 64
    other["accuracy"][0]["mean_auroc"]["value"] -= 0.01
    (tmp_path / "elsewhere.json").write_text(json.dumps(other))
    told_of = compare(tmp_path / "base.json", tmp_path / "elsewhere.json")
    assert {one.verdict for one in told_of.changes if one.figure.endswith("ms")} == {"another machine"}
    assert [one.verdict for one in told_of.changes if one.figure == "mean AUROC"] == ["worse", "same"]
    assert any("Two machines (processor" in line for line in told_of.notes)
    assert any("chestxray14 is another file" in line for line in told_of.notes)
    assert {one.verdict for one in told_of.changes if one.figure == "peak_rss_mb"} == {"another machine"}
    # As many films of the same name, and not the same.
    other["films_sha256"] = "0" * 64
    (tmp_path / "films.json").write_text(json.dumps(other))
    told_of = compare(tmp_path / "base.json", tmp_path / "films.json")
    assert {one.verdict for one in told_of.changes if one.figure == "mean AUROC"} == {"other films"}
    assert any("AUROC does not compare" in line for line in told_of.notes)
    # Reports made before the films were hashed go by the names of their data sets.
    for name, data in (("old.json", told["data"]), ("other.json", ["another"])):
        (tmp_path / name).write_text(
            json.dumps({key: of for key, of in told.items() if key != "films_sha256"} | {"data": data})
        )
        verdicts = {
            one.verdict for one in compare(tmp_path / "base.json", tmp_path / name).changes if "AUROC" in one.figure
        }
        assert verdicts == {"same" if name == "old.json" else "other films"}


KEPT = ROOT / "benchmarks" / "results" / "benchmark-chestxray14.json"


def test_another_graph_of_one_engine_alone_is_noted(tmp_path: Path) -> None:
    other = json.loads(KEPT.read_text(encoding="utf-8"))
    engine = other["measured"][0]["runtime"]
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    for file, sha256 in ((before, "a" * 64), (after, "b" * 64)):
        for one in other["measured"]:
            one["sha256"] = sha256 if one["runtime"] == engine else "c" * 64
        file.write_text(json.dumps(other))
    name = other["measured"][0]["model"]
    assert f"{name} on {engine} is another file: {'a' * 12} before, {'b' * 12} after." in compare(before, after).notes
    assert not any("another file" in line for line in compare(before, before).notes)


def test_a_narrow_terminal_cuts_no_figure_of_a_comparison_off(capsys: pytest.CaptureFixture[str]) -> None:
    show_changes(compare(KEPT, KEPT), Console(width=80))
    assert "\N{HORIZONTAL ELLIPSIS}" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _: "{}", "cxredge: Field required"),
        (lambda _: "[1, 2]", "not a report"),
        (lambda text: text[: len(text) // 2], "not a report"),
        (lambda text: text.replace('"peak_rss_mb"', '"peak"'), "measured.0.peak_rss_mb: Field required"),
        (
            lambda text: re.sub(r'"size_mb": [\d.]+', '"size_mb": 0', text),
            "measured.0.size_mb: Input should be greater",
        ),
        (lambda text: re.sub(r'"cold_start_ms": \[[^]]*\]', '"cold_start_ms": []', text), "cold_start_ms"),
        (lambda text: text.replace('"engine_only": {', '"engine_only": 1, "was": {'), "measured.0.engine_only"),
    ],
)
def test_comparing_with_what_is_no_report_says_so_in_a_line(
    cli: Cli, tmp_path: Path, spoil: Callable[[str], str], says: str
) -> None:
    (tmp_path / "spoilt.json").write_text(spoil(KEPT.read_text(encoding="utf-8")))
    run = cli("benchmark", "--compare", KEPT, "spoilt.json")
    assert run.returncode == 2
    assert says in run.stderr
    assert "spoilt.json: not a report that `cxredge benchmark` wrote" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(cli: Cli, table: Path) -> None:
    refused = cli("benchmark", "chestxray14", "--data", table, "-o", "/proc/report")
    assert refused.returncode == 2
    assert "choose another --output" in refused.stderr
    assert "Round 1" not in refused.stderr


def test_nothing_on_the_front_is_beaten_in_both() -> None:
    from cxredge.benchmarks.plots import _front

    points = [(name, cost, Interval(area, area, area)) for name, cost, area in (
        ("cheap", 1, 0.70), ("beaten", 2, 0.69), ("better", 3, 0.75), ("dear", 9, 0.75), ("best", 10, 0.80),
    )]  # fmt: skip
    assert [name for name, _, _ in _front(points)] == ["cheap", "better", "best"]
    assert pareto(points, "ms", log=True).startswith("<svg")


def test_the_command_says_what_is_wrong_before_it_measures(cli: Cli, table: Path, tmp_path: Path) -> None:
    nothing = cli("benchmark")
    assert nothing.returncode == 2
    assert "name at least one MODEL" in nothing.stderr
    (tmp_path / "limits.toml").write_text("[limits]\nsize = 1\n")
    wrong = cli("benchmark", "chestxray14", "--data", table, "--gate", "limits.toml")
    assert wrong.returncode == 2
    assert "limits.size" in wrong.stderr
    assert cli("benchmark", "chestxray14", "--data", table, "--threads", "none").returncode == 2
    for words, says in (
        (("--runtime", "onnxruntime,openvina"), "'openvina' is no engine"),
        (("--like", "chestxray14"), "--like is for lone ONNX files"),
        (("--compare", "a.json", "b.json"), "compared as they are"),
    ):
        refused = cli("benchmark", "chestxray14", "--data", table, *words)
        assert refused.returncode == 2
        assert says in refused.stderr


BLINK = Profile("blink", 1, 0.05, 2, 0.05)


def test_films_that_cannot_judge_a_model_are_said_before_it_is_measured(table: Path, tmp_path: Path) -> None:
    films = sorted(table.parent.glob("*.jpg"))[:3]
    ill = tmp_path / "ill.csv"
    ill.write_text("file,Effusion\n" + "".join(f"{film},1\n" for film in films))
    said: list[str] = []
    with pytest.raises(TooFewFilmsError, match="chestxray14: no finding has both films with it"):
        benchmark(["chestxray14"], [ill], profile=BLINK, say=said.append)
    assert not said


def test_flags_that_hardly_ever_flip_are_not_said_never_to(measured: tuple[Report, Samples]) -> None:
    report, _ = measured
    told = [replace(report.accuracy[0], flips=flips) for flips in (0.0, 0.0001, 0.0006, None)]
    heading, *rows = accuracy_table(replace(report, accuracy=told))
    said = [row[heading.index("flips")] for row in rows]
    assert said == ["0.0 %", "under 0.05 %", "0.1 %", "\N{EN DASH}"]


def test_a_slow_machine_reads_more_than_no_films_a_second(measured: tuple[Report, Samples]) -> None:
    report, _ = measured
    heading, row, *_ = speed_table(replace(report, measured=[replace(report.measured[0], films_per_second=0.37)]))
    assert row[heading.index("films/s")] == "0.37"


def test_models_for_other_findings_share_a_page_each_with_its_own_films() -> None:
    report, _ = benchmark(
        ["chestxray14", "paediatric-pneumonia"], [FILMS / "chestxray14", FILMS / "chest_xray"], profile=BLINK,
        runtimes=["onnxruntime"], samples=20, say=lambda _: None,
    )  # fmt: skip
    assert [one.model for one in report.accuracy] == [
        "chestxray14", "paediatric-pneumonia", "chestxray14, full precision"
    ]  # fmt: skip
    adults, children, full = report.accuracy
    assert adults.films == full.films == len((FILMS / "chestxray14" / "test_list.txt").read_text().split())
    assert children.films == len([f for f in (FILMS / "chest_xray" / "test").rglob("*") if f.is_file()])
    assert adults.drift is not None
    # The other model's parent looks for none of its findings.
    assert children.drift is None
    assert {one.finding for one in children.findings} <= set(open_subject("paediatric-pneumonia").findings)
    page = html(report)
    assert f"{children.films} for paediatric-pneumonia" in page
    with pytest.raises(DataError, match="paediatric-pneumonia looks for"):
        benchmark(["chestxray14", "paediatric-pneumonia"], [FILMS / "chestxray14"], profile=BLINK, say=lambda _: None)


def test_films_that_cannot_be_read_are_named_and_end_nothing(table: Path, tmp_path: Path) -> None:
    """The last film too, which is none of those that are timed."""
    spoilt = tmp_path / "films" / "labels.csv"
    shutil.copytree(table.parent, spoilt.parent)
    names = [row["file"] for row in csv.DictReader(spoilt.open())]
    for name in (names[0], names[-1]):
        (spoilt.parent / name).write_bytes(b"not a film")
    report, _ = benchmark(
        ["chestxray14"], [spoilt], profile=BLINK, runtimes=["onnxruntime"], samples=20, say=lambda _: None
    )
    for name in (names[0], names[-1]):
        assert sum(name in line and "in no figure" in line for line in report.left_out) == 1
    assert report.accuracy[0].films == len(names) - 2
    many = replace(report.accuracy[0], unread=[f"{number}.jpg: empty" for number in range(9)])
    assert _unread([many, many])[-2:] == ["4.jpg: empty (in no figure)", "4 more films that cannot be read"]


def test_what_is_measured_is_the_graph_that_a_scan_would_load(table: Path, tmp_path: Path) -> None:
    shipped = open_bundle("chestxray14")
    manifest = shipped.manifest
    exact = EngineGraph(file="model.fp32.onnx", precision="fp32", logits="full", tolerance=manifest.tolerance)
    bundle = write_bundle(
        tmp_path / "server", {name: shipped.folder / name for name in manifest.files},
        lambda hashes: manifest.model_copy(update={"files": hashes, "graphs": {"onnxruntime": exact}}),
    )  # fmt: skip
    report, _ = benchmark([str(bundle.folder)], [table], profile=BLINK, runtimes=["onnxruntime", "openvino"], samples=20,
                          say=lambda _: None)  # fmt: skip
    on = {one.runtime: one for one in report.measured if one.model == "chestxray14"}
    assert (on["onnxruntime"].graph, on["openvino"].graph) == ("fp32", "")
    assert on["onnxruntime"].sha256 == manifest.files["model.fp32.onnx"]
    assert on["onnxruntime"].size_mb == (bundle.folder / "model.fp32.onnx").stat().st_size / 1e6
    assert on["openvino"].sha256 == bundle.model_sha256
    judged = {one.runtime: one for one in report.accuracy if one.model == "chestxray14"}
    assert judged["onnxruntime"].drift == Interval(0, 0, 0)
    assert judged["openvino"].drift != Interval(0, 0, 0)
    assert "onnxruntime fp32" in html(report)
    found, _ = evaluate(open_subject(bundle.folder), [table], samples=20, examples=0)
    assert (found.model["precision"], found.model["sha256"]) == ("fp32", manifest.files["model.fp32.onnx"])
    assert found.mean_auroc.value == judged["onnxruntime"].mean_auroc.value

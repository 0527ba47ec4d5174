"""Templates are translated once, and a broken or missing cache costs time only."""

from pathlib import Path

import pytest
from jinja2 import DictLoader, Environment

from cxredge.report.compiled import KeptTemplates


def page(cache: Path, *, source: str = "Hello {{ name }}", made_by: Path = Path(__file__)) -> str:
    kept = KeptTemplates(cache, made_by=made_by)
    return (
        Environment(loader=DictLoader({"page": source}), bytecode_cache=kept, autoescape=True)
        .get_template("page")
        .render(name="<A>")
    )


def test_template_is_translated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert page(tmp_path / "cache") == "Hello &lt;A&gt;"
    monkeypatch.setattr(Environment, "compile", None)
    assert page(tmp_path / "cache") == "Hello &lt;A&gt;"


def test_changed_template_or_settings_are_translated_anew(tmp_path: Path) -> None:
    settings = tmp_path / "settings.py"
    settings.write_text("one", encoding="utf-8")
    page(tmp_path / "cache", made_by=settings)
    assert page(tmp_path / "cache", source="Bye {{ name }}", made_by=settings) == "Bye &lt;A&gt;"
    settings.write_text("two", encoding="utf-8")
    page(tmp_path / "cache", made_by=settings)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_damaged_or_unwritable_cache_is_no_error(tmp_path: Path) -> None:
    page(tmp_path / "cache")
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    assert page(tmp_path / "cache") == "Hello &lt;A&gt;"
    (tmp_path / "file").write_bytes(b"")
    assert page(tmp_path / "file") == "Hello &lt;A&gt;"

"""The page as a file: what is in it, what is not, and what strangers' words can do to it."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headpatch.core.output.folder import find
from headpatch.errors import InputError
from headpatch.reports import page, write
from headpatch.reports.pictures import MOST
from tests.report import made

SECTIONS = {
    "maps": ["heads.csv", "sweep.pt", "verdicts.csv"],
    "ranking": ["heads.csv", "sweep.pt", "verdicts.csv"],
    "scatter": ["sweep.pt", "verdicts.csv"], "verdict": ["verdicts.csv"], "tower": ["vision.csv"],
    "combine": ["combinations.csv"], "ablate": ["effects.csv"], "rank": ["heads.csv"],
    "sweep": ["sweep.pt"], "path": ["path.csv"], "cut": ["cuts.csv"], "trace": ["trace.pt"],
    "rollout": ["rollout.csv"], "claims": ["claims.csv"], "gate": ["gate.csv"],
}  # fmt: skip
"""Sections, and the files without all of which each is left out."""
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "<b>bold</b> & 'quoted' \u2028 <a href=\"javascript:window.hacked=1\">x</a>",
)


ELSEWHERE = ("evaluate", "compare")  # sections that the contract of all questions tests


class Parsed(HTMLParser):
    """Elements with their attributes, and all text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words, self.scripts = "", [""]
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words += data

    def data(self) -> dict[str, Any]:
        ids = [attributes.get("id") for tag, attributes in self.elements if tag == "script"]
        found: dict[str, Any] = json.loads(self.scripts[1:][ids.index("report-data")])
        return found


def report(folder: Path) -> tuple[str, tuple[str, ...]]:
    written = write(folder, folder / "report.html")
    return written.path.read_text(encoding="utf-8"), written.sections


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.everything(tmp_path_factory.mktemp("whole"))


def test_every_section_is_there(whole: Path) -> None:
    text, sections = report(whole)
    assert len(sections) == len(page.SECTIONS) - len(ELSEWHERE)
    assert {*SECTIONS, "first", "noise", "how"} == set(sections)
    assert len(text.encode()) < 3e6


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_without_its_files_is_left_out(whole: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    for file in SECTIONS[name]:
        for place in folder.rglob(file):
            place.unlink()
    text, sections = report(folder)
    assert name not in sections
    assert f'id="{name}"' not in text
    others = {one for one, files in SECTIONS.items() if not set(SECTIONS[name]) & set(files)}
    assert others <= set(sections)


def test_one_verb_alone_makes_a_page(tmp_path: Path) -> None:
    alone = "ablate", "cut", "combine", "path", "trace", "rollout", "claims"
    expected = {verb: {verb} for verb in alone} | {
        "rank": {"maps", "ranking", "rank"},
        "sweep": {"maps", "ranking", "sweep"},
        "approx": {"maps", "ranking", "sweep"},
        "tower": {"sweep"},
        "verdict": {"verdict", "maps", "scatter", "ranking", "tower", "gate"},
    }
    for verb, wanted in expected.items():
        folder = tmp_path / verb
        getattr(made, verb)(folder)
        assert set(report(folder)[1]) - {"first", "how", "noise"} == wanted


def test_commands_of_every_run_in_a_folder_are_shown(tmp_path: Path) -> None:
    """Also beside a verdict, which writes none of the others' tables."""
    made.verdict(tmp_path)
    made.rank(tmp_path)
    made.sweep(tmp_path)
    (part,) = find(tmp_path).parts
    assert set(part.verbs) == {"verdict", "rank", "sweep"}


def test_nothing_is_loaded_from_elsewhere(whole: Path) -> None:
    for _, attributes in Parsed(report(whole)[0]).elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/jpeg;base64,")), value


def test_the_same_results_give_the_same_bytes(whole: Path) -> None:
    assert report(whole) == report(whole)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_words_of_strangers_stay_words(tmp_path: Path, hostile: str) -> None:
    """They show as they are, add no element or attribute, and break no data."""
    pages = []
    for name, text in (("plain", "plain"), ("hostile", hostile)):
        folder = tmp_path / name
        study: dict[str, Any] = dict.fromkeys(["question", "region", "model", "with"], text)
        study |= {"without": text, "claims": [text]}
        made.rank(folder, answer=text, study=study)
        made.run_yaml(folder, study, model=text, commit=text)
        asked = (made.trace, [text, "b"]), (made.claims, text), (made.rollout, text)
        for verb, given in asked:
            verb(folder / verb.__name__, given)
            made.run_yaml(folder / verb.__name__, study)
        pages.append(Parsed(report(folder)[0]))
    plain, other = pages
    shape = [[(tag, sorted(given)) for tag, given in one.elements] for one in pages]
    assert shape[0] == shape[1]
    assert len(plain.scripts) == len(other.scripts)
    shown = other.words.count(hostile)
    assert shown >= 6  # question, region, answer, claim, tokens
    figures = other.data()["figures"]
    ticks = figures["trace-2"]["layout"]["xaxis"]["ticktext"]
    escaped = hostile.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert ticks[0] == " ".join(f"{escaped} (No)".split())


@pytest.mark.parametrize("there", [True, False])
def test_heads_that_act_are_compared_with_their_layer(tmp_path: Path, there: bool) -> None:
    """Results of a table without these columns are shown without."""
    made.verdict(tmp_path)
    table = tmp_path / "verdicts.csv"
    if not there:
        table.write_text(table.read_text().replace("_layer_p", "_other"))
    text = write(tmp_path, tmp_path / "r.html").path.read_text(encoding="utf-8")
    assert ("Layer p (necessity / sufficiency)" in text) is there
    assert ("0.031 / 0.031" in text) is there


def test_a_large_model_stays_small(tmp_path: Path) -> None:
    """LLaVA-1.5-7B's heads, a picture of 1,600 tokens, attention that hardly compresses."""
    made.rank(tmp_path, layers=32, heads=32, side=40)
    made.sweep(tmp_path / "sweep", layers=32, heads=32)
    draws = torch.Generator().manual_seed(1)
    for name in ("with", "without"):
        file = tmp_path / f"attention_{name}_triangle.pt"
        kept = torch.load(file, weights_only=True)
        kept["lm_rows"] = torch.rand(kept["lm_rows"].shape, generator=draws)
        torch.save(kept, file)
    text, _ = report(tmp_path)
    assert len(text.encode()) < 6e6
    data = Parsed(text).data()
    kept_heads = data["overlay"]["heads"]
    assert 300 < len(kept_heads) < 1024
    rank = np.array(data["heads"]["looks"][0]["rank"])
    assert set(np.flatnonzero(rank <= 100)) <= set(kept_heads)
    assert 3 * 32 + 2 in kept_heads  # the head with the largest effect
    assert MOST < 3e6


def test_runs_of_something_else_are_left_out_and_named(tmp_path: Path) -> None:
    made.rank(tmp_path)
    made.sweep(tmp_path / "sweep")
    made.run_yaml(tmp_path / "sweep", weights="sha256:2", model="other")
    made.cut(tmp_path / "cut")
    made.run_yaml(tmp_path / "cut", {"question": "Is it red?"})
    made.path(tmp_path / "path")
    made.path(tmp_path / ".hidden")
    made.path(tmp_path / "edited")
    made.run_yaml(tmp_path / "edited", weights="sha256:2", checksum="0",
                  files={"path.csv": "0", "path.pt": "0"})  # fmt: skip
    written = write(tmp_path, tmp_path / "r.html")
    assert {one.name: one.why for one in written.left_out} == {
        "edited": "of other weights of demo, and its run.yaml was changed after the run",
        "cut": "of another study (its question differs)",
        "sweep": "of another model (other)",
    }
    assert written.folders == (tmp_path, tmp_path / "path")
    assert "of another model (other)" in written.path.read_text(encoding="utf-8")


def test_an_invalid_study_says_so(tmp_path: Path) -> None:
    made.rank(tmp_path)
    made.run_yaml(tmp_path, valid=False)
    written = write(tmp_path, tmp_path / "r.html")
    assert not written.valid
    assert "Invalid study." in written.path.read_text(encoding="utf-8")


def test_the_prompt_and_what_the_model_says_are_shown(tmp_path: Path) -> None:
    def said(**more: object) -> dict[str, object]:
        found = {"p_yes": 0.3, "p_no": 2e-9, "rank_yes": 2, "rank_no": 71, "variants": {}}
        return {**found, "top": " <b>A", "p_top": 0.6, **more}

    made.rank(tmp_path)
    readings = {"with": said(variants={" yes": 0.08}), "without": said(p_no=0.9)}
    why = ["without it the model says 'A'"]
    prompt = "May 1. USER: <image>\nIs it? ASSISTANT:"
    more = {"prompt": prompt, "valid": False, "invalid_because": why}
    made.run_yaml(tmp_path, answer_probabilities=readings, **more)
    words = Parsed(report(tmp_path)[0]).words
    assert repr(prompt) in words
    assert "Without it the model says 'A'; it was run by force." in words
    line = "' <b>A' 0.600; Yes 0.300 (rank 2), No 2.0e-09 (rank 71)"
    assert f"{line}; ' yes' holds 0.08" in words
    assert "No 0.900 (rank 71)" in words
    made.run_yaml(tmp_path, answer_probabilities={"with": {"p_yes": 0.3}})
    with pytest.raises(InputError, match=r"run\.yaml: it cannot be read"):
        report(tmp_path)


def test_equal_studies_are_printed_once(tmp_path: Path) -> None:
    made.rank(tmp_path)
    made.sweep(tmp_path / "sweep")
    text = report(tmp_path)[0]
    assert "The full study is that of this folder." in Parsed(text).words
    for verb, place in (("rank", ""), ("sweep", "/sweep")):
        out = f"{tmp_path}{place}"
        assert f"headpatch {verb} --config {out}/run.yaml --out {out}" in text

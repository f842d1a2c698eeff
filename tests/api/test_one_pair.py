"""One pair: a call's table, the command's file and its ``--json`` are equal to the last digit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

import headpatch as hp
from headpatch.core.output.files import write_table
from headpatch.core.output.folder import find
from headpatch.report import draw
from headpatch.report.html.sections import how
from tests.api.contract import same_cells, shown_in
from tests.command import headpatch, of_pair
from tests.planted import HEADS, planted, planted_study, save_planted

LOOKER, WRITER = HEADS["looker"].head, HEADS["blind writer"].head
BOTH = f"{LOOKER},{WRITER}"


class Face(NamedTuple):
    """A call, the command that does the same, its file, and where its JSON holds that table."""

    call: Callable[[hp.Session], Any]
    words: tuple[object, ...]
    table: Callable[[Any], pd.DataFrame]
    file: str
    key: str = ""


FACES = {
    "rank": Face(hp.rank, (), lambda one: one.heads, "heads.csv", "heads"),
    "ablate": Face(
        lambda one: hp.ablate(one, BOTH, kinds=["resample"], controls=2),
        ("--heads", BOTH, "--kinds", "resample", "--controls", 2),
        lambda one: one.effects, "effects.csv", "effects",
    ),
    "sweep": Face(
        lambda one: hp.sweep(one, kinds=["zero"], noise=2),
        ("--kinds", "zero", "--config", "noise.yaml"),
        lambda one: one.effects, "effects.csv",
    ),
    "cut": Face(
        lambda one: hp.cut(one, edges=["answer-region"], layers="1-2", controls=1),
        ("--edges", "answer-region", "--layers", "1-2", "--controls", 1),
        lambda one: one.effects, "cuts.csv", "cuts",
    ),
    "combine": Face(
        lambda one: hp.combine(one, BOTH), ("--heads", BOTH),
        lambda one: one.table, "combinations.csv", "combinations",
    ),
    "path": Face(
        lambda one: hp.path(one, LOOKER, edges=["answer-region"], window=1),
        ("--heads", LOOKER, "--edges", "answer-region", "--window", 1),
        lambda one: one.table, "path.csv", "path",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    save_planted(folder / "model")
    planted_study(folder)
    (folder / "noise.yaml").write_text("sweep: {noise: 2}\n")
    return folder


@pytest.fixture(scope="module")
def opened(place: Path) -> hp.Session:
    return hp.open_session(planted_study(place), planted().vlm, positions="answer")


@pytest.mark.parametrize("verb", FACES)
def test_call_file_json_and_page_say_the_same(
    verb: str, place: Path, opened: hp.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in dir(draw):
        if name.startswith("draw_"):
            monkeypatch.setattr(draw, name, lambda *_, **__: None)
    monkeypatch.chdir(place)
    face, out = FACES[verb], tmp_path / "out"
    said = headpatch(verb, *of_pair(place), *face.words, "--out", out, "--json")
    assert said.code == 0, said.err
    written = pd.read_csv(out / face.file, dtype=str, keep_default_na=False)
    write_table(tmp_path / "own.csv", face.table(face.call(opened)))
    own = pd.read_csv(tmp_path / "own.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(own, written)
    if face.key:
        same_cells(said.json[face.key], written)
    shown_in(out, verb, written)
    (run,) = how.section(find(out)).values["runs"]
    assert [words.split()[1] for words in run["commands"]] == [verb]

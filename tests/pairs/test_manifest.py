"""Datasets: what a table says is what is read; whatever is wrong with it is said with its line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headpatch.errors import InputError, RowError
from headpatch.pairs.manifest import Manifest, usable
from headpatch.pairs.region import REGIONS, UNNAMED, Region
from tests import refusals

QUESTION = "Is there anything in the top left corner?"
HEADER = "with,without,question,region"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcdef":
        Image.new("RGB", (8, 8), f"#{name * 6}").save(tmp_path / f"{name}.png")
    return tmp_path


def table(folder: Path, *lines: str, name: str = "manifest.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def row(present: str = "a", absent: str = "b", region: str = "top-left") -> str:
    return f"{present}.png,{absent}.png,{QUESTION},{region}"


def refusal(path: Path) -> str:
    message = refusals.refusal(Manifest.read, path)
    assert message.startswith("--pairs")
    return message


def test_a_table_is_read_as_it_stands(folder: Path) -> None:
    text = [f"{HEADER},shape,note", row() + ",ring,", row("c", "d", "bottom right") + ',"a, b",x']
    found = Manifest.read(table(folder, *text))
    first, second = found.entries
    assert (first.name, second.name) == ("0001", "0002")
    assert (first.with_path, first.without_path) == (folder / "a.png", folder / "b.png")
    assert (first.question, first.region, first.line) == (QUESTION, REGIONS["top-left"], 2)
    assert second.region == REGIONS["bottom-right"]
    assert first.factors == {"shape": "ring", "note": ""}
    assert second.factors == {"shape": "a, b", "note": "x"}
    pair = second.pair()
    assert (pair.name, pair.question, pair.region.name) == ("0002", QUESTION, "bottom-right")
    assert np.asarray(pair.with_image)[0, 0].tolist() == [0xCC] * 3
    assert np.asarray(pair.without_image)[0, 0].tolist() == [0xDD] * 3


def test_columns_may_stand_in_any_order_and_names_be_given(folder: Path) -> None:
    text = ["region,pair,without,with,question", f"top-left,first,b.png,a.png,{QUESTION}"]
    (entry,) = Manifest.read(table(folder, *text)).entries
    assert (entry.name, entry.with_path.name, entry.factors) == ("first", "a.png", {})


def test_paths_are_relative_to_the_table_or_absolute(folder: Path) -> None:
    (folder / "sub").mkdir()
    line = f"../a.png,{folder / 'b.png'},{QUESTION},top-left"
    (entry,) = Manifest.read(table(folder, HEADER, line, name="sub/pairs.csv")).entries
    assert entry.with_path.samefile(folder / "a.png")
    assert entry.without_path.samefile(folder / "b.png")


def test_blank_lines_a_mark_of_utf8_and_windows_line_ends_are_no_matter(folder: Path) -> None:
    text = f"\ufeff{HEADER}\r\n\r\n{row()}\r\n,,,\r\n{row('c', 'd')}\r\n"
    (folder / "manifest.csv").write_bytes(text.encode())
    assert [one.line for one in Manifest.read(folder).entries] == [3, 5]


def test_a_cell_over_two_lines_does_not_upset_the_count(folder: Path) -> None:
    text = [HEADER, 'a.png,b.png,"Is it\nthere?",top-left', row("c", "d", "nowhere")]
    _, bad = Manifest.read(table(folder, *text)).entries
    assert bad.problem is not None and "line 4" in str(bad.problem)


def test_a_box_is_a_region(folder: Path) -> None:
    (entry,) = Manifest.read(table(folder, HEADER, row(region='"0,0,0.5,0.25"'))).entries
    assert entry.region.box == (0, 0, 0.5, 0.25)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_imagefolder_loads_too(folder: Path, kind: str) -> None:
    """Hugging Face's layout: a metadata file, and columns of paths that end in _file_name."""
    names = ("with_file_name", "without_file_name", "question", "region", "distractors")
    cells = dict(zip(names, ("a.png", "b.png", QUESTION, "top-left", 3), strict=True))
    text = [",".join(cells), ",".join(map(str, cells.values()))]
    if kind == "jsonl":
        text = [json.dumps(cells)]
    table(folder, *text, name=f"metadata.{kind}")
    (entry,) = Manifest.read(folder).entries
    assert (entry.with_path, entry.without_path) == (folder / "a.png", folder / "b.png")
    assert entry.factors == {"distractors": "3"}


def test_a_split_of_an_imagefolder_is_found_if_it_is_the_only_one(
    folder: Path, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        place = tmp_path / "splits" / split
        place.mkdir(parents=True)
        for name in ("a.png", "b.png"):
            (place / name).write_bytes((folder / name).read_bytes())
    path = table(tmp_path / "splits" / "train", HEADER, row(), name="metadata.csv")
    found = Manifest.read(tmp_path / "splits")
    assert found == Manifest.read(path)
    assert found.entries[0].with_path == path.parent / "a.png"
    table(tmp_path / "splits" / "test", HEADER, row())
    message = refusal(tmp_path / "splits")
    assert "2 folders" in message and "splits/test, " in message and "splits/train;" in message


def test_a_folder_stands_for_its_manifest(folder: Path) -> None:
    path = table(folder, HEADER, row())
    table(folder, HEADER, row("c", "d"), name="metadata.csv")
    assert Manifest.read(folder) == Manifest.read(path)


BAD = {
    "empty": ([""], ["is empty", "with, without (or question_without), question"]),
    "no pair": ([HEADER], ["holds no pair"]),
    "no column": (["with,without,region", "a.png,b.png,x"], ["line 1", "no column question"]),
    "no other picture": (["with,question,region", "a.png,x,"], ["line 1", "no column without"]),
    "semicolons": ([HEADER.replace(",", ";")], ["line 1", "no column", "commas, not semicolons"]),
    "a column twice": ([f"{HEADER},with", f"{row()},c.png"], ["line 1", "'with' twice"]),
    "both names of one": ([f"{HEADER},with_file_name", f"{row()},c.png"], ["'with' twice"]),
    "too few cells": ([HEADER, row(), "c.png,d.png"], ["line 3", "2 cells", "4"]),
    "too many cells": ([HEADER, f"{row()},more"], ["line 2", "5 cells", "double quotes"]),
    "a stray quote": ([HEADER, f'a.png,"b"x.png,{QUESTION},top-left'], ["line 2", "not CSV"]),
    "an open quote": ([HEADER, row(), f'c.png,"d.png,{QUESTION},top-left'], ["line 3", "not CSV"]),
    "a folder": ([HEADER, row(absent=".")], ["line 2 (row 1)", "no file"]),
    "an empty path": ([HEADER, f",b.png,{QUESTION},top-left"], ["line 2", "an empty with"]),
    "no question": ([HEADER, "a.png,b.png, ,top-left"], ["line 2", "an empty question"]),
    "no name": ([f"{HEADER},name", f"{row()},"], ["line 2", "an empty name"]),
    "one picture twice": ([HEADER, row("a", "a")], ["line 2", "one picture twice"]),
    "no row": (
        [HEADER, row("c", "z"), *[row("x", "d", "up")] * 4],
        ["line 2 (row 1), without", "z.png", "Refused: --pairs", "line 3 (row 2), with", "1 more"],
    ),
    "a row twice": ([HEADER, row(), row("c", "d"), row()], ["line 4", "the same pair as line 2"]),
    "a name twice": (
        [f"{HEADER},name", f"{row()},x", f"{row('c', 'd')},x"],
        ["line 3", "'x' of line 2"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_with_its_line(folder: Path, case: str) -> None:
    text, parts = BAD[case]
    message = refusal(table(folder, *text))
    for part in parts:
        assert part in message


COLUMNS = f"{HEADER},question_without,answers"
ROWS = {
    "no such picture": (row("c", "z") + ",,", ["(row 2), without", "z.png"]),
    "no region": (row("c", "d", "up") + ",,", ["region", "'up'", "top-left"]),
    "a region of pixels in a list": (
        f'c.png,d.png,{QUESTION},"[1, 2, 30, 40]",,', ["region", "x,y,x+w,y+h"],
    ),
    "an empty path": (f",b.png,{QUESTION},top-left,,", ["an empty with"]),
    "no other picture": (f"a.png,,{QUESTION},top-left,,", ["an empty without"]),
    "no question": ("c.png,d.png, ,top-left,,", ["an empty question"]),
    "one picture twice": (row("c", "c") + ",,", ["one picture twice"]),
    "one answer": (row("c", "d") + ",,No", ["answers", "'No'", "No,Yes"]),
    "three answers": (row("c", "d") + ',,"a,b,c"', ["answers", "two different texts"]),
    "answers alike": (row("c", "d") + ',,"No, No"', ["answers", "two different texts"]),
    "a list that is none": (row("c", "d") + ',,"[No"', ["answers", "two different texts"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row_is_kept_with_its_reason_and_the_others_are_read(folder: Path, case: str) -> None:
    text, parts = ROWS[case]
    found = Manifest.read(table(folder, COLUMNS, row() + ",,", text, row("e", "f") + ",,"))
    first, bad, last = found.entries
    assert usable(found.entries) == (first, last)
    assert bad.problem is not None and bad.name == "0002"
    for part in ("line 3", *parts):
        assert part in str(bad.problem)
    with pytest.raises(RowError, match="line 3"):
        bad.pair()
    with pytest.raises(InputError, match=r"2 pairs to run, 1 refused; .*least 3, x\. Refused: "):
        found.need(3, "x")


def test_a_row_may_have_its_own_answers_and_a_second_question(folder: Path) -> None:
    other = "Is it blue?"
    text = [
        f"{COLUMNS},shape,name", f'a.png,b.png,{QUESTION},,,"No, Yes",ring,x',
        f'c.png,,{QUESTION},"4,0,8,8",{other},"[""(a)"", ""b,c""]",ring,y',
        f"a.png,a.png,{QUESTION},,{other},,ring,z",
    ]  # fmt: skip
    first, second, third = Manifest.read(table(folder, *text)).entries
    assert first.answers == ("No", "Yes") and second.answers == ("(a)", "b,c")
    assert third.answers is None and first.question_without is None
    assert (second.with_path, second.without_path) == (folder / "c.png", folder / "c.png")
    assert {*first.factors} == {"shape"}  # a column that says what a pair is, is no factor
    pair = second.pair()
    assert pair.images[0] is pair.images[1] and pair.answers == ("(a)", "b,c")
    assert pair.questions == (QUESTION, other) and pair.region.box == (0.5, 0, 1, 1)
    assert first.region == third.region == UNNAMED
    assert third.pair().region == UNNAMED


def test_every_source_says_the_same_of_such_rows(folder: Path) -> None:
    cells = {"with": "a.png", "question": QUESTION, "region": [0, 0, 0.5, 1], "answers": ["a", "b"],
             "question_without": "Is it blue?", "name": "x"}  # fmt: skip
    lines = [json.dumps(cells), json.dumps({"with": "a.png", "without": "b.png", "region": None,
                                            "question": QUESTION, "answers": None})]  # fmt: skip
    one, other = Manifest.read(table(folder, *lines, name="metadata.jsonl")).entries
    of_memory = Manifest.of([cells | {"with": str(folder / "a.png")}]).entries[0]
    assert one.answers == of_memory.answers == ("a", "b")
    assert one.region == of_memory.region == Region.parse("0,0,0.5,1")
    assert other.answers is None and other.region == UNNAMED and not other.factors
    boxes = cells | {"with": str(folder / "a.png"), "region": [10, 20, 30, 40]}
    assert "x,y,x+w,y+h" in refusals.refusal(Manifest.of, [boxes])


def test_one_pair_may_be_asked_two_things(folder: Path) -> None:
    other = f"a.png,b.png,{QUESTION},bottom-left"
    assert len(Manifest.read(table(folder, HEADER, row(), other)).entries) == 2


def test_what_is_no_table_is_refused(folder: Path) -> None:
    assert "No such file" in refusal(folder / "none.csv")
    assert "holds no table" in refusal(folder)
    assert "is not UTF-8 (line 1)" in refusal(folder / "a.png")
    (folder / "latin.csv").write_bytes(f"{HEADER}\na.png,b.png,où?,top-left\n".encode("latin-1"))
    assert "is not UTF-8 (line 2)" in refusal(folder / "latin.csv")
    for line, words in (("[1]", "[1]"), ("{", "not JSON"), ('{"with": "a.png"}', "no column")):
        message = refusal(table(folder, "", line, name="metadata.jsonl"))
        assert "line 2" in message
        assert words in message


def test_a_picture_that_cannot_be_read_is_named_by_its_line(folder: Path) -> None:
    (folder / "b.png").write_text("no picture")
    (entry,) = Manifest.read(table(folder, HEADER, row())).entries
    with pytest.raises(InputError, match=r"manifest\.csv, line 2, without: .* not a picture"):
        entry.pair()


def test_a_limit_draws_a_part_by_the_seed_and_keeps_the_order(folder: Path) -> None:
    rows = [row(x, y) for x in "abcdef" for y in "abcdef" if x != y]
    every = Manifest.read(table(folder, HEADER, *rows))
    part = every.take(10, seed=0)
    lines = [one.line for one in part.entries]
    assert len(lines) == 10
    assert lines == sorted(set(lines))
    assert lines != list(range(2, 12))
    assert part == every.take(10, seed=0)
    assert part != every.take(10, seed=1)
    assert every.take(None, 0) == every.take(30, 0) == every.take(1000, 0) == every
    for limit in (0, -1):
        with pytest.raises(InputError, match=r"--limit: .* at least 1"):
            every.take(limit, 0)


def test_too_few_pairs_are_counted(folder: Path) -> None:
    found = Manifest.read(table(folder, HEADER, row()))
    found.need(1, "never")
    with pytest.raises(InputError, match="1 pair to run; expected at least 2, which a test needs"):
        found.need(2, "which a test needs")

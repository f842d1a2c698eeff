"""Rows from memory and from Parquet are read as a table's, their pictures whatever they are."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headpatch as hp
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.pairs.labelled import read_rows
from headpatch.pairs.manifest import Manifest
from tests.command import refused_early
from tests.planted import planted, planted_image
from tests.refusals import refusal
from tests.tiny import QUESTION

REGION = "top-left"
OTHERS = [(3, 1), (3, 2), (2, 3)]


def pictures(index: int) -> tuple[Image.Image, Image.Image]:
    return planted_image(True, other=OTHERS[index]), planted_image(False, other=OTHERS[index])


def file_bytes(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def rows_of(form: Callable[[Image.Image], Any]) -> list[dict[str, Any]]:
    return [
        {"with": form(present), "without": form(absent), "question": QUESTION, "region": REGION,
         "shape": "square", "note": None if index else np.int64(3)}
        for index, (present, absent) in enumerate(map(pictures, range(3)))
    ]  # fmt: skip


FORMS: dict[str, Callable[[Image.Image], Any]] = {
    "Pillow": lambda image: image,
    "with alpha": lambda image: image.convert("RGBA"),
    "array": np.asarray,
    "grey array": lambda image: np.asarray(image.convert("L")),
    "bytes": file_bytes,
    "Hugging Face": lambda image: {"bytes": file_bytes(image), "path": "p.png"},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_may_be_anything_that_holds_one(form: str) -> None:
    found = Manifest.of(rows_of(FORMS[form]))
    for index, entry in enumerate(found.entries):
        pair = entry.pair()
        for image, expected in zip((pair.with_image, pair.without_image), pictures(index),
                                   strict=True):  # fmt: skip
            assert np.array_equal(np.asarray(image), np.asarray(expected))
    first, second, _ = found.entries
    assert (first.name, first.region.name, first.question) == ("0001", REGION, QUESTION)
    assert (first.factors, second.factors["note"]) == ({"shape": "square", "note": "3"}, "")
    assert second.where == "--pairs, row 2"


def test_paths_of_rows_are_relative_to_where_the_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = iter("abcdef")

    def saved(image: Image.Image) -> str:
        name = f"{next(names)}.png"
        image.save(tmp_path / name)
        return name

    rows = rows_of(saved)
    by_path = Manifest.of(pd.DataFrame(rows))
    assert by_path.entries[0].with_path == tmp_path / "a.png"
    in_dicts = [one | {"with": {"bytes": None, "path": one["with"]}} for one in rows]
    assert Manifest.of(in_dicts).path == Manifest.of(rows).path


class Stored:
    """What `headpatch` asks of a dataset of Hugging Face's, which decodes pictures when read."""

    class Image:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.features = {name: self.Image() if name.startswith("with") else "text"
                         for name in rows[0]}  # fmt: skip

    def cast_column(self, name: str, feature: Any) -> "Stored":
        assert isinstance(feature, self.Image) and not feature.decode
        self.features[name] = feature
        return self

    def with_format(self, form: None) -> list[dict[str, Any]]:
        assert not any(getattr(one, "decode", False) for one in self.features.values())
        return self.rows


def test_every_source_of_the_same_rows_is_the_same_dataset(tmp_path: Path) -> None:
    rows = rows_of(FORMS["Hugging Face"])
    found = Manifest.of(rows)
    assert str(found.path).startswith("memory:sha256:")
    assert Manifest.of(pd.DataFrame(rows)).path != found.path  # its note is 3.0, with gaps
    plain = [{name: one[name] for name in one if name != "note"} for one in rows]
    expected = Manifest.of(plain).path
    assert Manifest.of(pd.DataFrame(plain)).path == expected
    assert Manifest.of(Stored(plain)).path == expected
    assert Manifest.of(iter(plain)).path == expected
    assert Manifest.of(Manifest.of(plain).entries).path == expected
    for change in ({"question": "Is it?"}, {"with": plain[1]["with"]}, {"shape": "ring"}):
        assert Manifest.of([plain[0] | change, *plain[1:]]).path != expected


def test_a_dataset_of_hugging_faces_own(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    plain = [{name: one[name] for name in one if name != "note"} for one in rows_of(lambda i: i)]
    made = datasets.Dataset.from_list(plain)
    assert type(made.features["with"]).__name__ == "Image"
    assert np.array_equal(
        np.asarray(Manifest.of(made).entries[2].pair().with_image), np.asarray(pictures(2)[0])
    )
    assert len(Manifest.of(made.with_format("numpy")).entries) == 3
    with pytest.raises(InputError, match=r"a dict of splits: train; .* pairs\['train'\]"):
        Manifest.of(datasets.DatasetDict({"train": made}))
    made.to_parquet(tmp_path / "pairs.parquet")
    assert len(Manifest.read(tmp_path / "pairs.parquet").entries) == 3


def test_a_parquet_file_holds_its_pictures_or_names_them(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = rows_of(FORMS["Hugging Face"])
    path = tmp_path / "pairs.parquet"
    pd.DataFrame(rows).to_parquet(path)
    found = Manifest.read(path)
    assert found.path == path
    assert found.entries[1].where == f"--pairs {path}, row 2"
    assert np.array_equal(
        np.asarray(found.entries[1].pair().with_image), np.asarray(pictures(1)[0])
    )
    pictures(0)[0].save(tmp_path / "a.png")
    pd.DataFrame([rows[0] | {"with": "a.png"}]).to_parquet(path)
    assert Manifest.read(path).entries[0].with_path == tmp_path / "a.png"
    pd.DataFrame([rows[0] | {"with": "z.png"}]).to_parquet(path)
    with pytest.raises(InputError, match=r"pairs\.parquet, row 1, with: there is no file .*z\.png"):
        Manifest.read(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"cannot be read .*expected a Parquet file"):
        Manifest.read(path)


def test_without_pyarrow_the_way_to_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object, **__: object) -> None:
        raise ImportError("Unable to find a usable engine; tried using: 'pyarrow'.\nMore lines.")

    monkeypatch.setattr(pd, "read_parquet", without)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and more")
    line = refused_early("rank", "--pairs", tmp_path / "a.parquet", "--out", tmp_path / "out")
    assert line.endswith(
        "a.parquet is a Parquet file; expected pyarrow, which reads it. pip install pyarrow"
    )


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.xlsx", "is a spreadsheet"), ("a.zip", "is a zip archive"),
        ("a.csv.gz", "is compressed by gzip"), ("a.feather", "is a Feather (Arrow) file"),
    ],
)  # fmt: skip
def test_another_binary_file_is_called_what_it_is(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / name
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(b"with,without,question,region"))
    elif name.endswith("feather"):
        path.write_bytes(b"ARROW1\0\0\xff\xff")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("content", "text")
    line = refused_early("rank", "--pairs", path, "--out", tmp_path / "out")
    assert f"--pairs: {path} {what}; expected a table as CSV, JSON lines or Parquet" in line


BAD: dict[str, tuple[Any, str]] = {
    "a number": (3, "pairs: a int; expected rows"),
    "a dict": ({"with": ["a.png"]}, "pairs: a dict; expected rows"),
    "no row": ([], "--pairs: no row"),
    "no dict": (["a.png"], "--pairs, row 1: a str; expected a dict"),
    "no column": ([{"with": "a.png"}], "--pairs, row 1: no column question, without ("),
    "no picture": ([{"with": None}], "--pairs, row 1: an empty with"),
    "a gap": ([{"with": float("nan")}], "--pairs, row 1: an empty with"),
    "no box": ([{"region": [1, 2, 30, 40]}], "--pairs, row 1, region: 1,2,30,40: a list"),
    "no answer": ([{"answers": ["a", None]}], "row 1, answers: '[\"a\", \"\"]'; expected two"),
    "floats": ([{"with": np.zeros((8, 8, 3))}], "row 1, with: an array of float64 [8, 8, 3]"),
    "channels first": (
        [{"with": np.zeros((3, 8, 8), np.uint8)}],
        "an array of uint8 [3, 8, 8]; expected an array of uint8 [height, width, 3]",
    ),
    "no bytes": ([{"with": {"bytes": None, "path": None}}], "with: neither bytes nor a path"),
    "no such file": ([{"with": "z.png"}], "z.png; expected a picture file. Paths are relative"),
    "an object": ([{"with": object()}], "row 1, with: a object; expected a picture: a path"),
    "one twice": ([{"without": pictures(0)[0]}], "--pairs, row 1: one picture twice"),
    "a row twice": ([{}, {}], "row 2: the same pair as row 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_by_their_number(case: str) -> None:
    given, said = BAD[case]
    if isinstance(given, list) and case not in ("no dict", "no column"):
        given = [rows_of(FORMS["Pillow"])[0] | one for one in given]
    assert said in refusal(Manifest.of, given)


def test_stored_pictures_last_as_long_as_their_pairs() -> None:
    entries = Manifest.of(rows_of(FORMS["bytes"])).entries
    folder = entries[0].with_path.parent
    last = entries[2:]
    del entries
    assert last[0].pair().name == "0003"
    del last
    assert not folder.exists()


def test_rows_are_opened_as_a_folder_is(tmp_path: Path) -> None:
    vlm, rows = planted().vlm, rows_of(FORMS["Pillow"])
    opened = hp.open_pairs(None, rows, vlm=vlm)
    assert opened.gate["passed"].tolist() == [True] * 3
    assert opened.gate["line"].tolist() == [1, 2, 3]
    assert opened.study.pairs.manifest == str(Manifest.of(rows).path)
    for index, one in enumerate(rows):
        for name in ("with", "without"):
            one[name].save(tmp_path / f"{index}-{name}.png")
            one[name] = f"{index}-{name}.png"
        one["note"] = "" if one["note"] is None else 3
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = hp.open_pairs(None, tmp_path, vlm=vlm)
    pd.testing.assert_frame_equal(folder.gate, opened.gate)
    assert folder.study.pairs.manifest == str(tmp_path / "metadata.jsonl")
    with pytest.raises(InputError, match="1; expected at least 2 pairs"):
        hp.open_pairs(None, opened.entries, vlm=vlm, limit=1)


def test_what_was_in_memory_cannot_be_run_again_from_its_record(tmp_path: Path) -> None:
    """Its hash says what it was; the same rows give the same hash."""
    study = Study().override({"pairs.manifest": str(Manifest.of(rows_of(FORMS["array"])).path)})
    (tmp_path / "study.yaml").write_text(study.to_yaml())
    line = refused_early("rank", "--config", tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert "memory:sha256:" in line and "was a table in memory; expected a file of pairs" in line
    assert "headpatch.open_pairs" in line


@pytest.mark.parametrize("form", FORMS)
def test_a_pair_is_made_of_whatever_holds_its_pictures(form: str, tmp_path: Path) -> None:
    present, absent = pictures(0)
    pair = hp.make_pair(FORMS[form](present), FORMS[form](absent), QUESTION, REGION)
    assert np.array_equal(np.asarray(pair.with_image), np.asarray(present))
    assert pair.name == ("p-p" if form == "Hugging Face" else "pair")
    present.save(tmp_path / "a.png")
    one_file = hp.make_pair(str(tmp_path / "a.png"), FORMS[form](absent), QUESTION, REGION, "two")
    assert (one_file.name, one_file.without_image.size) == ("two", present.size)


def test_what_is_no_picture_is_refused_in_a_pair() -> None:
    present, absent = pictures(0)
    with pytest.raises(InputError, match="--with: a dict; expected a picture: a path"):
        hp.make_pair({"bytes": None}, absent, QUESTION, REGION)
    with pytest.raises(InputError, match="a picture in memory cannot be read"):
        hp.make_pair(present, file_bytes(absent)[:60], QUESTION, REGION)
    with pytest.raises(InputError, match="in memory and a picture in memory show the same"):
        hp.make_pair(present, present.copy(), QUESTION, REGION)
    assert present.getpixel((0, 0)) == (0, 0, 0)  # it is left open, and as it was


def test_a_folder_as_the_hub_has_it_stands_for_its_one_parquet_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = rows_of(FORMS["Hugging Face"])
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    pd.DataFrame(rows).to_parquet(path)
    found = Manifest.read(tmp_path)
    assert found.path == path
    assert len(found.entries) == len(rows)
    answered = [{"image": one["with"], "question": "Is it red?", "answer": "Yes"} for one in rows]
    pd.DataFrame(answered).to_parquet(path)
    assert len(read_rows(str(tmp_path), ("Yes", "No")).entries) == len(rows)
    path.with_name("test-00000-of-00001.parquet").write_bytes(path.read_bytes())
    for read in (Manifest.read, lambda one: read_rows(str(one), ("Yes", "No"))):
        with pytest.raises(InputError, match="holds no table"):
            read(tmp_path)


def test_the_parts_of_a_parquet_file_are_one_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = rows_of(FORMS["Hugging Face"])
    first, second = (tmp_path / "data" / f"train-0000{n}-of-00002.parquet" for n in range(2))
    first.parent.mkdir()
    pd.DataFrame(rows[:1]).to_parquet(first)
    with pytest.raises(InputError, match="in 2 parts, and train-00001-of-00002"):
        Manifest.read(tmp_path)
    pd.DataFrame(rows[1:]).to_parquet(second)
    found = Manifest.read(tmp_path)
    assert [one.name for one in found.entries] == [one.name for one in Manifest.of(rows).entries]
    assert len(Manifest.read(found.path).entries) == len(rows)  # as its path is kept
    assert len(Manifest.read(second).entries) == len(rows) - 1


def test_a_dataset_that_was_saved_to_disk_is_a_table(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = rows_of(FORMS["Hugging Face"])
    table = datasets.Dataset.from_list(rows)
    datasets.DatasetDict(train=table).save_to_disk(tmp_path, num_shards={"train": 2})
    found = Manifest.read(tmp_path)
    assert len(found.entries) == len(rows)
    assert all(one.pair().question for one in found.entries)
    table.select([1, 0]).save_to_disk(tmp_path / "chosen")
    if not (tmp_path / "chosen" / "state.json").read_text().count("indices-"):
        return  # datasets has written the rows in order
    with pytest.raises(InputError, match="a choice of rows"):
        Manifest.read(tmp_path / "chosen")

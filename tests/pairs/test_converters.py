"""Published data sets as tables: each layout in miniature, what becomes of every row, and why."""

import csv
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import headpatch as hp
from headpatch.pairs.converters import CONVERTERS
from headpatch.pairs.manifest import Manifest
from tests.command import done, refused_early
from tests.datasets import lasting_folder
from tests.pairs import miniatures
from tests.pairs.miniatures import MINIATURES

PAGE = Path(__file__).parents[2] / "docs/data-sets.md"
SIZES = {"naturalbench"}  # pictures of a pair differ in size


@cache
def miniature(name: str) -> Path:
    """A data set in miniature, made once; tests leave it as it is."""
    folder = lasting_folder() / "data"
    MINIATURES[name](folder)
    return folder


def converted(name: str, root: Path, data: Path | None = None, **more: Any) -> hp.Converted:
    pytest.importorskip("pyarrow")
    data = data or miniature(name)
    images = [one for one in (data / "coco_aug", data / "val2014") if one.is_dir()]
    return hp.convert_pairs(name, data, root / "out", images=images, **more)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def files(folder: Path) -> dict[str, bytes]:
    below = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in below}


def test_every_data_set_has_a_miniature() -> None:
    assert list(MINIATURES) == list(CONVERTERS)


@pytest.mark.parametrize("name", CONVERTERS)
def test_the_table_of_rows_accepted_and_refused_is_that_of_the_documentation(
    name: str, tmp_path: Path
) -> None:
    """Every row of the miniature is counted once: as a pair, or with its reason."""
    found = converted(name, tmp_path)
    said = "; ".join(f"{count} {reason}" for reason, count in found.skipped.items()) or "none"
    line = f"| `{name}` | {found.count} | {said} |"
    print(line)
    assert line in PAGE.read_text("utf-8")
    assert len(rows(found.table)) == found.count
    skipped = rows(tmp_path / "out/skipped.csv")
    assert len(skipped) == sum(found.skipped.values())
    assert {one["reason"] for one in skipped} == set(found.skipped)


@pytest.mark.parametrize("name", CONVERTERS)
def test_both_tables_name_pictures_that_are_there_and_questions_that_flip(
    name: str, tmp_path: Path
) -> None:
    found = converted(name, tmp_path)
    pairs, out = rows(found.table), tmp_path / "out"
    assert len({row["name"] for row in pairs}) == len(pairs)
    for row in pairs:
        with Image.open(out / row["with"]) as one, Image.open(out / row["without"]) as other:
            assert one.size == other.size or name in SIZES
        first, second = row["answers"].split(",")
        assert first != second
        if row["with"] == row["without"]:
            assert row["question"] != row["question_without"]
    singles = rows(converted(name, tmp_path, sort="rows").table)
    asked = {(row["image"], row["question"]): row["answer"] for row in singles}
    for row in pairs:  # a pair is two of the rows
        for run, answer in zip(("with", "without"), row["answers"].split(","), strict=True):
            other = row.get("question_without", "") if run == "without" else ""
            assert asked[row[run], other or row["question"]] == answer
    assert all(row["answer"] in row["answers"].split(",") for row in singles)


@pytest.mark.parametrize("name", ["popev2", "merlim"])
def test_pairs_with_a_region_are_read_as_any_others(name: str, tmp_path: Path) -> None:
    found = converted(name, tmp_path)
    for entry in Manifest.read(found.table).entries:
        assert entry.pair().region.box != (0, 0, 1, 1)
        assert entry.scene


def test_boxes_of_objects_of_a_kind_are_put_together_and_cut_at_the_edge(tmp_path: Path) -> None:
    """Two hot dogs: (0, 0, 32.5, 24) and (30, 10, 20, 20), x, y, width, height of 64 × 48."""
    one, both = rows(converted("popev2", tmp_path).table)
    assert one["region"] == "0.0625,0.0833333,0.25,0.291667"  # 4, 4, 16, 14
    assert both["region"] == "0,0,0.78125,0.625"  # 0, 0, 50, 30
    assert both["target_object"] == "hot dog"


def test_a_right_answer_may_be_no_with_the_object(tmp_path: Path) -> None:
    """MERLIM's question_neg: its answers are the other way round."""
    by_name = {row["name"]: row for row in rows(converted("merlim", tmp_path).table)}
    assert by_name["2"]["answers"] == "Yes,No" and by_name["2-neg"]["answers"] == "No,Yes"
    assert by_name["2"]["with"] == by_name["2-neg"]["with"]
    edited = (tmp_path / "out" / by_name["2"]["without"]).read_bytes()
    assert edited == miniatures.drawn(285)[1]  # as the Parquet file holds it


def test_merlim_as_its_authors_have_it_needs_no_copies(tmp_path: Path) -> None:
    """Both pictures lie in ``coco_aug/``."""
    pytest.importorskip("pyarrow")
    miniatures.merlim(tmp_path / "data")
    miniatures.put(tmp_path / "data/coco_aug/139_1.jpg", miniatures.drawn(139)[1])
    first = rows(converted("merlim", tmp_path, tmp_path / "data").table)[0]
    assert first["without"].endswith("coco_aug/139_1.jpg")


def test_questions_about_one_picture_are_paired_by_their_number_of_words(tmp_path: Path) -> None:
    """Each Yes takes the nearest No in words, the first of equals; the same each time."""
    found = converted("pope", tmp_path)
    asked = {row["name"]: (row["question"], row["question_without"]) for row in rows(found.table)}
    assert [[re.sub(r"Is there a | in the image\?", "", one) for one in asked[f"coco-random-{n}"]]
            for n in (0, 1, 2)] == [["dining table", "hot dog"], ["cat", "tv"],
                                    ["bottle", "zebra"]]  # fmt: skip
    (pair,) = rows(converted("vsr", tmp_path / "vsr").table)
    assert pair["question_without"].endswith("The person is in front of the teddy bear.")


def test_pope_takes_boxes_where_there_are_some_and_parquet_stores_a_picture_once(
    tmp_path: Path,
) -> None:
    file = miniature("pope") / "instances_val2014.json"
    found = converted("pope", tmp_path)
    assert "region" not in rows(found.table)[0]
    found.table.unlink()
    with_boxes = rows(converted("pope", tmp_path, instances=file).table)
    assert {row["question"]: row["region"] for row in with_boxes if row["region"]} == {
        "Is there a cat in the image?": "0.125,0.125,0.375,0.375"
    }
    miniatures.pope_stored(tmp_path / "mirror")
    found = hp.convert_pairs("pope", tmp_path / "mirror", tmp_path / "stored")
    assert found.count == 3 and found.factors == ("category",)
    assert len(list((tmp_path / "stored").glob("*.jpg"))) == 1


def test_options_in_another_order_are_matched_by_their_text(tmp_path: Path) -> None:
    """MMVP's glue stick: (b) of the second row is (a) as the first row asks."""
    second = rows(converted("mmvp", tmp_path).table)[1]
    assert second["question"].endswith("(a) Open (b) Closed Answer with the letter alone.")
    assert second["answers"] == "b,a"


def test_naturalbench_keeps_its_groups_for_single_pictures(tmp_path: Path) -> None:
    """Two questions × two pictures a group, as its scores need."""
    singles = rows(converted("naturalbench", tmp_path, sort="rows").table)
    first = [row for row in singles if row["group"] == "0"]
    assert len(first) == 4 and len({row["image"] for row in first}) == 2
    assert len({row["question"] for row in first}) == 2
    assert "group" not in rows(converted("naturalbench", tmp_path).table)[0]  # no factor


def test_the_command_says_what_was_skipped_and_the_same_comes_again(tmp_path: Path) -> None:
    data = miniature("whatsup")
    words = ("pairs", "--from", "whatsup", data, "--out", tmp_path / "out")
    said = done(*words).out
    assert "accepted, as pairs" in said and "no picture of the opposite relation" in said
    assert "Wrote 6 pairs to" in said and "skipped.csv" in said
    before = files(tmp_path / "out")
    found = done(*words, "--json").json
    assert files(tmp_path / "out") == before
    assert found["pairs"] == 6 and sum(found["skipped"].values()) == 2
    assert found["factors"] == ["part", "relation"]
    assert done(*words, "--as", "rows", "--json").json["rows"] == 12
    assert (tmp_path / "out/manifest.csv").is_file()


BAD = {
    "--from whatsup": ["FOLDER", "none"],
    "--from whatsup nowhere": ["FOLDER", "no such folder"],
    "--from nothing data": ["--from", "'nothing'", "popev2"],
    "--from whatsup data --as tables": ["--as", "'tables'", "rows"],
    "--from whatsup data --n 3": ["--from, --n", "both"],
    "--from whatsup empty": ["FOLDER", "controlled_images_dataset.json"],
    "--from popev2 empty": ["FOLDER", "annotations.json"],
    "--from merlim empty": ["FOLDER", "parquet"],
    "--from naturalbench empty": ["FOLDER", "train-00000-of-00001.parquet"],
    "--from mmvp empty": ["FOLDER", "Questions.csv"],
    "--from pope empty": ["FOLDER", "coco_pope_random.json"],
    "--from vsr empty": ["FOLDER", "test.jsonl"],
    "--from coco-counterfactuals empty": ["FOLDER", "examples.jsonl"],
    "--from popev2 pope2": ["--instances", "instances_train2017.json", "cocodataset.org"],
    "--from popev2 pope2 --instances pope2/annotations.json": ["--instances", "something else"],
    "--from whatsup broken": ["FOLDER", "is not JSON"],
    "--from mmvp columns": ["FOLDER", "lacks Options", "Correct Answer"],
    "--from naturalbench broken": ["FOLDER", "cannot be read"],
    "--from vsr broken": ["FOLDER", "line 1 is not JSON"],
    "--from whatsup lone": ["--from", "none of 1 rows", "no picture of the opposite relation"],
    "--from whatsup data --out taken": ["--out", "another --out"],
    "data": ["FOLDER", "--from as well"],
    "--as rows": ["--as", "--from as well"],
}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that hold no such data set, or a damaged one."""
    tmp_path = tmp_path_factory.mktemp("spoilt")
    miniatures.whatsup(tmp_path / "data")
    miniatures.popev2(tmp_path / "pope2")
    (tmp_path / "pope2/instances_train2017.json").unlink()
    (tmp_path / "empty").mkdir()
    for name, text in {
        "broken/controlled_images_dataset.json": "[{",
        "columns/Questions.csv": "Index,Question\n1,a",
        "broken/train-0.parquet": "PAR1 no", "broken/test.jsonl": "{no",
        "lone/controlled_images_dataset.json":
            '[{"image_path": "a_on_b.jpeg", "caption_options": ["A a on a b"]}]',
        "taken/manifest.csv": "name\n",
    }.items():  # fmt: skip
        miniatures.put(tmp_path / name, text.encode())
    return tmp_path


@pytest.mark.parametrize("line", BAD)
def test_what_is_missing_or_of_another_layout_is_one_line(
    spoilt: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(spoilt)
    before = files(spoilt)
    out = [] if "--out" in line else ["--out", "new"]
    message = refused_early("pairs", *line.split(), *out)
    assert all(part in message for part in BAD[line]), message
    assert files(spoilt) == before


def test_a_name_that_leaves_the_folder_is_not_followed(tmp_path: Path) -> None:
    miniatures.whatsup(tmp_path / "data")
    file = tmp_path / "data/controlled_images_dataset.json"
    file.write_text(file.read_text("utf-8").replace("data/controlled_images/mug_on", "../mug_on"))
    found = hp.convert_pairs("whatsup", tmp_path / "data", tmp_path / "out")
    assert found.skipped["a picture's name leaves the folder"] == 2

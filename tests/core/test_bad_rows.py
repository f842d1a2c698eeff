"""Rows that cannot be run are named in ``gate.csv``, and the others run as if they were alone."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import headpatch as hp
from headpatch.core.gate_view import gate
from headpatch.present.parts import Grid, Words
from tests.datasets import planted_pairs, write_table
from tests.families.builders import build
from tests.planted import planted, planted_image
from tests.refusals import refusal
from tests.tiny import QUESTION, image_pair

BAD = {
    "gone": ({"with": "z.png"}, "with: there is no file"),
    "damaged": ({"with": "cut.png"}, "with: "),
    "no place": ({"region": "up"}, "region: 'up'; expected one of"),
    "tiny place": ({"region": "0,0,0.01,0.01"}, "region: 0,0,0.01,0.01 holds no patch centre"),
    "other grid": ({"with": "wide.png"}, "with, without: the two pictures are cut up differently"),
    "image elsewhere": ({"question": "<image>"}, "question: "),
    "many tokens": ({"answers": "Perhaps so,No"}, "answers: 'Perhaps so' is not one token"),
    "one answer": ({"answers": "Yes"}, "answers: 'Yes'; expected two different texts"),
}


def tables(folder: Path) -> tuple[Path, Path]:
    """The planted pairs with bad rows among them, and without."""
    (folder / "fine").mkdir()
    fine = planted_pairs(folder / "fine")
    with fine.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for path in (folder / "fine").glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    wide = Image.new("RGB", (112, 56))
    wide.paste(planted_image(True), (0, 0))
    wide.save(folder / "wide.png")
    more = {"question_without": "", "answers": ""}
    mixed = []
    for index, (name, (cells, _)) in enumerate(BAD.items()):
        base = rows[index % len(rows)] | more | {"name": name, "scene": f"bad {name}"}
        mixed.append(base | cells)
        if index < len(rows):
            mixed.append(rows[index] | more)
    return write_table(folder, mixed), fine


def test_bad_rows_are_named_and_the_others_run(tmp_path: Path) -> None:
    mixed, fine = tables(tmp_path)
    vlm = planted().vlm
    opened, alone = (
        hp.open_pairs(None, path, vlm=vlm, positions="answer", on_progress=False)
        for path in (mixed, fine)
    )
    reasons = opened.gate.set_index("pair")["reason"].to_dict()
    for name, (_, start) in BAD.items():
        assert reasons[name].startswith(start), name
    assert [one.name for one in opened.entries] == [one.name for one in alone.entries]
    assert opened.gate["ld_with"].isna().sum() == len(BAD)
    words = opened.summary
    assert "4 of 12 pairs pass" in words and "8 of them cannot be run" in words
    assert "wrong sign" not in words
    listed = [part for part in gate(opened.survey.gate_columns(), 1.0) if isinstance(part, Grid)]
    assert all(name in str(listed[0].rows) for name in BAD)
    assert any(isinstance(part, Words) for part in gate(opened.survey.gate_columns(), 1.0))
    first, second = (hp.rank(one).heads for one in (opened, alone))
    pd.testing.assert_frame_equal(first, second)
    swept = [hp.sweep(one, kinds=["resample"], on_progress=False).means for one in (opened, alone)]
    pd.testing.assert_frame_equal(*swept)


def test_a_refused_row_is_the_same_in_every_shard_and_when_gone_on_from(tmp_path: Path) -> None:
    mixed, _ = tables(tmp_path)
    vlm, keep = planted().vlm, tmp_path / "kept"
    whole = hp.open_pairs(None, mixed, vlm=vlm, on_progress=False)
    for shard in ("1/2", "2/2"):
        part = hp.open_pairs(None, mixed, vlm=vlm, keep=keep, shard=shard, on_progress=False)
        pd.testing.assert_frame_equal(part.gate, whole.gate)
    gathered = hp.open_pairs(None, mixed, vlm=vlm, keep=keep, on_progress=False)
    pd.testing.assert_frame_equal(gathered.gate, whole.gate)
    for name, values in whole.survey.masses.items():
        np.testing.assert_array_equal(gathered.survey.masses[name], values)


def test_a_table_without_a_row_that_can_be_run_says_why(tmp_path: Path) -> None:
    mixed, _ = tables(tmp_path)
    header, *lines = mixed.read_text().splitlines()
    wide = [line for line in lines if line.startswith(("other grid", "image elsewhere"))]
    mixed.write_text("\n".join([header, *wide]) + "\n")
    line = refusal(hp.open_pairs, None, mixed, vlm=planted().vlm, on_progress=False, of="--pairs")
    assert "none of 2 pairs can be run (line 2: with, without: the two pictures" in line
    assert "line 3: question: " in line
    few = [line for line in lines if line.startswith(("gone", "p0"))]
    mixed.write_text("\n".join([header, *few]) + "\n")
    with pytest.raises(hp.InputError, match="1; expected at least 2 pairs"):
        hp.open_pairs(None, mixed, vlm=planted().vlm, on_progress=False)


def test_a_picture_that_the_processor_refuses_is_a_bad_row(tmp_path: Path) -> None:
    """Qwen2-VL's own takes no picture that is 200 times as wide as high."""
    vlm, rows = build("qwen2_vl"), []
    for index in range(3):
        shape = (1, 300) if index == 1 else (84, 56)
        for run, image in zip(("with", "without"), image_pair(shape), strict=True):
            image.save(tmp_path / f"{index}-{run}.png")
        cells = {run: f"{index}-{run}.png" for run in ("with", "without")}
        rows.append({"name": f"p{index}", **cells, "question": QUESTION, "region": "image",
                     "scene": f"s{index}"})  # fmt: skip
    forced = hp.Study(force=True)
    opened = hp.open_pairs(forced, write_table(tmp_path, rows), vlm=vlm, on_progress=False)
    reason = opened.gate["reason"][1]
    assert reason.startswith("with, without: the processor refuses a picture of 1x300 pixels")
    assert [one.name for one in opened.entries] == ["p0", "p2"]
    listed = [{"image": str(tmp_path / row["with"]), "question": QUESTION, "answer": "Yes"}
              for row in rows]  # fmt: skip
    asked = hp.evaluate(listed, "0.0", vlm=vlm, controls=0, on_progress=False)
    assert asked.refused["row"].tolist() == ["0002"] and len(asked.rows)
    assert "refuses a picture of 1x300 pixels" in asked.refused["reason"][0]
    pair = hp.make_pair(tmp_path / "1-with.png", tmp_path / "1-without.png", QUESTION)
    refusal(hp.open_session, hp.Study(), vlm, None, pair, of="--with, --without")

"""`headpatch report`, from the command line to its file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from headpatch.core.output.records import WRITTEN, digest
from headpatch.core.study.record import Record
from tests.command import contents, done, refused
from tests.report import made


def test_prints_the_path_and_the_size(tmp_path: Path) -> None:
    made.rank(tmp_path)
    said = done("report", tmp_path)
    size = (tmp_path / "report.html").stat().st_size
    assert said.out == f"Wrote {tmp_path / 'report.html'} ({size / 1e6:.1f} MB, 6 sections)\n"


def test_json_and_another_place(tmp_path: Path) -> None:
    made.rank(tmp_path / "run")
    made.cut(tmp_path / "run/cut")
    made.run_yaml(tmp_path / "run/cut", weights="other")
    out = tmp_path / "pages/mine.html"
    found = json.loads(done("report", tmp_path / "run", "--out", out, "--json").out)
    assert found["file"] == str(out)
    assert found["bytes"] == out.stat().st_size < 6e6
    assert found["sections"][0] == "first"
    assert found["folders"] == [str(tmp_path / "run")]
    assert list(found["left_out"]) == ["cut"]
    assert found["valid"] is True
    assert not (tmp_path / "run/report.html").exists()


def test_a_second_report_takes_the_place_of_the_first(tmp_path: Path) -> None:
    made.rank(tmp_path)
    done("report", tmp_path)
    made.cut(tmp_path / "cut")
    assert "7 sections" in done("report", tmp_path).out


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damage


DAMAGED = {
    "run.yaml, not YAML": rewrite("run.yaml", lambda _: b"study: [unclosed"),
    "run.yaml, half of it": rewrite("run.yaml", lambda _: b"study: {}\n"),
    "heads.csv, a column less": rewrite("heads.csv", lambda text: text.replace(b"diff", b"x", 1)),
    "heads.csv, a word for a number": rewrite(
        "heads.csv",
        lambda text: text.replace(b"\n1,", b"\n1,what?,", 1).replace(b"\n2,", b"\n2,1,"),
    ),
    "heads.csv, rows missing": rewrite(
        "heads.csv", lambda text: b"\n".join(text.splitlines()[:9]) + b"\n"
    ),
    "heads.csv, empty": rewrite("heads.csv", lambda _: b""),
    "attention_with_triangle.pt, cut off": rewrite(
        "attention_with_triangle.pt", lambda data: data[: len(data) // 2]
    ),
    "attention_without_triangle.pt, empty": rewrite("attention_without_triangle.pt", lambda _: b""),
    "spatial_vision_analysis.pt, text": rewrite("spatial_vision_analysis.pt", lambda _: b"hello"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_named(tmp_path: Path, what: str) -> None:
    made.rank(tmp_path)
    DAMAGED[what](tmp_path)
    before = contents(tmp_path)
    line = refused("report", tmp_path)
    assert line.startswith(f"{tmp_path / what.partition(',')[0]}: it cannot be read (")
    assert "Run the verb that wrote it again" in line
    assert contents(tmp_path) == before


def sign(folder: Path, verb: str) -> None:
    """Give a record its verb and the checksums of the files beside it."""
    path = folder / "run.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [name for name in WRITTEN[verb] if (folder / name).is_file()]
    run = {**content["run"], "verb": verb, "files": {name: digest(folder / name) for name in names}}
    signed = Record(verb, content["study"], run).signed().content
    path.write_text(yaml.safe_dump(signed, sort_keys=False), encoding="utf-8")


TOGETHER = {
    "faithfulness.csv, the end missing": lambda text: text[: text.index(b"attention,remove")],
    "faithfulness.csv, no number of pairs": lambda text: text.replace(b",30\n", b",\n", 1),
    "verdicts.csv, rows missing": lambda text: text[: text.rindex(b"\n", 0, -2) + 1],
    "run.yaml, a word for a number": lambda text: text.replace(b"    top: 20", b"    top: x"),
}


@pytest.mark.parametrize("what", TOGETHER)
def test_of_files_that_are_read_together_the_changed_one_is_named(
    tmp_path: Path, what: str
) -> None:
    made.verdict(tmp_path)
    sign(tmp_path, "verdict")
    done("report", tmp_path)
    name = what.partition(",")[0]
    rewrite(name, TOGETHER[what])(tmp_path)
    line = refused("report", tmp_path)
    assert line.startswith(f"{tmp_path / name}: it cannot be read (")


def test_no_folder(tmp_path: Path) -> None:
    line = refused("report", tmp_path / "none")
    assert line == (
        f"DIR: {tmp_path / 'none'}: no such folder; expected a folder with results. "
        f"`headpatch rank --out {tmp_path / 'none'}` makes one."
    )
    (tmp_path / "file").write_text("x")
    assert "file: a file; expected a folder" in refused("report", tmp_path / "file")


def test_no_results(tmp_path: Path) -> None:
    assert f"{tmp_path} holds no results" in refused("report", tmp_path)
    made.run_yaml(tmp_path)
    assert f"{tmp_path} holds no results" in refused("report", tmp_path)
    (tmp_path / "run.yaml").unlink()
    (tmp_path / "cuts.csv").write_text("edge\n")
    assert "cuts.csv without the run.yaml of its run" in refused("report", tmp_path)


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    made.rank(tmp_path)
    (tmp_path / "pages").mkdir()
    assert "is a folder; expected a file to write" in refused(
        "report", tmp_path, "--out", tmp_path / "pages"
    )
    (tmp_path / "taken").write_text("x")
    line = refused("report", tmp_path, "--out", tmp_path / "taken/report.html")
    assert line.startswith("--out: ")


def test_without_a_folder() -> None:
    assert "Missing argument 'DIR'" in refused("report")

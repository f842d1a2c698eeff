"""What reaches a terminal or a script: users' words as words, figures whole, streams that end."""

import io
import json
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pandas
import pytest
from PIL import Image
from rich.text import Text

from headpatch.cli import main
from headpatch.cli.show import Terminal, plain, print_object, records, show
from headpatch.errors import InputError
from headpatch.pairs import pair
from headpatch.present.parts import Grid
from headpatch.present.tables import answers, plain_table, renderables
from tests.command import done, headpatch, refused_early

ESCAPE = "\x1b[31mred\x1b[0m [bold]x[/bold] \x9b\u202e"
SPELLED = r"\x1b[31mred\x1b[0m [bold]x[/bold] \x9b\u202e"


def shown(*parts: object) -> str:
    with redirect_stdout(io.StringIO()) as out:
        show(Terminal(), *parts)  # type: ignore[arg-type]
    return out.getvalue()


def test_a_users_words_are_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    table = plain_table("name", "answer", "end", title=ESCAPE, wrapped=["answer"])
    table.add_row(ESCAPE, Text(ESCAPE), "end")
    run = {"ld": 1.0, "p_yes": 0.9, "p_no": 0.05, "rank_yes": 1, "rank_no": 2}
    run |= {"top": ESCAPE, "p_top": 0.9, "variants": {}}
    for part in (table, ESCAPE, Text(ESCAPE), answers(ESCAPE, ("Yes", "No"), [run, run])):
        text = shown(part)
        assert SPELLED in text
        assert not any((ord(letter) < 32 and letter != "\n") or letter == "\x9b" for letter in text)
    *_, row = (line for line in shown(table).splitlines() if line.rstrip().endswith("end"))
    assert row.count(SPELLED) == 2  # columns are as wide as what is spelled out


def test_an_error_spells_out_what_would_act() -> None:
    for words in (["rank", "--config", "\x1b]0;x\x07"], ["rank", f"--{ESCAPE}"], [ESCAPE]):
        said = headpatch(*words)
        assert said.code == 2
        assert "\x1b" not in said.err
        assert r"\x1b" in said.err


def test_json_holds_what_acts_escaped() -> None:
    content = {"question": ESCAPE + "\u2028\ud800ü", "x": float("nan")}
    with redirect_stdout(io.StringIO()) as out:
        print_object(content)
    assert "\x9b" not in out.getvalue() and "ü" in out.getvalue()
    assert json.loads(out.getvalue()) == {"question": content["question"], "x": None}
    bytes_ = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(bytes_, encoding="ascii")) as ascii_:
        print_object(content)
        ascii_.flush()
    assert json.loads(bytes_.getvalue()) == {"question": content["question"], "x": None}


def test_rows_for_scripts_are_whole() -> None:
    q, small = 3.14159265358979e-12, 1.2345678e-08
    table = pandas.DataFrame(
        {"q": [q, float("nan")], "e": [small, float("inf")], "n": [3, 4], "ok": [True, False]}
    ).assign(heads=["24.10", None], kind=pandas.Series(["a", pandas.NA], dtype="string"))
    assert plain(records(table)) == [
        {"q": q, "e": small, "n": 3, "ok": True, "heads": "24.10", "kind": "a"},
        {"q": None, "e": None, "n": 4, "ok": False, "heads": None, "kind": None},
    ]
    json.dumps(plain(records(table)), allow_nan=False)


def test_a_stdout_of_ascii_gets_what_it_can_spell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_ = io.BytesIO()
    words = ["pairs", "--n", "1", "--size", "32", "--wording", "Ist da ü {at}?"]
    monkeypatch.setattr(sys, "argv", ["headpatch", *words, "--out", str(tmp_path / "o")])
    terminate = signal.getsignal(signal.SIGTERM)
    ascii_ = io.TextIOWrapper(bytes_, encoding="ascii")
    with redirect_stdout(ascii_), pytest.raises(SystemExit, match="0"):
        main()
    ascii_.flush()
    signal.signal(signal.SIGTERM, terminate)
    assert b"Ist da ? {at}?" in bytes_.getvalue()


STREAMS = {
    "{hp} rank --nonsense 2>&-": (2, 0),
    "{hp} rank --nonsense >&- 2>&-": (2, 0),
    "{hp} rank --nonsense >&-": (2, 1),
    "{hp} rank --help | true; exit ${{PIPESTATUS[0]}}": (1, 0),
}


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess:
    """Run a line of bash that names headpatch as ``{hp}``, in a process of its own."""
    command = ["bash", "-c", line.format(hp=f"{sys.executable} -m headpatch")]
    env = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin", **more}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("line", STREAMS)
def test_streams_that_are_closed_or_not_read(tmp_path: Path, line: str) -> None:
    """The exit code says what happened, and nobody complains of the stream."""
    ended = shell(line, tmp_path)
    code, lines = STREAMS[line]
    assert (ended.returncode, len(ended.stderr.splitlines())) == (code, lines), ended.stderr
    assert ended.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [("--version", ""), ("rank --help", "1"), ("pairs --n 1 --out o --json", "")],
)
def test_a_full_disk_behind_stdout_is_named(tmp_path: Path, words: str, unbuffered: str) -> None:
    """What is done stays done."""
    ended = shell(f"{{hp}} {words} > /dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert line.startswith("headpatch: stdout: cannot be written (No space left on device); ")
    assert (tmp_path / "o/manifest.csv").is_file() == ("--out" in words)


def test_python_without_docstrings_is_refused_for_what_it_is() -> None:
    """transformers reads them; here before it is imported."""
    command = [sys.executable, "-OO", "-c", "import headpatch.models"]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines()[-1].endswith(
        "python -OO: it drops docstrings, which transformers reads; expected python -O"
    )


def test_a_large_picture_is_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(pair.Image, "MAX_IMAGE_PIXELS", 2000)
    assert pair.read_image(tmp_path / "a.png", "--with").size == (60, 50)
    assert not recwarn.list
    monkeypatch.setattr(pair.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="too large a picture; expected at most 2,000 pixels"):
        pair.read_image(tmp_path / "a.png", "--with")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["verdict", "--delta", "０.５"], "'０.５'; expected a number"),
        (["verdict", "--delta", "nan"], "--delta: nan; expected a finite number"),
        (["rank", "--with", "a\0b", "--without", "b"], "null byte"),
        (["rank", "--config", "a\0b"], "null byte"),
        (["rank", "--answers", "Yes"], "--answers"),
        (["rank", "--answers", "Yes,No,Maybe"], "--answers"),
        (["report", "a\0b"], "null byte"),
    ],
)
def test_refused_before_a_model_loads(words: list[str], part: str) -> None:
    assert part in refused_early(*words)


def test_pairs_are_drawn_beside_the_study_that_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/s.yaml").write_text("draw: {folder: drawn, n: 1, size: 32}\n")
    monkeypatch.chdir(tmp_path)
    done("pairs", "--config", "sub/s.yaml", "--json")
    assert (tmp_path / "sub/drawn/manifest.csv").is_file()
    done("pairs", "--config", "sub/s.yaml", "--json", "--out", "here")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["here", "sub"]


def test_a_wide_table_is_cut_into_several_that_repeat_what_tells_rows_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headings = ("head", "kind", *(f"figure {number}" for number in range(9)))
    cells = tuple(f"{number}.{number}00" for number in range(9))
    rows = (("24.17", "zero", *cells), ("24.17", "mean", *cells))
    grid = Grid("Effects", headings, rows, (False, False, *[True] * 9))

    def printed() -> list[str]:
        return shown(*renderables([grid])).splitlines()

    monkeypatch.delenv("COLUMNS", raising=False)
    whole = printed()  # to a pipe: one line a row
    assert sum("24.17" in line for line in whole) == 2
    monkeypatch.setenv("COLUMNS", "44")
    narrow = printed()
    assert max(map(len, narrow)) <= 44
    assert {line.split()[0] for line in narrow if "zero" in line or "mean" in line} == {
        "24.17",  # in its first table
        "zero",  # what tells the rows apart, in the others
        "mean",
    }
    assert all(sum(f" {cell}" in line for line in narrow) == 2 for cell in cells)
    assert sum("Effects" in line for line in narrow) == 1

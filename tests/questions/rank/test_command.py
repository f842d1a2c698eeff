"""`headpatch rank`, end to end on the planted model (a valid study) and on the bundled one."""

import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from headpatch.core.output.files import read_tensors
from headpatch.models.load import DEMO
from headpatch.questions.rank import VERB
from tests.command import Said, contents, done, headpatch, of_pair, refused, table
from tests.planted import HEADS_PER_LAYER, LAYERS, LD_WITH, LD_WITHOUT

README = Path(__file__).parents[3] / "attention_data/README.md"
COLUMNS = [
    "rank", "layer", "head", "diff", "with", "without", "diff_raw", "with_raw", "without_raw",
    "compared_by",
]  # fmt: skip
TENSORS = [name for name in VERB.files if name.endswith(".pt")]


def flags(place: Path, out: Path) -> list[object]:
    return [*of_pair(place), "--out", out]


@pytest.fixture(scope="module")
def printed(place: Path) -> Said:
    """The one run that draws its figures; its files lie in `place / "out"`."""
    return done("rank", *flags(place, place / "out"), "--top", 5)


@pytest.fixture(scope="module")
def out(place: Path, printed: Said) -> Path:
    assert printed.code == 0
    return place / "out"


def test_all_files_and_nothing_else(place: Path, out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {*VERB.files, "run.yaml"} - {"gate.csv"}
    assert {path.name for path in place.iterdir()} == {"model", "out", "with.png", "without.png"}
    for name in out.glob("*.png"):
        with Image.open(name) as figure:
            assert min(figure.size) > 300


def documented(file: str) -> Iterator[tuple[str, str, str]]:
    """(key, shape, dtype) of each key that attention_data/README.md gives for a file."""
    sections = re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = (one for one in sections if f"`{file}`" in one.partition("\n")[0])
    tables = section.split("\n\n")
    (keys,) = (one for one in tables if one.startswith("| key | shape | dtype |"))
    for line in keys.splitlines()[2:]:
        names, shape, dtype = (cell.strip() for cell in line.strip("|").split("|")[:3])
        first, *others = re.findall(r"`([^`]+)`", names)
        yield first, shape, dtype
        for other in others:  # `a_with`, `_without` stands for a_without
            stem = first.partition("_with")[0] if other.startswith("_") else ""
            yield stem + other, shape, dtype


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_as_documented(out: Path, name: str) -> None:
    saved = torch.load(out / name, weights_only=True)
    sizes: dict[str, int] = {}
    own = "vision_boxes"  # absent here: the tower's patches are the image tokens
    promised = [one for one in documented(name) if one[0] != own]
    assert [key for key, _, _ in promised if key not in saved] == []
    assert set(saved) == {key for key, _, _ in promised}
    for key, shape, dtype in promised:
        values = [saved[key]]
        if isinstance(saved[key], dict):
            assert set(saved[key]) == {"kl", "js", "js_distance"}
            values = list(saved[key].values())
        for one in values:
            _check_shape(one, shape, sizes)
            if isinstance(one, torch.Tensor):
                assert str(one.dtype) == f"torch.{dtype}" or "see" in dtype, key
            elif isinstance(one, list):
                assert (dtype, {type(item) for item in one}) == ("list of str", {str})
            else:
                assert type(one).__name__ == dtype, key
    assert sizes.get("layers", LAYERS) == LAYERS
    assert sizes.get("heads", HEADS_PER_LAYER) == HEADS_PER_LAYER
    assert sizes.get("tokens", 16) == 16


def _check_shape(value: Any, shape: str, sizes: dict[str, int]) -> None:
    """Sizes of one name are one number throughout a file."""
    if not isinstance(value, torch.Tensor | list):
        assert shape in ("–", "numbers")
        return
    lengths = list(value.shape) if isinstance(value, torch.Tensor) else [len(value)]
    names = shape.removesuffix(" each").strip("[]").split(", ")
    assert len(names) == len(lengths), shape
    for length, size in zip(lengths, names, strict=True):
        assert length == (int(size) if size.isdigit() else sizes.setdefault(size, length))


def test_what_a_person_reads(out: Path, printed: Said) -> None:
    """The seed's table: every figure of the top heads, whole."""
    assert "…" not in printed.out and "INVALID" not in printed.out
    rows = table(out / "heads.csv")
    lines = [line.split() for line in printed.out.splitlines()]
    names = ("diff", "with", "without", "diff_raw", "with_raw", "without_raw")
    for row in rows[:5]:
        shown = [f"{float(row[name]):{'+' * ('diff' in name)}.4f}" for name in names]
        assert [row["rank"], row["layer"], row["head"], *shown] in lines
    assert not any(line[:3] == [rows[5][name] for name in ("rank", "layer", "head")]
                   for line in lines)  # fmt: skip
    for words in (
        f"{LD_WITH:+.3f}", f"{LD_WITHOUT:+.3f}", "Layers of the top 5 heads:", "top-left",
        "bottom-right", "KL (nats)", "JS (nats)", "JS distance", "layer", *os.listdir(out),
    ):  # fmt: skip
        assert words in printed.out


@pytest.mark.usefixtures("undrawn")
def test_a_template_that_holds_the_time_is_told_when_it_is_asked_again(
    place: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(place / "model", tmp_path / "model")
    chat = model / "chat_template.jinja"
    chat.write_text("{{ strftime_now('%f') }} " + chat.read_text())
    words = ["rank", *flags(place, tmp_path / "out"), "--model", model, "--json"]
    done(*words)
    asked = yaml.safe_load((tmp_path / "out/run.yaml").read_text())["run"]["prompt"]
    assert re.fullmatch(r"\d{6} USER: <image>\n.*\? ASSISTANT:", asked)
    chat.touch()  # so that it is loaded anew, as in a process of its own
    again = headpatch("rank", "--config", tmp_path / "out/run.yaml", "--out", tmp_path / "again")
    assert again.code == 0
    (line,) = again.err.splitlines()
    assert "the prompt is not that of the run that is run again" in line
    assert line.count("USER: <image>\\n{question} ASSISTANT:") == 2
    assert asked[:6] in line


def test_the_run_file_says_what_ran(place: Path, out: Path) -> None:
    content = yaml.safe_load((out / "run.yaml").read_text())
    assert set(content) == {"study", "run"}
    study, run = content["study"], content["run"]
    assert run["valid"] is True
    assert run["ld_with"] == pytest.approx(LD_WITH, abs=1e-4)
    assert run["prompt"] == f"USER: <image>\n{study['question']} ASSISTANT:"
    present, absent = (run["answer_probabilities"][name] for name in ("with", "without"))
    odds = math.exp(LD_WITH)  # nothing but Yes and No is likely
    assert present["p_yes"] == pytest.approx(odds / (1 + odds), abs=1e-4)
    assert present["p_no"] == pytest.approx(1 / (1 + odds), abs=1e-4)
    assert (present["rank_yes"], present["rank_no"], present["top"]) == (1, 2, " Yes")
    assert (absent["rank_yes"], absent["rank_no"], absent["top"]) == (2, 1, " No")
    assert run["weights"].startswith("sha256:")
    assert (run["device"], run["dtype"], run["seed"]) == ("cpu", "float32", 0)
    assert {"when", "noise_floor", "commit", "headpatch", "torch", "transformers"} <= set(run)
    assert (study["rank"]["top"], study["model"]) == (5, str(place / "model"))


@pytest.mark.usefixtures("undrawn")
def test_published_figures_of_the_study_stand_beside_the_measured(
    place: Path, out: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "expected:\n"
        "  source: an earlier paper\n"
        "  heads: [{layer: 1, head: 2, diff: 0.4832, with: 0.8042, without: 0.3210}]\n"
        "  quadrants: {top-left: [0.2752, 0.1929]}\n"
        "  divergence: {kl: 1.7054, js_distance: 0.4653}\n"
        "  vision_diff: {0: 0.0713, 23: -0.0693}\n"
        "  vision_divergence: {0: {kl: 1.3115}}\n"
    )
    said = done("rank", "--config", study, *flags(place, tmp_path / "out"))
    shown = said.out.partition("an earlier paper")[2]
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    (row,) = (r for r in table(out / "heads.csv") if (r["layer"], r["head"]) == ("1", "2"))
    spatial = read_tensors(out / "spatial_vision_analysis.pt")
    for line in (
        f"head 1.2 diff 0.4832 {float(row['diff']):.4f}",
        f"top-left with 0.2752 {spatial['quadrants_with'][0]:.4f}",
        f"overall KL 1.7054 {spatial['divergence_overall']['kl']:.4f}",
        "vision layer 23 difference -0.0693 no such layer",
        f"vision layer 0 KL 1.3115 {spatial['divergence_vision_patch']['kl'][0]:.4f}",
    ):
        assert line in lines


@pytest.mark.usefixtures("undrawn")
def test_regions_paths_and_json(
    place: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A region is the same however it is written, and `.` is a folder like any other."""
    named = done("rank", *flags(place, tmp_path / "a/b/c"), "--json").json
    assert (named["answer_with"], named["answer_without"]) == ("Yes", "No")
    assert [list(row) for row in named["heads"]] == [COLUMNS] * LAYERS * HEADS_PER_LAYER
    assert set(named["spatial"]) == set(read_tensors(out / "spatial_vision_analysis.pt"))
    monkeypatch.chdir(tmp_path)
    boxed = done("rank", *flags(place, Path(".")), "--json", "--region", "0, 0,0.5,.5").json
    assert boxed["heads"] == named["heads"]
    assert (tmp_path / "heads.csv").read_bytes() == (tmp_path / "a/b/c/heads.csv").read_bytes()
    assert not list(tmp_path.rglob(".headpatch-*"))


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def terminated(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


FAILURES: dict[str, tuple[Callable[..., None], int, str]] = {
    "a bug": (raising(RuntimeError("no font")), 1, "RuntimeError: no font (--debug shows where)"),
    "a full disk": (raising(OSError(28, "No space left on device")), 1, "--out: "),
    "Ctrl-C": (raising(KeyboardInterrupt()), 130, "interrupted; nothing was written"),
    "kill": (terminated, 130, "interrupted; nothing was written"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("where", ["new/below", "old"])
def test_a_run_that_ends_early_leaves_things_as_they_were(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, where: str
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/heads.csv").write_text("of an earlier run")
    before = {name: size for name, (size, _) in contents(tmp_path).items()}
    act, code, message = FAILURES[failure]
    monkeypatch.setattr("headpatch.core.output.writing.draw", act)
    assert refused("rank", *flags(place, tmp_path / where), code=code).startswith(message)
    assert {name: size for name, (size, _) in contents(tmp_path).items()} == before
    assert (tmp_path / "old/heads.csv").read_text() == "of an earlier run"


@pytest.mark.usefixtures("undrawn")
def test_a_folder_in_a_file_s_place_spoils_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").mkdir()
    message = refused("rank", *flags(place, tmp_path), code=1)
    assert message.startswith(f"--out: {tmp_path}/run.yaml is a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("columns", ["80", "40"])
def test_a_narrow_terminal_cuts_no_figure(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Said, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    narrow = done("rank", *flags(place, tmp_path), "--top", 5).out
    assert "…" not in narrow
    figures = re.compile(r"[+-]?\d+\.\d{3,4}")
    assert sorted(figures.findall(narrow)) == sorted(figures.findall(printed.out))
    if columns == "80":  # tables are cut into several below each other; paths stay whole
        assert max(len(line) for line in narrow.splitlines() if str(tmp_path) not in line) <= 80


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="no bundled weights")
@pytest.mark.usefixtures("undrawn")
def test_the_bundled_study(tmp_path: Path) -> None:
    """The seed's question on the seed's pictures, answered with the seed's sentences."""
    found = done("rank", "--out", tmp_path, "--json").json
    assert found["valid"] is True
    assert found["ld_with"] > 0 > found["ld_without"]
    assert found["answer_with"] == "Yes, there is a triangle in the top left corner of the image."
    assert found["answer_without"].startswith("No, there is nothing in the top left corner")
    assert len(table(tmp_path / "heads.csv")) == 32 * 32
    assert found["heads"][0]["diff"] > 0.3
    spatial = found["spatial"]
    assert spatial["quadrants_with"][0] > spatial["quadrants_without"][0]
    assert spatial["feature_layer"] == 22
    assert all(math.isfinite(value) for value in spatial["divergence_lm"]["kl"])

"""YAML read as written: texts stay what they are, and nothing in a file takes a run down."""

import json
from pathlib import Path

import pytest
import yaml

from headpatch.core.study.record import NotYaml, parse, read_record
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from tests import refusals

LOOKS_LIKE_MORE = (
    "yes", "no", "on", "off", "YES", "NO", "y", "n", "true", "False", "24.10", "1e3", "010",
    "0o17", "0x1F", "1:30", "190:20:30", "1_000", ".inf", "-.inf", ".nan", "2024-01-01", "=", "<<",
    "9" * 5000,
)  # fmt: skip


def made(folder: Path, content: str) -> Study:
    file = folder / "study.yaml"
    file.write_text(content, encoding="utf-8")
    return Study.make(file)


def refusal(folder: Path, content: str) -> str:
    message = refusals.refusal(made, folder, content)
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("text", LOOKS_LIKE_MORE)
def test_a_text_is_as_written(tmp_path: Path, text: str) -> None:
    study = made(tmp_path, f"question: {text}\nanswers: [{text}, 'No']\nprompt: {text}\n")
    assert (study.question, study.prompt) == (text, text)
    assert study.answers == (text, "No")


def test_heads_and_layers_need_no_quotes(tmp_path: Path) -> None:
    study = made(tmp_path, "ablate: {heads: 24.10}\ncut: {layers: 10}\npath: {heads: 20.10}\n")
    assert (study.ablate.heads, study.cut.layers, study.path.heads) == ("24.10", "10", "20.10")


@pytest.mark.parametrize("nothing", ["null", "~", "Null", ""])
def test_what_stands_for_nothing_is_no_text(tmp_path: Path, nothing: str) -> None:
    for content in (f"question: {nothing}\n", f"answers: [Yes, {nothing or '~'}]\n"):
        assert '("null", "~")' in refusal(tmp_path, content)
    assert made(tmp_path, f"prompt: {nothing}\n").prompt is None
    assert made(tmp_path, "answers: ['null', 'No']").answers == ("null", "No")


def test_numbers_and_truth_values_are_what_their_keys_declare(tmp_path: Path) -> None:
    study = made(
        tmp_path,
        "seed: -7\nforce: yes\nverdict: {delta: 1e-2, split: 0.5}\npairs: {margin: 2}\n"
        "expected: {source: 3, vision_diff: {8: 1, 9: 5e-1}}\n",
    )
    assert (study.seed, study.force, study.verdict.delta) == (-7, True, 0.01)
    assert (study.pairs.margin, type(study.pairs.margin)) == (2.0, float)
    assert study.expected is not None
    assert (study.expected.source, study.expected.vision_diff) == ("3", {8: 1.0, 9: 0.5})


@pytest.mark.parametrize(
    ("content", "said"),
    {
        "seed: 010": "decimal digits, without quotes and leading zeros",
        "seed: 1_000": "decimal digits",
        "seed: 0x10": "decimal digits",
        "seed: 1:30": "decimal digits",
        "seed: 1e3": "decimal digits",
        "seed: '3'": "without quotes",
        f"seed: {'9' * 5000}": "decimal digits",
        "seed: ２４": "decimal digits",
        "rank: {top: 99999999999}": "at most 1000000",
        "pairs: {margin: .inf}": "finite number",
        "pairs: {margin: .nan}": "finite number",
        "pairs: {margin: 1e999}": "finite number",
        "force: y": "true or false",
        "expected: {source: a, vision_diff: {1: 0, +1: 0}}": "twice",
        "seed: 1\nrank: {top: 3}\nseed: 2": "line 3: the key 'seed' a second time, after line 1",
        "rank: {top: 3, 'top': 4}": "'top' a second time",
        'question: "a\\0b"': "NUL",
        'question: "a\\uD800b"': "not YAML",
        "seed: !!int 3": "tags are not read",
        "question: !!binary aGk=": "tags are not read",
        "seed: 1\n---\nseed: 2": "a second document",
        "? [a]\n: b": "a key that is a list or a mapping",
        "question: *a": "stands for nothing",
        "claims: &a [*a]": "stands for nothing that is complete",
    }.items(),
    ids=lambda text: text[:40],
)
def test_refused_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(tmp_path, content)


@pytest.mark.parametrize("start", ["[", "{a: ", "- "])
def test_no_depth_is_too_deep_for_the_stack(tmp_path: Path, start: str) -> None:
    assert "in each other" in refusal(tmp_path, start * 200_000)


def test_aliases_are_read_but_not_a_bomb_of_them(tmp_path: Path) -> None:
    study = made(tmp_path, "ablate: {kinds: &k [zero]}\nsweep: {kinds: *k}\n")
    assert study.ablate.kinds == study.sweep.kinds == ("zero",)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert "aliases repeat" in refusal(tmp_path, "\n".join(lines))


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(InputError, match="64 MiB"):
        Study.make(Path("/dev/zero"))


def test_a_record_reads_as_it_was_written(tmp_path: Path) -> None:
    texts = [*LOOKS_LIKE_MORE[:-1], "null", "~", "", "1234567e12", "3.", "a: b", "ü\n"]
    values = [None, True, 0, -3, 10**30, 1.0, 1e-05, 3.5e300, float("inf"), [], {}]
    content = {"run": {"texts": texts, "values": values, "010": {"yes": "no"}}}
    for indent in (False, True):
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(content, default_flow_style=indent), encoding="utf-8")
        found = read_record(file)
        assert json.dumps(found, sort_keys=True) == json.dumps(content, sort_keys=True)


def test_the_reader_in_python_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headpatch.core.study.record._SAFE", yaml.SafeLoader)
    assert parse("a: [yes, 'no', {b: 24.10}]") == {"a": ["yes", "no", {"b": "24.10"}]}
    with pytest.raises(NotYaml, match="in each other"):
        parse("[" * 5000)


def test_paths_of_a_file_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    study = made(tmp_path, "out: results/cup\ndraw: {folder: drawn}\nsweep: {sets: s.txt}\n")
    assert (study.out, study.draw.folder, study.sweep.sets) == tuple(
        str(tmp_path / name) for name in ("results/cup", "drawn", "s.txt")
    )
    study = made(tmp_path, "out: ~/a\nmodel: ~/m\nwith: ~/w.png\nwithout: /o.png\n")
    assert (study.out, study.model) == ("/home/me/a", "/home/me/m")
    assert (study.with_, study.without) == ("/home/me/w.png", "/o.png")
    assert Study(model="~/m", out="~/o").model == "/home/me/m"
    assert (Study().out, Study().draw.folder) == ("attention_data", "pairs")
    assert Study.make(tmp_path / "study.yaml", {"out": "here"}).out == "here"

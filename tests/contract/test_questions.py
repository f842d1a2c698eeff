"""What every question promises, of one pair and of many: one test for all of them."""

import shutil
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from rich.console import Console

import headpatch as hp
from headpatch.core.ask import ask
from headpatch.core.output.files import read_tensors, write_columns
from headpatch.core.output.folder import find
from headpatch.core.question import Result, Verb, table_of
from headpatch.kinds import KINDS
from headpatch.present.parts import Grid, Part, Words
from headpatch.present.tables import renderables
from headpatch.reports import derived, how
from tests import command
from tests.command import Said, headpatch, table
from tests.contract.cases import ASKED, OVER_PAIRS, study_of
from tests.planted import planted, planted_dataset, planted_study, save_planted

MANY = 4  # pairs


def _cases() -> Iterator[Any]:
    for verb in ASKED:
        yield pytest.param(verb, False, id=verb.name)
        if verb in OVER_PAIRS:
            yield pytest.param(verb, True, id=f"{verb.name} over pairs")


every_question = pytest.mark.parametrize(("verb", "many"), list(_cases()))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the circuit, a pair and a dataset."""
    folder = tmp_path_factory.mktemp("contract")
    save_planted(folder / "model")
    planted_study(folder)
    planted_dataset(folder / "pairs", MANY)
    return folder


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[tuple[str, bool], tuple[Said, Path]]:
    """What the command line has written and printed, by question."""
    return {}


def ran(
    runs: dict[tuple[str, bool], tuple[Said, Path]], place: Path, verb: Verb, many: bool
) -> tuple[Said, Path]:
    """Ask a question on the command line, once a test run."""
    if (verb.name, many) not in runs:
        config = place / f"{verb.name}-{many}.yaml"
        options = study_of(verb, many)
        study: dict[str, Any] = {"model": "model", "region": "top-left", verb.name: options}
        if many:
            study["pairs"] = {"manifest": "pairs/manifest.csv", "resamples": 200}
        else:
            study |= {"with": "with.png", "without": "without.png"}
        config.write_text(yaml.safe_dump(study))
        out = place / f"{verb.name}-{many}"
        said = headpatch(verb.name, "--config", config, "--out", out, "--json")
        assert said.code == 0, said.err
        runs[verb.name, many] = said, out
    return runs[verb.name, many]


def called(place: Path, verb: Verb, many: bool) -> Result:
    """Ask the same in a call."""
    study, vlm, options = planted_study(place), planted().vlm, study_of(verb, many)
    if many:
        target: Any = hp.open_pairs(
            study, place / "pairs", vlm=vlm, on_progress=False, resamples=200
        )
    else:
        target = hp.open_session(study, vlm, positions="answer")
    silent = {} if verb.name == "rank" else {"on_progress": False}
    return getattr(hp, verb.name)(target, **silent, **options)


def text_of(part: Part) -> Any:
    """Return what a person reads of a part."""
    if isinstance(part, Words):
        return part.text
    return (part.title, part.headings, part.rows) if isinstance(part, Grid) else part.name


def same(measured: Any, expected: Any, where: str = "") -> None:
    """Compare what two ``.pt`` files hold."""
    if isinstance(expected, dict):
        assert measured.keys() == expected.keys(), where
        for key, value in expected.items():
            same(measured[key], value, f"{where}/{key}")
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(measured, expected, equal_nan=True, rtol=1e-5, atol=2e-5)
    elif isinstance(expected, float):
        assert measured == pytest.approx(expected, abs=2e-5, nan_ok=True), where
    else:
        assert measured == expected, where


def words_of(drawn: Any) -> Any:
    """Return the titles and axes of a figure, and its words."""
    axes = [(axis.get_title(loc="left"), axis.get_xlabel()) for axis in drawn.axes]
    return axes, [text.get_text() for text in drawn.texts]


@every_question
def test_call_file_and_page_say_the_same(
    verb: Verb, many: bool, place: Path, runs: Any, tmp_path: Path
) -> None:
    """A call holds what the files do; people read and see the same of both."""
    _, out = ran(runs, place, verb, many)
    result = called(place, verb, many)
    for name, content in result.files().items():
        if name.endswith(".csv"):
            columns = {str(key): list(content[key]) for key in content}
            write_columns(tmp_path / name, columns)
            assert (tmp_path / name).read_text() == (out / name).read_text(), name
        else:
            same(content, read_tensors(out / name), name)
    assert words_of(hp.plot(result)) == words_of(hp.plot(out))
    run = next(part for part in find(out).parts if part.has(verb.files[0]))
    saved, context = derived.saved(verb, run), derived.context(verb, run)
    question = verb.question()
    from_file = [text_of(part) for part in question.view(saved, context)]
    from_call = [text_of(part) for part in question.view(result.files(), result.origin.context)]
    assert from_file == from_call


@every_question
@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_the_terminal(
    verb: Verb, many: bool, width: int, place: Path, runs: Any, monkeypatch: Any
) -> None:
    """No cell is cut, no heading is lost: a wide table is cut into several below each other."""
    monkeypatch.setenv("COLUMNS", str(width))  # else it is a pipe, where tables stay whole
    _, out = ran(runs, place, verb, many)
    run = next(part for part in find(out).parts if part.has(verb.files[0]))
    parts = verb.question().view(derived.saved(verb, run), derived.context(verb, run))
    screen = StringIO()
    console = Console(file=screen, width=width)
    for one in renderables(parts):
        console.print(one, crop=False, no_wrap=False)
    assert max(map(len, screen.getvalue().splitlines())) <= width
    assert "…" not in screen.getvalue()
    told = {word for line in screen.getvalue().splitlines() for word in line.split()}
    shown = [part for part in parts if isinstance(part, Grid) and part.place != "page"]
    assert {word for part in shown for one in part.headings for word in one.split()} <= told


@every_question
def test_json_holds_the_tables_to_the_last_digit(
    verb: Verb, many: bool, place: Path, runs: Any
) -> None:
    """Rows that ``--json`` prints are rows of a file."""
    said, out = ran(runs, place, verb, many)
    tables = [
        pd.read_csv(out / schema.file, dtype=str, keep_default_na=False)
        for schema in verb.schemas
        if (out / schema.file).exists()
    ]
    for key, value in said.json.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            rows = [{name: _cell(cell) for name, cell in row.items()} for row in value]
            fits = [table for table in tables if set(rows[0]) <= set(table.columns)]
            for table in fits[:1]:
                there = set(table[list(rows[0])].itertuples(index=False, name=None))
                assert [row for row in rows if tuple(row.values()) not in there] == [], key


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


@every_question
def test_files_hold_what_is_declared(verb: Verb, many: bool, place: Path, runs: Any) -> None:
    """Every column is documented, none that is promised is missing, no other file is written."""
    _, out = ran(runs, place, verb, many)
    assert {file.name for file in out.iterdir()} <= {*verb.files, "run.yaml"}
    assert (out / verb.files[0]).exists()
    for schema in verb.schemas:
        if (out / schema.file).exists():
            columns = list(pd.read_csv(out / schema.file, nrows=0).columns)
            declared = [column.name for column in schema]
            assert [name for name in declared if name in columns] == columns, schema.file
            assert set(schema.needed) <= set(columns), schema.file
    for schema in verb.schemas:
        assert all(column.meaning and column.unit for column in schema)


@every_question
def test_a_run_is_run_again_from_its_record(
    verb: Verb,
    many: bool,
    place: Path,
    runs: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``--config run.yaml`` gives the same files, byte for byte, wherever it is started.

    Of figures, which follow from the tables, it gives the same names.
    """
    _, out = ran(runs, place, verb, many)
    monkeypatch.chdir(tmp_path)
    command.ran(verb.name, "--config", out / "run.yaml", "--out", tmp_path / "again")
    assert {file.name for file in out.iterdir()} == {
        file.name for file in (tmp_path / "again").iterdir()
    }
    for file in (*out.glob("*.csv"), *out.glob("*.pt")):
        again = tmp_path / "again" / file.name
        if again.read_bytes() != file.read_bytes():
            pytest.fail(f"{file.name} differs in {differing(file, again)}")
    first, second = (
        yaml.safe_load((folder / "run.yaml").read_text()) for folder in (out, tmp_path / "again")
    )
    assert first["study"] | {"out": ""} == second["study"] | {"out": ""}
    # the commit is another one if somebody commits while the tests run
    for key in first["run"].keys() - {"when", "checksum", "files", "commit"}:
        assert first["run"][key] == second["run"][key], key


def differing(first: Path, second: Path) -> str:
    """Name the first cells in which two tables, or two files of tensors, differ."""
    load: Any = read_tensors if first.suffix == ".pt" else table
    one, other = (dict(cells_of(load(path))) for path in (first, second))
    apart = [place for place in one | other if one.get(place) != other.get(place)]
    listed = "; ".join(f"{place} {one.get(place)} -> {other.get(place)}" for place in apart[:10])
    return f"{len(apart)} cells: {listed}"


def cells_of(content: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield every cell of rows, or of tensors by key: its place, and what stands there."""
    if isinstance(content, torch.Tensor):
        content = content.tolist()
    if isinstance(content, list):
        content = dict(enumerate(content))
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from cells_of(value, f"{place}[{key}]")
    else:
        yield place, repr(content)


@every_question
def test_the_page_shows_the_question_and_its_command(
    verb: Verb, many: bool, place: Path, runs: Any, tmp_path: Path
) -> None:
    _, out = ran(runs, place, verb, many)
    shutil.copytree(out, tmp_path / "run")
    page = headpatch("report", tmp_path / "run", "--json")
    assert page.code == 0, page.err
    own = "ranking" if verb.name == "rank" else verb.name  # the table of all heads
    assert own in page.json["sections"]
    (run,) = how.section(find(out)).values["runs"]
    assert [words.split()[1] for words in run["commands"]] == [verb.name]


@pytest.mark.parametrize("verb", OVER_PAIRS, ids=lambda verb: verb.name)
def test_means_over_pairs_are_means_of_single_pairs(verb: Verb, place: Path, runs: Any) -> None:
    """The slow twin: the rows of every pair, averaged by hand."""
    _, out = ran(runs, place, verb, True)
    schema = next((one for one in verb.schemas if one.file.endswith("_mean.csv")), None)
    rows = out / verb.schemas[0].file
    if schema is None or not rows.exists() or not (out / schema.file).exists():
        pytest.skip("it writes no rows of single pairs")
    text = dict.fromkeys(("heads", "layers"), str)
    single, means = (pd.read_csv(path, dtype=text) for path in (rows, out / schema.file))
    keys = [name for name in schema.keys if name in single]
    averaged = [one.name for one in schema if one.interval and one.name in single]
    by_hand = single.groupby(keys, dropna=False, sort=False)[averaged].mean().reset_index()
    both = means.merge(by_hand, on=keys, suffixes=("", "_by_hand"))
    assert len(both) == len(means)
    for name in averaged:
        assert both[name].to_numpy() == pytest.approx(
            both[f"{name}_by_hand"].to_numpy(), rel=1e-5, abs=1e-6, nan_ok=True
        )


NOTHING = [
    pytest.param(verb, kind, id=f"{verb.name} {kind}")
    for verb in ASKED
    if verb.options and "kinds" in verb.options.model_fields
    if "effect" in [column.name for column in verb.schemas[0]]  # of LD; others count answers
    for kind in ("self", "scale", "reweight")
    if (verb.name, kind) != ("trace", "self")  # it keeps these rows for the noise floor alone
    and (kind != "reweight" or "toward" in verb.options.model_fields)
]


@pytest.mark.parametrize(("verb", "kind"), NOTHING)
def test_what_changes_nothing_stays_within_the_noise_floor(
    verb: Verb, kind: str, tmp_path: Path
) -> None:
    """A head is given its own z: by `self`, which no study may name, and by a neutral alpha."""
    options = study_of(verb, False) | {"alpha": KINDS[kind].neutral}
    study = planted_study(tmp_path, **{f"{verb.name}.{key}": one for key, one in options.items()})
    section = getattr(study, verb.name).model_copy(update={"kinds": (kind,)})
    session = hp.open_session(study.model_copy(update={verb.name: section}), planted().vlm)
    result = ask(verb.question(), session, {}, False)
    rows = table_of(result.files()[verb.schemas[0].file])
    assert kind in set(rows["kind"]) <= {"self", kind}
    assert rows["effect"].abs().max() <= result.noise_floor < 1e-4


FORCED = [
    pytest.param(verb, many, id=f"{verb.name}{' over pairs' * many}")
    for verb in ASKED
    if "force" not in verb.without  # what counts answers runs wrong ones as well
    for many in ((False, True) if verb.name == "rank" else (False,))
]


@pytest.mark.parametrize(("verb", "many"), FORCED)
def test_a_forced_study_marks_every_file(
    verb: Verb, many: bool, place: Path, tmp_path: Path
) -> None:
    """Whose answers are not right: each table and file of tensors says so, and still reads back."""
    options = study_of(verb, many)
    study: dict[str, Any] = {"model": str(place / "model"), "region": "top-left", "force": True}
    study[verb.name] = options
    if many:
        swapped = pd.read_csv(place / "pairs/manifest.csv")
        swapped = swapped.rename(columns={"with": "without", "without": "with"})
        swapped[["with", "without"]] = str(place / "pairs") + "/" + swapped[["with", "without"]]
        swapped.to_csv(tmp_path / "swapped.csv", index=False)
        study["pairs"] = {"manifest": str(tmp_path / "swapped.csv"), "resamples": 200}
    else:
        study |= {"with": str(place / "without.png"), "without": str(place / "with.png")}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    out = tmp_path / "out"
    command.ran(verb.name, "--config", tmp_path / "study.yaml", "--out", out)
    for file in out.glob("*.csv"):
        marks = pd.read_csv(file)["valid"]
        assert marks.dtype == bool and not marks.any(), file.name
    assert all(read_tensors(file)["valid"] is False for file in out.glob("*.pt"))
    run = next(part for part in find(out).parts if part.has(verb.files[0]))
    view = verb.question().view(derived.saved(verb, run), derived.context(verb, run))
    titles = [part.title for part in view if isinstance(part, Grid)]
    assert all(title.startswith("INVALID STUDY") for title in titles)
    assert headpatch("report", out, "--json").json["valid"] is False


def test_every_question_is_under_contract() -> None:
    """A question that is new fails here until it is asked in these tests."""
    assert {verb.name for verb in ASKED} == {verb.name for verb in ASKED if study_of(verb, False)}

"""`headpatch claims` from the command line, on the planted circuit."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

import headpatch as hp
from headpatch.core.claims_grammar import Claim, Form
from headpatch.core.output.files import read_table
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from tests.command import contents, done, edit_record, headpatch, refused, refused_early
from tests.planted import planted_dataset, save_planted

PAIRS = 12
Change = Callable[[pd.DataFrame], pd.DataFrame]
ONE = "head 1.1 is necessary"
ASKED, CUT = "the answer reads the region in layer 2", "answer to region cut in layer 2"
CONFIG = """
model: {model}
verdict: {{top: 5, nulls: 0, vision: 2, controls: 0, attribution: 0, random: 1, noise: 1, \
groups: 40, search: 4, followed: 3}}
pairs: {{resamples: 200, manifest: {pairs}}}
claims:
"""
WANTED = {
    "head 1.1 is necessary": "supported",
    "head 1.2 is causal": "contradicted",
    "head 1.0 is redundant": "supported",
    "head 1.3 is inhibitory": "supported",
    "head 2.3 is inert": "supported",
    "head 1.1 looks at the region": "supported",
    "the model looks at the region": "supported",
    "heads 0.3 and 1.0 are redundant": "supported",
    "heads 0.3, 1.0 and 2.2 are redundant": "contradicted",  # two suffice
    "layers 0-1 hold the sensitive heads": "undecided",  # 4 of 5, but so do half of all
    "layer 3 holds the causal heads": "undecided",  # none of 9: too few for one of 24 claims
    "the answer reads the region in layers 0-1": "supported",
    "the answer reads the region in layer 3": "contradicted",
    "the question reads the region in layer 0": "supported",  # the note writer
    "the question reads the region in layer 1": "contradicted",  # its heads look from the answer
    "heads 0.3 and 1.0 do more together than alone": "supported",
    "heads 0.3 and 1.0 work together": "contradicted",  # either would do
    "heads 1.1 and 2.0 are independent": "supported",
    "head 1.3 is causal": "supported",  # against the answer
    "the heads of vision layer 0 are necessary": "contradicted",
    "the heads of vision layer 0 matter more than those of other layers": "contradicted",
    "vision layers 0-1 carry the object": "not testable",  # nothing lies before them
    "vision layer 1 carries the object": "not testable",  # it passes on what is there
    "vision layer 2 carries the object": "contradicted",  # not read
    "heads 0.3 and 1.0 are necessary together": "supported",
    "heads 0.3 and 1.0 are sufficient together": "supported",
    "heads 2.2 and 2.3 are necessary together": "contradicted",
    "heads 1.1 and 1.2 matter more than others of their layers": "supported",  # 1.0 and 1.3
    "heads 1.0 and 1.3 matter more than others of their layers": "contradicted",
    "the heads of layers 0-1 matter more than those of other layers": "supported",
    "the heads of layers 2-3 matter more than those of other layers": "contradicted",
    "the answer reads the image in layers 0-1": "supported",
    "the answer reads the question in layer 2": "supported",  # the note reader
    "the question reads the image in layer 0": "supported",
    "the question reads the image in layer 1": "contradicted",
    "attention and effects correlate by more than 0.9": "not testable",  # fewer than 64 heads
}


class Folders(NamedTuple):
    """A model and pairs; an empty folder that every form of claim filled; one claim beside it."""

    root: Path
    judged: Path
    measured: Path


@pytest.fixture(scope="module", autouse=True)
def _few_pairs_will_do() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headpatch.core.saved_verdict.LEAST", PAIRS // 2)
        yield


def study(at: Folders, *claims: str) -> Path:
    text = CONFIG.format(model=at.root / "model", pairs=at.root / "pairs")
    file = at.root / f"study{len(list(at.root.glob('study*')))}.yaml"
    file.write_text(text + "".join(f"  - {claim}\n" for claim in claims))
    return file


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("claims")
    at = Folders(root, root / "out", root / "measured")
    save_planted(root / "model", noise=0.05)
    planted_dataset(root / "pairs", PAIRS)
    said = headpatch("claims", study(at, *WANTED), "--out", at.judged)
    assert said.code == 0, said.err
    first, price, more = said.err.splitlines()
    assert "holds no verdict" in first and "12 pairs, if all pass: about" in price
    assert "answer to region cut in layers 0-1" in more and "on each of 3 pairs" in more
    assert "supported" in said.out and "contradicted" in said.out
    assert "claims.csv" in said.out and "verdict.png" in said.out
    assert CUT in again(at, at.judged, at.measured)
    return at


def outcomes(folder: Path) -> dict[str, str]:
    found = read_table(folder / "claims.csv").set_index("claim")
    assert found["figure"].str.len().gt(5).all()
    return found["outcome"].to_dict()


def again(at: Folders, results: Path, out: Path) -> str:
    """Ask the same again; return what was said of a price."""
    said = headpatch("claims", study(at, ASKED), "--results", results, "--out", out)
    assert said.code == 0, said.err
    assert outcomes(out) == {ASKED: "contradicted"}
    return said.err


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_in_an_empty_folder_every_form_of_claim_is_run_and_judged(at: Folders) -> None:
    assert outcomes(at.judged) == WANTED
    assert {Claim.parse(claim).form for claim in WANTED} == set(Form)
    written = {path.name for path in at.judged.iterdir()}
    assert {"claims.csv", "followed.csv", "verdicts.csv", "verdict.png", "run.yaml"} <= written
    assert not [name for name in written if name.startswith(".")]


def test_sets_that_claims_name_are_tested_with_the_verdicts_own(at: Folders) -> None:
    """On every pair that judges, with q over all sets: not on a few pairs beside the verdict."""
    sets = read_table(at.judged / "partners.csv")
    tested = sets[sets["part"] == 0].set_index("heads")["redundant"]  # 0: named by a claim
    assert set(sets.loc[sets["part"] == 0, "pairs"]) == {PAIRS}
    claimed = {str(one) for claim in WANTED if (one := Claim.parse(claim).tested_set) is not None}
    assert claimed == {"0.3+1.0", "0.3+1.0+2.2"}
    assert tested[sorted(claimed)].tolist() == [True, False]
    assert not read_table(at.judged / "followed.csv")["what"].str.contains("changed together").any()


def test_a_claim_that_a_verdict_cannot_test_is_refused(at: Folders, tmp_path: Path) -> None:
    """Its heads are changed together, so the model must have them."""
    file = study(at, "heads 0.3 and 1.7 are redundant")
    line = refused("verdict", "--config", file, "--out", tmp_path / "out")
    assert line.startswith("claims: 'heads 0.3 and 1.7 are redundant': 1.7 is out of range")
    assert not (tmp_path / "out").exists()


def test_what_was_saved_is_judged_again_without_a_model(
    at: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(at.judged)["verdict.pt"]
    monkeypatch.setattr("headpatch.core.session.load", lambda *_: pytest.fail("loaded"))
    found = done("claims", study(at, *WANTED), "--out", at.judged, "--json").json
    assert {one["claim"]: one["outcome"] for one in found["claims"]} == WANTED
    assert found["failed_nulls"] == []
    assert contents(at.judged)["verdict.pt"] == before


def test_only_what_a_saved_verdict_does_not_cover_is_run(at: Folders, tmp_path: Path) -> None:
    """Beside --results, into another folder."""
    asked = {"the answer reads the region in layer 1": "supported",
             "heads 1.1 and 1.3 are redundant": "contradicted"}  # fmt: skip
    out = tmp_path / "more"
    said = headpatch("claims", study(at, ONE, *asked), "--results", at.judged, "--out", out)
    assert said.code == 0, said.err
    (line,) = said.err.splitlines()
    assert "heads 1.1+1.3 changed together" in line and "head 1.1 is" not in line
    assert outcomes(out) == {ONE: "supported", **asked}
    assert {path.name for path in out.iterdir()} == {"claims.csv", "followed.csv", "run.yaml"}


def test_what_an_earlier_run_measured_is_not_measured_again(
    at: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (at.measured / "followed.csv").read_bytes()
    monkeypatch.setattr("headpatch.core.session.load", lambda *_: pytest.fail("loaded"))
    assert again(at, at.judged, at.measured) == ""
    assert (at.measured / "followed.csv").read_bytes() == before


def test_figures_of_another_verdict_are_not_taken(at: Folders, tmp_path: Path) -> None:
    other, out = copy(at.judged, tmp_path / "other"), copy(at.measured, tmp_path / "out")
    edit_record(other, "verdict", {"seed": 1})
    assert CUT in again(at, other, out)
    first, second = (read_table(one / "followed.csv") for one in (at.measured, out))
    assert set(first["verdict"]).isdisjoint(second["verdict"])
    assert again(at, other, out) == ""  # now they are its own


def test_figures_of_other_pictures_are_not_taken(at: Folders, tmp_path: Path) -> None:
    """Neither those beside --results, nor those that lie with the verdict."""
    pair = read_table(at.measured / "followed.csv")["pair"].iloc[0]
    picture = at.root / "pairs" / f"{pair}-False.png"
    before, out = picture.read_bytes(), copy(at.measured, tmp_path / "out")
    try:
        picture.write_bytes(before + b"more")
        assert CUT in again(at, at.judged, out)
        own = study(at, "the answer reads the region in layer 3")
        said = headpatch("claims", own, "--out", copy(at.judged, tmp_path / "own"))
        assert "answer to region cut in layer 3" in said.err
    finally:
        picture.write_bytes(before)


def test_figures_are_taken_where_pairs_have_gone(at: Folders, tmp_path: Path) -> None:
    """Then nothing says that they have changed; but nothing more can be measured."""
    (at.root / "pairs").rename(tmp_path / "elsewhere")
    try:
        assert again(at, at.judged, at.measured) == ""
        words = ("claims", study(at, ASKED), "--results", at.judged, "--out", tmp_path / "out")
        line = refused(*words)
        assert line.startswith("--pairs: ") and "No such file" in line
    finally:
        (tmp_path / "elsewhere").rename(at.root / "pairs")


def last(column: str, value: object) -> Change:
    return lambda table: table.assign(**{column: [*table[column][:-1], value]})


def anothers(table: pd.DataFrame) -> pd.DataFrame:
    other = table[table["what"] == "answer to region cut in layers 0-1"]
    return pd.concat([table[table["what"] != CUT], other.assign(what=CUT)])


@pytest.mark.parametrize(
    "change",
    [
        last("value", 9.5),
        last("pictures", "sha256:0"),  # one row's signature alone
        last("verdict", "sha256:0"),
        lambda table: table.iloc[:-1],
        lambda table: pd.concat([table, table.iloc[-1:]]),
        # rows of an earlier version do not say of which verdict they are
        lambda table: table.drop(columns=["verdict", "pictures"]).assign(value=1.0),
        anothers,
    ],
)
def test_figures_that_were_changed_are_measured_again(
    at: Folders, tmp_path: Path, change: Change
) -> None:
    """Neither edited rows nor those of another claim under this one's name are taken."""
    out = copy(at.measured, tmp_path / "out")
    change(read_table(out / "followed.csv")).to_csv(out / "followed.csv", index=False)
    assert CUT in again(at, at.judged, out)
    assert read_table(out / "followed.csv").equals(read_table(at.measured / "followed.csv"))


@pytest.mark.parametrize(
    ("weights", "asked", "line"),
    [
        ({"weights": "others"}, "Is", "--model: the weights of"),
        ({}, "Was", "--pairs: pair p00 of the verdict is"),
    ],
)
def test_another_model_or_other_pairs_than_the_verdicts_are_refused(
    at: Folders, tmp_path: Path, weights: dict[str, str], asked: str, line: str
) -> None:
    other, out = copy(at.judged, tmp_path / "other"), tmp_path / "out"
    edit_record(other, "verdict", **weights)
    gate = (other / "gate.csv").read_text()
    text, count = re.subn(r"(?m)^p0(\d),(.*)Is", rf"p0\1,\2{asked}", gate)
    assert count
    (other / "gate.csv").write_text(text)
    found = refused("claims", study(at, ASKED), "--results", other, "--out", out)
    assert found.startswith(line)
    assert not out.exists()


def test_a_verdict_of_other_weights_judges_nothing_though_nothing_need_be_measured(
    at: Folders, tmp_path: Path
) -> None:
    """The model's folder is what it was; the verdict is of weights that lay there before."""
    other = copy(at.judged, tmp_path / "other")
    edit_record(other, "verdict", weights="sha256:0")
    line = refused_early("claims", study(at, ONE), "--out", other)
    assert line.startswith("--model: the weights of") and "sha256:0" in line


def test_another_verdict_than_the_claims_own_is_refused(at: Folders, tmp_path: Path) -> None:
    """One that lies in the folder, one of another model, or of other answers than are named."""
    other, file = copy(at.judged, tmp_path / "other"), study(at, ONE)
    line = refused_early("claims", study(at, ASKED), "--results", at.judged, "--out", other)
    assert line.startswith(f"--out: {other} holds another verdict")
    line = refused_early("claims", file, "--out", at.judged, "--model", "demo")
    assert "a verdict of model" in line
    line = refused_early("claims", file, "--out", at.judged, "--answers", "Ja,Nein")
    assert "of the answers Yes,No lies there; expected one of the claims' answers, Ja,Nein" in line
    done("claims", file, "--results", at.judged, "--out", tmp_path / "out", "--answers", "Yes,No")


def test_a_model_may_be_named_from_where_the_program_runs(
    at: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict's record holds the whole path of its folder."""
    monkeypatch.chdir(at.root)
    for number, model in enumerate(("model", "./model", f"../{at.root.name}/model")):
        out = tmp_path / str(number)
        done("claims", study(at, ONE), "--results", at.judged, "--out", out, "--model", model)
        assert outcomes(out) == {ONE: "supported"}


def test_the_same_from_python(
    at: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a folder, and of a verdict that was never written."""
    options = Study.make(study(at, *WANTED))
    table = read_table(at.judged / "claims.csv").fillna("")
    assert hp.claims(options, at.judged).table.equals(table)
    verdict = hp.verdict(options)
    fresh = hp.claims(options, verdict, out=tmp_path)
    assert fresh.table["outcome"].tolist() == list(WANTED.values())
    assert fresh.table.equals(table)
    with pytest.MonkeyPatch.context() as patch:
        run = "headpatch.questions.claims.case.run_experiments"
        patch.setattr(run, lambda *_: pytest.fail("measured"))
        assert hp.claims(options, verdict, out=tmp_path).table.equals(table)
        one = hp.claims(ASKED, verdict, out=copy(at.measured, tmp_path / "out"))
    assert one.summary.startswith(
        "Of 1 claims: 0 supported, 1 contradicted, 0 undecided, 0 not testable."
    )
    assert capfd.readouterr() == ("", "")
    with pytest.raises(hp.InputError, match="claims: none"):
        hp.claims([], verdict)
    with pytest.raises(hp.InputError, match="holds another verdict"):
        hp.claims(ASKED, verdict, out=at.judged)
    with pytest.raises(hp.InputError, match="verdict: a verdict of model"):
        hp.claims(Study(claims=(ASKED,)), verdict)


def test_a_run_that_was_interrupted_goes_on(
    at: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("claims", study(at, ASKED), "--results", at.judged, "--out", tmp_path)
    save = Store.put

    def once(self: Store, name: str, content: object) -> None:
        if self.count:
            raise KeyboardInterrupt
        save(self, name, content)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "put", once)
    said = headpatch(*words)
    assert said.code == 130 and "1 finished pairs are kept" in said.err
    monkeypatch.setattr(Store, "put", save)
    assert "--no-resume" in headpatch(*words).err
    assert headpatch(*words, "--resume").code == 0
    assert outcomes(tmp_path) == {ASKED: "contradicted"}
    assert {path.name for path in tmp_path.iterdir()} == {"claims.csv", "followed.csv", "run.yaml"}


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("head 9.9 is necessary", "9.9 is out of range"),
        ("vision layer 3 carries the object", "layer 3 is out of range; expected layers 0-2"),
        ("head 1.1 is great", "expected a claim such as"),
        (None, "claims: none; expected claims such as"),
    ],
)
def test_bad_claims_are_one_line_and_nothing_is_written(
    at: Folders, tmp_path: Path, claim: str | None, said: str
) -> None:
    file = study(at, *([claim] if claim else []))
    if claim is None:
        file.write_text(file.read_text().replace("claims:", ""))
    before = contents(at.judged)
    assert said in refused("claims", file, "--out", at.judged)
    assert contents(at.judged) == before
    assert said in refused("claims", file, "--out", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_results_that_hold_no_verdict_are_refused(at: Folders, tmp_path: Path) -> None:
    file = study(at, ONE)
    line = refused_early("claims", file, "--results", tmp_path, "--out", tmp_path / "out")
    assert line.startswith("--results: ") and "holds no verdicts.csv" in line
    (tmp_path / "verdicts.csv").write_text("layer\n")
    line = refused_early("claims", file, "--out", tmp_path)
    assert "holds no partners.csv" in line and "Run headpatch verdict" in line


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("gate.csv", lambda text: text.partition("\n")[0], "it lists no pairs"),
        ("gate.csv", lambda text: text[: text.index("True") + 2], "more than True and False"),
        ("verdicts.csv", lambda text: text.partition("\n")[0], "does not list every head once"),
        (
            "verdicts.csv",
            lambda text: text.replace("\n1,1,", "\n1,2,"),
            "every head once, in order",
        ),
        ("partners.csv", lambda text: text.replace("heads", "head"), "lacks the column 'heads'"),
        ("vision.csv", lambda text: text.replace("necessity", "n"), "lacks the column 'necessity'"),
        ("verdict.pt", lambda _: "", "it is damaged, or holds more than plain tensors"),
    ],
)
def test_a_damaged_verdict_is_one_line(
    at: Folders, tmp_path: Path, name: str, change: Callable[[str], str], said: str
) -> None:
    """Also where no hash says so, as of an earlier version; with one it is refused by that."""
    other, file = copy(at.judged, tmp_path / "other"), study(at, ONE)
    (other / name).write_text(change((other / name).read_text(errors="replace")))
    line = refused_early("claims", file, "--out", other)
    assert line.startswith(f"--out: {other / name} was changed after the run")
    edit_record(other, "verdict")
    line = refused_early("claims", file, "--out", other)
    assert line.startswith(f"{other / name}: it cannot be read (") and said in line


@pytest.mark.parametrize("name", ["llava-1.5-7b", "demo"])
def test_the_claims_of_the_configs_are_claims(name: str) -> None:
    listed = Study.make(Path(__file__).parents[3] / "configs" / f"{name}.yaml").claims
    assert len(set(map(Claim.parse, listed))) == len(listed) > 5

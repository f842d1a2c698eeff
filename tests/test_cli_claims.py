"""`headpatch claims` from the command line, on a verdict of the planted circuit."""

from pathlib import Path

import pytest

from headpatch.results import read_table
from headpatch.study import Study
from tests.command import contents, done, headpatch, refused
from tests.planted import planted_dataset, save_planted

PAIRS = 12
CONFIG = """
model: {model}
verdict: {{top: 5, nulls: 0, vision: 2, controls: 0, attribution: 0, random: 1, noise: 1}}
pairs: {{resamples: 200, manifest: {pairs}}}
claims:
  - head 1.1 is necessary
  - head 1.2 is causal
  - heads 0.3 and 1.0 are redundant
  - the heads of vision layer 0 are necessary
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    save_planted(folder / "model", noise=0.05)
    planted_dataset(folder / "pairs", PAIRS)
    text = CONFIG.format(model=folder / "model", pairs=folder / "pairs")
    (folder / "study.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headpatch.analyses.halves.LEAST", PAIRS // 2)
        said = headpatch("verdict", "--config", folder / "study.yaml", "--out", folder / "out")
    assert said.code == 0, said.err
    return folder


def test_claims_are_judged_from_the_saved_verdict(place: Path) -> None:
    said = done("claims", place / "study.yaml", "--out", place / "out")
    assert "supported" in said.out and "contradicted" in said.out
    found = read_table(place / "out" / "claims.csv").set_index("claim")["outcome"]
    assert found.to_dict() == {
        "head 1.1 is necessary": "supported",
        "head 1.2 is causal": "contradicted",
        "heads 0.3 and 1.0 are redundant": "supported",
        "the heads of vision layer 0 are necessary": "contradicted",
    }


def test_json_is_one_object(place: Path) -> None:
    found = done("claims", place / "study.yaml", "--out", place / "out", "--json").json
    assert [one["outcome"] for one in found["claims"]][:2] == ["supported", "contradicted"]
    assert found["failed_nulls"] == []


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ("head 9.9 is necessary", "9.9 is out of range"),
        ("head 1.1 is great", "expected a claim such as"),
        (None, "claims: none; expected claims such as"),
    ],
)
def test_bad_claims_are_one_line_and_nothing_is_written(
    place: Path, tmp_path: Path, claim: str | None, said: str
) -> None:
    text = (place / "study.yaml").read_text().partition("claims:")[0]
    file = tmp_path / "study.yaml"
    file.write_text(text + (f"claims: [{claim}]\n" if claim else ""))
    before = contents(place / "out")
    assert said in refused("claims", file, "--out", place / "out")
    assert contents(place / "out") == before


def test_without_a_verdict_it_says_how_to_get_one(place: Path, tmp_path: Path) -> None:
    line = refused("claims", place / "study.yaml", "--out", tmp_path)
    assert "holds no verdicts.csv" in line and "Run headpatch verdict" in line


def test_a_verdict_of_another_model_is_refused(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("model: demo\nclaims: [head 1.1 is necessary]\n")
    assert "holds a verdict of model" in refused("claims", file, "--out", place / "out")


@pytest.mark.parametrize("name", ["llava-1.5-7b", "demo"])
def test_the_claims_of_the_configs_are_claims(name: str) -> None:
    Study.make(Path(__file__).parents[1] / "configs" / f"{name}.yaml")

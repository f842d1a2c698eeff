"""z of another pair of the dataset: which pair, and what it does, against plain transformers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch import Tensor

import headpatch as hp
from headpatch.core.dataset import Pairs
from headpatch.core.donors import Layout, donors_of
from headpatch.core.effects import intervene
from headpatch.core.gate import study_of
from headpatch.core.output.files import read_table
from headpatch.core.session import open_session
from headpatch.core.study.study import Study
from headpatch.engine.interventions import Intervention
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet
from headpatch.models.prompt import Prompt
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.pairs.region import Region
from headpatch.questions.sweep.finished_rows import keys_of
from tests.command import done, headpatch, of_pair, refused_early
from tests.datasets import any_model, lasting_folder, noisy_pairs, noisy_study, tiny_study
from tests.engine.oracle import Change, Oracle
from tests.planted import planted_dataset, save_planted

QUESTION = "is there a red square ?"
KINDS = ("resample-other", "resample-same")
LAYOUT = Layout(9, (1, 2), 0, (5, 6))


def entries(count: int) -> list[Entry]:
    return [
        Entry(f"p{i}", Path(f"{i}w"), Path(f"{i}o"), QUESTION, Region.parse("top-left"), i)
        for i in range(count)
    ]


def test_a_donor_is_another_pair_of_the_same_layout_drawn_by_the_seed() -> None:
    pairs = entries(40)
    layouts = {one.name: LAYOUT._replace(tokens=9 + i % 2) for i, one in enumerate(pairs)}
    found = donors_of(Study(), pairs, layouts)
    for name, donor in found.items():
        assert donor.name != name and layouts[donor.name] == layouts[name]
    assert len({one.name for one in found.values()}) > 15
    assert donors_of(Study(), pairs, layouts) == found
    assert donors_of(Study(seed=1), pairs, layouts) != found


def test_a_pair_that_shares_a_picture_gives_nothing() -> None:
    pairs = [replace(one, without_path=Path("empty")) for one in entries(3)]
    with pytest.raises(InputError, match=r"and of 2 more; expected .* other pictures"):
        donors_of(Study(), pairs, {one.name: LAYOUT for one in pairs})


def opened(questions: tuple[str, ...], section: str = "ablate", **options: object) -> Pairs:
    study = noisy_study(section, **{"kinds": KINDS, **options})
    manifest = Manifest.read(noisy_pairs(lasting_folder(), questions))
    return hp.open_pairs(study, manifest, vlm=any_model("plain"), on_progress=False)


Run = tuple[Prompt, list[Tensor]]


def plain_runs(pairs: Pairs) -> dict[str, Run]:
    """Prompt and z of each pair, which is opened anew."""
    prompts = {
        one.name: open_session(study_of(pairs.study, one), pairs.vlm, "all").prompt
        for one in pairs.entries
    }
    oracle = Oracle(pairs.vlm)
    return {name: (one, oracle.z(one.inputs)["lm"]) for name, one in prompts.items()}


def by_hand(pairs: Pairs, runs: dict[str, Run], row: dict[str, object], positions: str) -> float:
    """LD of a change, by hooks in plain transformers."""
    (prompt, z), (_, given) = (runs[str(row[key])] for key in ("pair", "donor"))
    run = ("noising", "denoising").index(str(row["direction"]))
    source = run if row["kind"] == "resample-same" else 1 - run
    places = prompt.spans.positions(positions).tolist()  # type: ignore[arg-type]
    assert z[0].shape == given[0].shape
    changes = [
        Change(head, places, given[head.layer][source, places, head.head])
        for head in HeadSet.parse(str(row["heads"]))
    ]
    return Oracle(pairs.vlm).ld(prompt, run, changes)


@pytest.mark.parametrize("positions", ["answer", "question", "all"])
def test_effects_are_those_of_plain_transformers(positions: str) -> None:
    pairs = opened((QUESTION,) * 3, positions=positions)
    heads = [Head(0, 1), Head(1, 2)]
    done = hp.ablate(pairs, heads, controls=0, on_progress=False)
    rows = done.named.to_dict("records")
    assert len(rows) == 3 * 3 * 2 * 2 and {row["kind"] for row in rows} == set(KINDS)
    runs = plain_runs(pairs)
    for row in rows:
        assert row["ld"] == pytest.approx(by_hand(pairs, runs, row, positions), abs=2e-5)
    assert done.named["effect"].abs().max() > 1e-3
    own = done.effects.query("role == 'noise floor'")
    assert (own["donor"] == "").all()


def test_vision_heads_take_z_of_the_other_pairs_tower() -> None:
    pairs = opened((QUESTION,) * 3)
    done = hp.ablate(pairs, "v0.1", controls=0, vision_positions="all", on_progress=False)
    assert done.named["effect"].abs().max() > 1e-4
    twin = hp.ablate(pairs, "v0.1", controls=0, kinds=["resample"], on_progress=False)
    assert not np.allclose(
        done.named.query("kind == 'resample-other'")["ld"], twin.named["ld"], atol=1e-4
    )


def test_a_sweep_goes_on_and_its_units_hang_on_the_other_pairs(tmp_path: Path) -> None:
    pairs = opened((QUESTION,) * 3, "sweep", noise=1)
    first = hp.sweep(pairs, keep=tmp_path, on_progress=False)
    again = hp.sweep(pairs, keep=tmp_path, on_progress=False)
    plain = hp.sweep(pairs, on_progress=False)
    for other in (again, plain):
        assert other.effects.equals(first.effects)
    ablated = hp.ablate(pairs, "1.2", controls=0, kinds=list(KINDS), on_progress=False).named
    own = first.effects.query("heads == '1.2' and role == 'head'")
    assert own["donor"].tolist() == ablated.sort_values(["pair", "kind"])["donor"].tolist()
    all_of, some_of = (
        keys_of(pairs.study, pairs.vlm, listed, None)
        for listed in (pairs.entries, pairs.entries[:2])
    )
    assert not set(all_of.values()) & set(some_of.values())


def test_source_other_stands_for_both_kinds() -> None:
    options = Study.make(None, {"ablate.source": "other"}).ablate
    assert options.kinds == ("zero", "mean", *KINDS)
    assert (
        Study.make(None, {"sweep.source": "other", "sweep.kinds": ["resample"]}).sweep.kinds
        == KINDS
    )
    assert Study.make(None, {"ablate.source": "twin"}).ablate.kinds == ("zero", "mean", "resample")


def test_pairs_of_another_length_are_refused_in_one_line() -> None:
    pairs = opened((QUESTION, "is there a red square in the image ?"))
    with pytest.raises(InputError, match=r"no other pair has a prompt like that of .* tokens"):
        hp.ablate(pairs, "0.1", controls=0, on_progress=False)


def test_one_pair_alone_is_refused_before_the_model_loads(tmp_path: Path) -> None:
    tiny_study(tmp_path)
    for verb, flag in (("ablate", ("--source", "other")), ("sweep", ("--kinds", "resample-same"))):
        line = refused_early(verb, *of_pair(tmp_path), *flag, "--out", tmp_path / "out")
        assert line.startswith("--kinds: resample-") and "Add --pairs" in line
    session = open_session(tiny_study(tmp_path), any_model("plain"))
    with pytest.raises(InputError, match="of one pair"):
        hp.ablate(session, "0.1", source="other")
    line = refused_early("combine", *of_pair(tmp_path), "--kinds", "resample-other")
    assert line.startswith("--kinds:")
    assert "resample-other" in headpatch("ablate", "--help").out


def test_a_change_without_another_pair_is_refused(tmp_path: Path) -> None:
    session = open_session(tiny_study(tmp_path), any_model("plain"), "answer")
    with pytest.raises(ValueError, match="needs another pair"):
        intervene(session, [Intervention(HeadSet.of(Head(0, 0)), "resample-other", "noising")])


def test_the_planted_circuit_carries_the_answer_and_nothing_else_of_a_pair(tmp_path: Path) -> None:
    """So z of any pair's other answer does what the twin's does, and of the same answer nothing."""
    place = save_planted(tmp_path / "model")
    planted_dataset(tmp_path / "pairs", 8)
    flags = ["--model", place, "--pairs", tmp_path / "pairs", "--heads", "1.1,0.3", "--controls", 0]
    tables = {}
    for source in ("twin", "other"):
        out = tmp_path / source
        done("ablate", *flags, "--kinds", "resample", "--source", source, "--out", out)
        means = read_table(out / "effects_mean.csv")
        tables |= {kind: rows["normalized"].to_numpy() for kind, rows in means.groupby("kind")}
    assert set(tables) == {"resample", *KINDS}
    np.testing.assert_allclose(tables["resample"][:4], [2 / 8, 2 / 8, 0, 4 / 8], atol=1e-5)
    np.testing.assert_allclose(tables["resample-other"], tables["resample"], atol=1e-5)
    np.testing.assert_allclose(tables["resample-same"], 0, atol=1e-5)
    record = yaml.safe_load((tmp_path / "other" / "run.yaml").read_text(encoding="utf-8"))
    assert record["study"]["ablate"]["source"] == "other"
    donors = set(read_table(tmp_path / "other" / "effects.csv")["donor"].dropna()) - {""}
    assert len(donors) > 2 and donors <= {f"p0{index}" for index in range(8)}

"""A folder's run.yaml keeps a record of every verb whose files lie there, and of their content."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from headpatch.core.output.records import WRITTEN, Records
from headpatch.core.output.staging import staged
from headpatch.core.study.study import Study
from headpatch.errors import InputError

ABLATED, SWEPT = "heads,control_n\n", "heads,attention_rank\n"


def write(folder: Path, verb: str, files: Mapping[str, str], seed: int = 0) -> None:
    """Write a run of a verb as the verbs do."""
    with staged(folder, verb) as stage:
        for name, text in files.items():
            (stage / name).write_text(text)
        content = {"study": {"seed": seed}, "run": {"noise_floor": seed / 10}}
        (stage / "run.yaml").write_text(yaml.safe_dump(content))


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()} - {"run.yaml"}


def test_a_later_verb_leaves_the_record_of_an_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, "sweep", {"effects.csv": SWEPT, "sweep.png": "map"}, seed=1)
    write(tmp_path, "rank", {"heads.csv": "ranked"}, seed=2)
    content = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert (content["run"]["verb"], content["study"]) == ("rank", {"seed": 2})
    assert content["earlier"]["sweep"]["run"]["noise_floor"] == 0.1
    records = Records.read(tmp_path)
    assert [one.verb for one in records.every] == ["rank", "sweep"]
    assert [one.verb for one in records.wrote("sweep.png")] == ["sweep"]
    assert [one.verb for one in records.wrote("heads.csv")] == ["rank"]
    assert records.wrote("notes.txt") == ()


def test_a_verb_is_replayed_from_its_own_record_and_others_from_the_latest(tmp_path: Path) -> None:
    write(tmp_path, "sweep", {"effects.csv": SWEPT}, seed=1)
    write(tmp_path, "rank", {"heads.csv": "ranked"}, seed=2)
    seeds = {
        verb: Study.make(tmp_path / "run.yaml", verb=verb).seed
        for verb in ("sweep", "rank", "cut", None)
    }
    assert seeds == {"sweep": 1, "rank": 2, "cut": 2, None: 2}


def test_a_verb_that_runs_again_replaces_its_own_record_alone(tmp_path: Path) -> None:
    write(tmp_path, "sweep", {"effects.csv": SWEPT, "approx.pt": "estimates"}, seed=1)
    write(tmp_path, "rank", {"heads.csv": "ranked"}, seed=2)
    write(tmp_path, "sweep", {"effects.csv": SWEPT}, seed=3)
    records = Records.read(tmp_path)
    assert [(one.verb, one.study["seed"]) for one in records.every] == [("sweep", 3), ("rank", 2)]
    assert names(tmp_path) == {"effects.csv", "heads.csv"}


def test_who_loses_its_table_loses_its_record_and_what_is_left_of_its_files(tmp_path: Path) -> None:
    write(tmp_path, "ablate", {"effects.csv": ABLATED, "head_effects.png": "drawn"}, seed=1)
    write(tmp_path, "sweep", {"effects.csv": SWEPT, "sweep.png": "map"}, seed=2)
    assert [one.verb for one in Records.read(tmp_path).every] == ["sweep"]
    assert names(tmp_path) == {"effects.csv", "sweep.png"}


def test_claims_go_when_the_verdict_that_judged_them_is_run_again(tmp_path: Path) -> None:
    write(tmp_path, "verdict", {"verdicts.csv": "a", "gate.csv": "b"}, seed=1)
    write(tmp_path, "claims", {"claims.csv": "c", "followed.csv": "d"}, seed=1)
    assert [one.verb for one in Records.read(tmp_path).every] == ["claims", "verdict"]
    write(tmp_path, "verdict", {"verdicts.csv": "a", "gate.csv": "b"}, seed=2)
    assert [one.verb for one in Records.read(tmp_path).every] == ["verdict"]
    assert names(tmp_path) == {"verdicts.csv", "gate.csv"}


@pytest.mark.parametrize(("gate", "owners"), [("same", ["rank", "verdict"]), ("new", ["rank"])])
def test_a_gate_of_two_verbs_is_that_of_both_if_it_is_the_same(
    tmp_path: Path, gate: str, owners: list[str]
) -> None:
    write(tmp_path, "verdict", {"verdicts.csv": "a", "gate.csv": "same"})
    write(tmp_path, "rank", {"heads.csv": "b", "gate.csv": gate})
    records = Records.read(tmp_path)
    assert [one.verb for one in records.wrote("gate.csv")] == owners
    judged = records.of("verdict")
    assert judged is not None
    assert records.changed(judged, ["gate.csv"]) == ([] if gate == "same" else ["gate.csv"])
    write(tmp_path, "rank", {"heads.csv": "one pair's"})
    assert "gate.csv" in names(tmp_path)  # it is the verdict's still


def test_what_was_changed_after_the_run_is_named(tmp_path: Path) -> None:
    write(tmp_path, "cut", {"cuts.csv": "a\n1\n", "cuts.png": "drawn"})
    wanted = ["cuts.csv", "cuts.png", "run.yaml"]

    def changed() -> list[str]:
        records = Records.read(tmp_path)
        return records.changed(records.every[0], wanted)

    assert changed() == []
    (tmp_path / "cuts.csv").write_bytes(b"a\r\n1\r\n")  # as git may check it out
    assert changed() == []
    (tmp_path / "cuts.csv").write_text("a\n2\n")
    assert changed() == ["cuts.csv"]
    path = tmp_path / "run.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert changed() == ["run.yaml", "cuts.csv"]
    (tmp_path / "cuts.csv").unlink()
    assert changed() == ["run.yaml"]
    records = Records.read(tmp_path)
    with pytest.raises(InputError, match=r"run\.yaml was changed after.*`checksum: edited`"):
        records.refuse_changed("--out", records.every[0], wanted)
    path.write_text(re.sub("checksum: .*", "checksum: edited", path.read_text()))
    assert changed() == []


@pytest.mark.parametrize("key", ["checksum", "files", "verb"])
def test_a_damaged_key_does_not_make_a_record_that_of_an_earlier_version(
    tmp_path: Path, key: str
) -> None:
    write(tmp_path, "cut", {"cuts.csv": "a"})
    path = tmp_path / "run.yaml"
    path.write_text(path.read_text().replace(f"  {key}:", f"  {key[:-1]}_:"))
    records = Records.read(tmp_path)
    assert records.changed(records.every[0], ["run.yaml"]) == ["run.yaml"]


def test_a_record_that_is_cut_is_not_taken_for_that_of_an_earlier_version(tmp_path: Path) -> None:
    """Wherever its file ends: what is left of it is damaged, or counts as changed."""
    for verb, name in (("cut", "cuts.csv"), ("path", "path.csv")):
        write(tmp_path, verb, {name: "a"})
    path = tmp_path / "run.yaml"
    text, whole = path.read_text(), Records.read(tmp_path).every
    for end in range(len(text)):
        path.write_text(text[:end])
        try:
            left = Records.read(tmp_path).every
        except InputError:
            continue
        assert all(one.changed or one in whole for one in left), text[:end]


def test_a_damaged_name_of_an_earlier_record_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "cut", {"cuts.csv": "a"})
    write(tmp_path, "path", {"path.csv": "b"})
    path = tmp_path / "run.yaml"
    path.write_text(path.read_text().replace("  cut:", "  cot:"))
    assert [one.verb for one in Records.read(tmp_path).every] == ["path", "cut"]


def test_a_record_without_a_verb_is_that_of_the_only_verb_there(tmp_path: Path) -> None:
    """As an earlier version wrote it: of two verbs it may be either's, and is nobody's then."""
    old = yaml.safe_dump({"study": {"seed": 7}, "run": {"seed": 7}})
    (tmp_path / "run.yaml").write_text(old)
    (tmp_path / "heads.csv").write_text("ranked")
    records = Records.read(tmp_path)
    assert records.wrote("heads.csv") == records.wrote("anything") == records.every
    write(tmp_path, "cut", {"cuts.csv": "a"})
    found = [(one.verb, one.study["seed"]) for one in Records.read(tmp_path).every]
    assert found == [("cut", 0), ("rank", 7)]
    (tmp_path / "run.yaml").write_text(old)
    write(tmp_path, "path", {"path.csv": "b"})
    assert [one.verb for one in Records.read(tmp_path).every] == ["path"]


def test_each_verb_has_a_file_of_its_own() -> None:
    first = [names[0] for names in WRITTEN.values()]
    others = [name for names in WRITTEN.values() for name in names[1:]]
    assert len(set(first)) == len(first)
    assert set(first) & set(others) == {"effects.csv"}  # ablate's; sweep's has other columns


@pytest.mark.parametrize(
    "text", ["", "[", "study: 1\nrun: 2\n", "run: {}\n", "- a\n", "\0", "a: b"]
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=r"run\.yaml: it cannot be read"):
        Records.read(tmp_path)

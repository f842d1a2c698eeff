"""Rows of single pictures: the same accuracy, to the row, as plain transformers with hooks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import headpatch as hp
from headpatch.core.store import Store
from headpatch.heads import Head, HeadSet
from headpatch.models.vlm import VLM
from headpatch.models.wording import prompt_text
from tests.command import headpatch, printed, refused, refused_early
from tests.families import builders
from tests.planted import planted, planted_image, save_planted
from tests.tiny import QUESTION, SHAPES, noise_image, tiny_vlm

LOOKERS = "1.1,0.2,0.3,1.0"
"""Heads of the planted circuit that together carry the answer Yes: it becomes No without them."""


def planted_rows(folder: Path, count: int = 6) -> list[dict[str, str]]:
    """Pictures with and without the object, by turns; each a scene of its own."""
    rows = []
    for place in range(count):
        found, name = place % 2 == 0, f"{place}.png"
        planted_image(found, place % 4 // 2, place // 2 % 2, (3, place % 4)).save(folder / name)
        rows.append({"image": name, "question": QUESTION, "answer": "yes" if found else "no",
                     "scene": f"s{place}", "category": "odd" if place % 3 else "even"})  # fmt: skip
    return rows


def write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.csv") -> Path:
    path = folder / name
    if name.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    elif name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@torch.no_grad()
def plainly(vlm: VLM, image: Any, question: str, heads: list[Head]) -> int:
    """The likeliest first token by the model itself, z zeroed by a hook on the projections."""
    handles = []

    def zeroing(head: Head) -> Any:
        width = vlm.stack(head.tower).head_dim

        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            z = args[0].clone()
            where = -1 if head.tower == "lm" else slice(None)
            z[..., where, head.head * width : (head.head + 1) * width] = 0
            return (z, *args[1:])

        return hook

    for head in heads:
        module = vlm.stack(head.tower).outputs[head.layer]
        handles.append(module.register_forward_pre_hook(zeroing(head)))
    text = prompt_text(vlm, question)
    bos = vlm.processor.tokenizer.bos_token
    inputs = vlm.processor(images=[image], text=[text], return_tensors="pt",
                           add_special_tokens=not text.startswith(bos or "\0"))  # fmt: skip
    inputs = {key: value for key, value in inputs.items() if torch.is_tensor(value)}
    try:
        return int(vlm.model(**inputs).logits[0, -1].argmax())
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(
    ("name", "seen"),
    [("grouped-query", False), ("wide-heads", False), ("phi3", False), ("qwen2_5_vl", False),
     ("gemma3", False), ("grouped-query", True), ("qwen2_5_vl", True)],
)  # fmt: skip
def test_every_row_is_answered_as_plain_transformers_with_hooks_answers_it(
    name: str, seen: bool
) -> None:
    """`seen`: with heads of the vision tower among them."""
    made = {**builders.BUILDERS, **builders.DECODERS}
    vlm = tiny_vlm(SHAPES[name]) if name in SHAPES else builders.make(made[name]())
    grid = vlm.lm.grid
    heads = [Head(layer, layer % grid.heads) for layer in range(grid.layers)]
    if seen:
        heads = [Head(0, 0, "vision"), Head(0, 1, "vision"), *heads[:1]]
    pictures = [noise_image(seed, (56, 56)) for seed in range(8)]
    asked = ["Is it red?", "Is it red? Is it red?"]
    answers = ["Yes", "No"]
    rows = [{"image": one, "question": asked[at % 2], "answer": answers[at // 2 % 2]}
            for at, one in enumerate(pictures)]  # fmt: skip
    quiet = {"controls": 1, "on_progress": False}
    found = hp.evaluate(rows, ",".join(map(str, heads)), vlm=vlm, **quiet)
    tokenizer = vlm.processor.tokenizer
    right = []
    for changed in ([], heads):
        tokens = [plainly(vlm, one["image"], one["question"], changed) for one in rows]
        texts = [tokenizer.decode([token]).strip() for token in tokens]
        said = found.rows[found.rows["heads"] == (str(HeadSet(tuple(heads))) if changed else "")]
        compared = [(a, b) for a, b in zip(said["said"], texts, strict=True) if a != b and b]
        assert compared == []
        right.append([text.casefold() == row["answer"].casefold()
                      for text, row in zip(texts, rows, strict=True)])  # fmt: skip
        assert said["right"].tolist() == right[-1]
    accuracy = found.table[found.table["metric"] == "accuracy"].iloc[0]
    assert (accuracy["base"], accuracy["value"]) == (np.mean(right[0]), np.mean(right[1]))


def test_the_circuits_answers_by_hand(tmp_path: Path) -> None:
    """Without the four heads it says No to all: 3 of 6 right answers lost, none gained."""
    path = write(tmp_path, planted_rows(tmp_path))
    study = hp.Study().override({"pairs.resamples": 200})
    found = hp.evaluate(
        path,
        LOOKERS,
        study,
        planted().vlm,
        controls=1,
        each=True,
        factor="category",
        on_progress=False,
    )
    whole = found.table[(found.table["subset"] == "") & (found.table["heads"] == "0.2+0.3+1.0+1.1")]
    for scoring in ("word", "choice"):
        one = whole[whole["scoring"] == scoring].set_index("metric")
        assert one["base"].to_dict() == dict(accuracy=1, yes_rate=0.5, precision=1, recall=1, f1=1)
        assert one.loc["accuracy", ["value", "lost", "gained", "p"]].tolist() == [0.5, 3, 0, 0.25]
        assert one.loc["yes_rate", "value"] == one.loc["recall", "value"] == 0
        assert np.isnan(one.loc["precision", "value"])
    assert set(found.table["subset"]) == {"", "odd", "even"}
    assert found.table["heads"].nunique() == 5
    assert "right answers lost 3, gained 0 (" in found.summary
    assert "q = " in found.summary and "random heads of the same layers" in found.summary


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "coco_pope.json", "rows.parquet"])
def test_rows_are_read_from_every_kind_of_file(name: str, tmp_path: Path) -> None:
    """POPE's own names of columns are known; JSON lines may be called .json, as POPE's are."""
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    rows: list[dict[str, Any]] = planted_rows(tmp_path, 4)
    if name == "coco_pope.json":
        names = {"question": "text", "answer": "label"}
        rows = [{names.get(key, key): one for key, one in row.items()} for row in rows]
    if name.endswith(".parquet"):
        rows = [row | {"image": {"bytes": (tmp_path / row["image"]).read_bytes(), "path": None}}
                for row in rows]  # fmt: skip
    found = hp.evaluate(write(tmp_path, rows, name), LOOKERS, vlm=planted().vlm, controls=0,
                        on_progress=False)  # fmt: skip
    assert found.table.loc[0, ["base", "value", "rows"]].tolist() == [1.0, 0.5, 4]


def test_a_row_that_cannot_be_asked_is_listed_and_the_others_are_asked(tmp_path: Path) -> None:
    rows = planted_rows(tmp_path, 4)
    (tmp_path / "no.png").write_bytes(b"no picture")
    bad: list[dict[str, Any]] = [
        {"image": "gone.png"}, {"image": "no.png"}, {"answer": ""}, {"answer": "a triangle"},
        {"answer": "yes", "choices": "left,right"}, {"question": ""},
    ]  # fmt: skip
    path = write(tmp_path, [*rows, *(rows[0] | {"scene": "x"} | one for one in bad)])
    found = hp.evaluate(path, LOOKERS, vlm=planted().vlm, controls=0, on_progress=False)
    assert found.table.loc[0, ["base", "rows"]].tolist() == [1.0, 4]
    assert sorted(found.refused["line"]) == [6, 7, 8, 9, 10, 11]
    words = " ".join(found.refused["reason"])
    for reason in (
        "there is no file",
        "no.png",
        "no answer",
        "not one token",
        "choices",
        "no question",
    ):
        assert reason in words
    shown = printed(found.origin.verb.question().view(found.files(), found.origin.context))
    assert "6 could not be asked" in shown and "Rows that could not be asked" in shown


def test_groups_have_naturalbenchs_scores(tmp_path: Path) -> None:
    """Of the two groups of two pictures × two questions, without the heads: no Yes is right."""
    rows = []
    for group in range(2):
        for found in (True, False):
            name = f"{group}{found}.png"
            planted_image(found, other=(3, group)).save(tmp_path / name)
            for asked, flip in ((QUESTION, False), (f"{QUESTION} {QUESTION}", False)):
                rows.append({"image": name, "question": asked, "group": f"g{group}",
                             "answer": "Yes" if found != flip else "No"})  # fmt: skip
    found = hp.evaluate(write(tmp_path, rows), LOOKERS, vlm=planted().vlm, controls=0,
                        on_progress=False)  # fmt: skip
    table = found.table[found.table["scoring"] == "word"].set_index("metric")
    scores = ["question_accuracy", "image_accuracy", "group_accuracy"]
    assert table.loc[scores, "base"].tolist() == [1, 1, 1]
    assert table.loc[scores, "value"].tolist() == [0, 0.5, 0]
    assert table.loc[scores, "rows"].tolist() == [4, 4, 2]
    assert (table["scenes"] == 2).all()  # a group is one


def test_means_are_over_the_rows_and_scaling_by_one_changes_nothing(tmp_path: Path) -> None:
    """1.1 writes vote 2 with the object, 0 without: over rows, half and half, it writes 1."""
    rows = [row | {"image": str(tmp_path / row["image"])} for row in planted_rows(tmp_path, 4)]
    found = hp.evaluate(rows, "1.1", vlm=planted().vlm, kinds=["mean", "scale"], alpha=1.0,
                        controls=0, on_progress=False)  # fmt: skip
    margins = {kind: part["margin"].tolist() for kind, part in found.rows.groupby("kind")}
    assert margins[""] == pytest.approx([4, 4, 4, 4], abs=1e-3)
    assert margins["scale"] == pytest.approx(margins[""], abs=1e-4)
    assert margins["mean"] == pytest.approx([3, 3, 3, 3], abs=1e-3)
    assert found.noise_floor is not None and found.noise_floor < 1e-4


def test_texts_are_scored_by_a_function_or_by_name(tmp_path: Path) -> None:
    table, vlm = write(tmp_path, planted_rows(tmp_path, 4)), planted().vlm
    quiet = {"vlm": vlm, "controls": 0, "on_progress": False, "generate": 3}

    def length(text: str, row: Any) -> float:
        assert row["category"] in ("odd", "even") and row["answer"]
        return len(text) / 2

    found = hp.evaluate(table, LOOKERS, score=length, **quiet)
    assert found.table[["scoring", "metric", "base"]].values.tolist()[0] == [
        "length",
        "score",
        1.25,
    ]
    by_name = hp.evaluate(table, LOOKERS, score="exact", **quiet)
    assert by_name.table.loc[0, ["scoring", "base", "value"]].tolist() == ["exact", 1.0, 0.5]
    pope = hp.evaluate(table, LOOKERS, **quiet)  # every answer is Yes or No
    assert set(pope.table["metric"]) == {"accuracy", "yes_rate", "precision", "recall", "f1"}
    words = tmp_path / "synonyms.txt"
    words.write_text("yes\nno\n")
    rows = [row | {"objects": "yes", "image": str(tmp_path / row["image"])}
            for row in planted_rows(tmp_path, 4)]  # fmt: skip
    chair = hp.evaluate(rows, LOOKERS, score="chair", synonyms=str(words), **quiet)
    assert chair.table.set_index("metric")["base"].to_dict() == {"chair_i": 0.5, "chair_s": 0.5}


@pytest.mark.parametrize("generate", [0, 2])
def test_a_run_that_is_stopped_after_every_row_finds_the_same(
    generate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row | {"image": str(tmp_path / row["image"])} for row in planted_rows(tmp_path, 4)]
    how = {"vlm": planted().vlm, "controls": 1, "on_progress": False, "kinds": ["zero", "mean"]}
    how |= {"generate": generate}
    whole = hp.evaluate(rows, LOOKERS, **how)
    write_unit, stops, found = Store._write, 0, None

    def stop(self: Store, key: str, content: Any, count: int) -> None:
        write_unit(self, key, content, count)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "_write", stop)
    while found is None:
        try:
            found = hp.evaluate(rows, LOOKERS, keep=tmp_path / "kept", **how)
        except KeyboardInterrupt:
            stops += 1
            assert stops < 20
    assert stops == 8  # a row's z, and what it is answered
    pd.testing.assert_frame_equal(found.table, whole.table)
    pd.testing.assert_frame_equal(found.rows, whole.rows)
    assert found.noise_floor == whole.noise_floor
    assert not list((tmp_path / "kept").iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the circuit, and a table of rows."""
    folder = tmp_path_factory.mktemp("evaluate")
    save_planted(folder / "model")
    write(folder, planted_rows(folder))
    return folder


def flags(place: Path, *more: object) -> list[object]:
    return ["evaluate", "--rows", place / "rows.csv", "--model", place / "model", *more]


def test_the_command_writes_shows_and_replays(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = flags(place, "--heads", LOOKERS, "--controls", 2, "--limit", 4, "--out", out)
    said = headpatch(*words)
    assert said.code == 0, said.err
    assert (
        "4 rows, sets of heads × kinds: 1 named" in said.err and "forward passes a row" in said.err
    )
    assert "right answers lost" in said.out and "evaluate.csv" in said.out
    names = {file.name for file in out.iterdir()}
    assert names == {"evaluate.csv", "rows.csv", "behaviour.png", "run.yaml"}
    again = headpatch("evaluate", "--config", out / "run.yaml", "--out", tmp_path / "two", "--json")
    assert again.json["rows"] == 4 and again.json["evaluation"][0]["metric"] == "accuracy"
    for name in ("evaluate.csv", "rows.csv"):
        assert (out / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = headpatch("report", out, "--json")
    assert "evaluate" in page.json["sections"], page.err


def test_shards_find_what_one_run_finds(place: Path, tmp_path: Path) -> None:
    own = flags(place, "--heads", "1.1", "--controls", 1, "--limit", 4)
    assert headpatch(*own, "--out", tmp_path / "whole").code == 0
    shared = tmp_path / "shared"
    for shard in ("1/2", "2/2"):
        assert headpatch(*own, "--out", shared, "--shard", shard).code == 0
    gathered = headpatch(*own, "--out", shared)
    assert gathered.code == 0, gathered.err
    for name in ("evaluate.csv", "rows.csv"):
        assert (shared / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--heads", "top:2"], "--heads: top:2, and single pictures, which rank no heads"),
        (["--heads", "9.9"], "9.9 is out of range"),
        (["--heads", "v99.1"], "v99.1 is out of range"),
        (
            ["--heads", "1.1", "--factor", "colour"],
            "--factor: colour; expected a column of the rows: category",
        ),
        (["--ranking", "nowhere"], "--ranking: there is no nowhere"),
        (["--verdict", "nowhere"], "--verdict: nowhere holds no verdicts.csv"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    more: list[str], expected: str, place: Path, tmp_path: Path
) -> None:
    assert expected in refused(*flags(place, *more, "--out", tmp_path / "out", "--controls", 0))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--rows", "gone.csv"], "--rows: gone.csv: No such file or directory"),
        (["--score", "exact"], "--score: exact; expected --generate as well"),
        (["--generate", "3", "--score", "chair"], "--synonyms: chair without a table"),
        (["--generate", "3", "--kinds", "resample"], "expected --through prompt"),
        (["--generate", "3", "--heads", "v0.1"], "--heads: v0.1, and --generate"),
        (["--pairs", "pairs"], "--rows, --pairs: both of them"),
        (["--kinds", "resample"], "--kinds: resample, and single pictures"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_a_model_loads(
    more: list[str], expected: str, place: Path, tmp_path: Path
) -> None:
    assert expected in refused_early(*flags(place, *more, "--out", tmp_path / "out"))


def test_a_ranking_and_a_verdict_name_heads(place: Path, tmp_path: Path) -> None:
    ranked = tmp_path / "ranked"
    ranked.mkdir()
    (ranked / "heads.csv").write_text("rank,layer,head,diff\n2,0,2,0.1\n1,1,1,0.2\n3,0,0,0\n")
    said = headpatch(*flags(place, "--heads", "top:2", "--ranking", ranked, "--controls", 0,
                            "--out", tmp_path / "out", "--json"))  # fmt: skip
    assert said.code == 0, said.err
    assert said.json["evaluation"][0]["heads"] == "0.2+1.1"


def reweighted_rows(folder: Path) -> Path:
    rows = planted_rows(folder)
    for place, row in enumerate(rows):
        row["region"] = ("top-left", "0.5,0,1,0.5", "0,0,24,24")[place % 3]
    return write(folder, rows)


def test_each_alpha_is_a_change_and_a_region_is_no_factor(tmp_path: Path) -> None:
    study = hp.Study().override({"pairs.resamples": 100})
    path, vlm = reweighted_rows(tmp_path), planted().vlm
    options = {"kinds": ["reweight", "zero"], "alpha": (-1.0, 0.5), "controls": 1}
    for toward in ("image", "region"):
        found = hp.evaluate(path, "1.1", study, vlm, toward=toward, on_progress=False, **options)
        one = found.table[found.table["metric"] == "accuracy"]
        ran = one[["kind", "alpha", "toward"]].astype(object)
        ran = ran.where(one[["kind", "alpha", "toward"]].notna(), None).to_numpy().tolist()
        each = [["reweight", -1.0, toward], ["reweight", 0.5, toward], ["zero", None, None]]
        assert ran == 2 * each  # by word and by choice
        assert f"Re-weighting the attention of 1.1 to the {toward} by -1 (answer)" in found.summary
    assert "region" not in found.rows  # it is no factor
    with pytest.raises(hp.InputError, match="--factor: region; expected a column of the rows"):
        hp.evaluate(path, "1.1", study, vlm, factor="region", on_progress=False, **options)


def test_a_row_without_a_region_is_refused_where_attention_is_turned_to_it(tmp_path: Path) -> None:
    rows = planted_rows(tmp_path)
    for place, row in enumerate(rows):
        row["region"] = "" if place == 2 else "top-left"
    found = hp.evaluate(
        write(tmp_path, rows), "1.1", hp.Study(), planted().vlm, toward="region",
        kinds=["reweight"], controls=0, on_progress=False,
    )  # fmt: skip
    assert found.refused.to_numpy().tolist() == [
        ["0003", 4, "--toward: region, and none is named; expected a region of the picture"]
    ]


def test_one_pair_that_is_asked_two_questions_wants_the_answer_of_each(tmp_path: Path) -> None:
    session = hp.open_session(hp.Study().override({"force": True}), planted().vlm, "answer", (
        hp.make_pair(planted_image(True), None, QUESTION, "top-left",
                     question_without=f"{QUESTION} {QUESTION}", answers=("No", "Yes"))
    ))  # fmt: skip
    found = hp.evaluate(session, "1.1", controls=0, on_progress=False)
    own = found.rows[found.rows["heads"] == ""]
    assert own["question"].tolist() == [QUESTION, f"{QUESTION} {QUESTION}"]
    assert own["answer"].tolist() == ["No", "Yes"]

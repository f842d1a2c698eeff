"""The study file: what is written reads back, and nothing wrong is taken."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headpatch.core.study.options import DrawOptions
from headpatch.core.study.study import Expected, Published, Study
from headpatch.questions.ablate import AblateOptions
from headpatch.questions.rank import RankOptions
from tests import refusals

index = st.integers(0, 31)
unit = st.floats(0, 1).map(lambda number: round(number, 3))
# Any language, and line ends; not the control characters that PyYAML itself folds away.
letters = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.just("\n")
text = st.text(letters, min_size=1, max_size=30)
studies = st.builds(
    Study,
    name=text,
    model=st.sampled_from(["demo", "llava-hf/llava-1.5-7b-hf", "/models/mine"]),
    device=st.sampled_from(["auto", "cpu", "cuda:1"]),
    dtype=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    with_=st.sampled_from(["bundled:1.jpg", "/pictures/a b.png", "/ü/№1.jpg"]),
    without=st.sampled_from(["bundled:2.jpg", "/pictures/b.png"]),
    question=text,
    region=st.sampled_from(["top-left", "center", "0.1,0.2,0.5,1", "bottom-right-corner"]),
    answers=st.tuples(text, text),
    prompt=st.none() | text,
    out=text,
    seed=st.integers(),
    force=st.booleans(),
    rank=st.builds(RankOptions, top=st.integers(1, 99), overlays=st.integers(0, 9)),
    ablate=st.builds(
        AblateOptions,
        heads=st.sampled_from(["top:3", "24.10", "24.17,23.20", "layer:24", "24.0-24.31"]),
        kinds=st.sampled_from([("zero",), ("mean", "zero"), ("zero", "mean", "resample")]),
        directions=st.sampled_from([("noising",), ("noising", "denoising")]),
        positions=st.sampled_from(["answer", "question", "image", "all"]),
        controls=st.integers(0, 50),
        reference=st.none() | st.integers(0, 50),
    ),
    expected=st.none()
    | st.builds(
        Expected,
        source=text,
        heads=st.lists(
            st.builds(Published, layer=index, head=index, diff=unit, with_=unit, without=unit),
            max_size=3,
        ).map(tuple),
        quadrants=st.dictionaries(st.just("top-left"), st.tuples(unit, unit)),
        divergence=st.dictionaries(st.sampled_from(["kl", "js", "js_distance"]), unit),
        vision_diff=st.dictionaries(st.integers(0, 23), unit, max_size=3),
    ),
)


def written(folder: Path, content: str | dict) -> Path:
    file = folder / "study.yaml"
    file.write_text(
        content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8"
    )
    return file


def refusal(config: Path | None, flags: dict | None = None) -> str:
    return refusals.refusal(Study.make, config, flags)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # beartype draws items
@given(studies)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_study_reads_back(tmp_path: Path, study: Study) -> None:
    assert Study.make(written(tmp_path, study.to_yaml())).portable() == study.portable()


def test_the_default_study_is_the_empty_file() -> None:
    assert Study.make() == Study()
    assert Study.make(None, {"question": None}) == Study()


def test_the_default_study_has_its_pictures() -> None:
    pair = Study().pair()
    assert pair.with_image.mode == pair.without_image.mode == "RGB"
    assert (pair.question, pair.region.name) == (Study().question, "top-left")


def test_a_run_file_is_a_study(tmp_path: Path) -> None:
    study = Study(name="again", seed=7, out="/results", draw=DrawOptions(folder="/pairs"))
    content = {"study": yaml.safe_load(study.to_yaml()), "run": {"seed": 7, "torch": "2.13"}}
    assert Study.make(written(tmp_path, content)) == study


def test_a_run_file_keeps_the_prompt_that_was_asked(tmp_path: Path) -> None:
    study = Study(question="Is it red?")
    run = {"seed": 7, "prompt": "May 1. USER: <image>\nIs it red? ASSISTANT:"}
    file = written(tmp_path, {"study": yaml.safe_load(study.to_yaml()), "run": run})
    again = Study.make(file, {"seed": 3}).override({"region": "left-half"})
    same, other = (f"{day}. USER: <image>\n{{question}} ASSISTANT:" for day in ("May 1", "May 2"))
    assert again.reworded(same) == study.reworded(other) == ()
    (said,) = again.reworded(other)
    assert repr(same) in said
    assert repr(other) in said
    for flags in ({"question": "Is it blue?"}, {"prompt": other}, {"model": "other"}):
        assert Study.make(file, flags).reworded(other) == ()  # it is another one for a reason
        assert again.override(flags).reworded(other) == ()


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path, {"question": "Q?", "seed": 1, "ablate": {"heads": "1.1", "controls": 4}}
    )
    study = Study.make(
        file, {"seed": 2, "ablate.heads": "2.2", "rank.top": 3, "question": None, "out": None}
    )
    assert (study.question, study.seed, study.rank.top) == ("Q?", 2, 3)
    assert (study.ablate.heads, study.ablate.controls) == ("2.2", 4)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "models/mine").mkdir(parents=True)
    file = written(tmp_path, {"with": "a.png", "without": "sub/b.png", "model": "models/mine"})
    study = Study.make(file)
    assert Path(study.with_) == tmp_path / "a.png"
    assert Path(study.without) == tmp_path / "sub/b.png"
    assert Path(study.model) == tmp_path / "models/mine"
    flags = {"with": "c.png", "without": "/d.png"}
    assert (Study.make(file, flags).with_, Study.make(file, flags).without) == ("c.png", "/d.png")
    hub = Study.make(written(tmp_path, {"model": "llava-hf/llava-1.5-7b-hf"}))
    assert hub.model == "llava-hf/llava-1.5-7b-hf"


def test_a_dataset_is_relative_to_the_file_too(tmp_path: Path) -> None:
    file = written(tmp_path, {"pairs": {"manifest": "mine/manifest.csv"}})
    assert Study.make(file).pairs.manifest == str(tmp_path / "mine/manifest.csv")
    assert Study.make(file, {"pairs.manifest": "other.csv"}).pairs.manifest == "other.csv"


def test_a_study_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Study().seed = 3
    with pytest.raises(ValidationError):
        Study().ablate.heads = "1.1"


@pytest.mark.parametrize(
    ("content", "parts"),
    {
        "qestion: hm": ["qestion", "unknown key", "question"],
        "ablate: {head: '1.1'}": ["ablate.head", "unknown key", "heads", "kinds"],
        "rank: {top: 5, tpo: 6}": ["rank.tpo", "unknown key", "top"],
        "seed: three": ["seed", "'three'", "whole number"],
        "seed: 1.5": ["seed", "whole number"],
        "force: 1": ["force", "true or false"],
        "force: maybe": ["force", "'maybe'", "true or false"],
        "question: [a]": ["question", "text"],
        "rank: {top: 0}": ["rank.top", "0", "at least 1"],
        "rank: 5": ["rank", "5", "mapping"],
        "ablate: {heads: 24-17}": ["24-17", "24.17"],
        "ablate: {kinds: []}": ["ablate.kinds"],
        "ablate: {kinds: 5}": ["ablate.kinds", "5", "list"],
        "ablate: {kinds: [zeor]}": ["ablate.kinds", "zeor", "zero"],
        "ablate: {positions: end}": ["ablate.positions", "answer"],
        "dtype: float64": ["dtype", "float64", "float32"],
        "answers: [Yes]": ["answers"],
        "answers: Yes": ["answers"],
        "answers: ['', No]": ["answers.0", "''", "at least 1 character"],
        "region: nowhere": ["region", "nowhere", "top-left"],
        "region: 0,0,1.5,1": ["region", "leaves the image"],
        "expected: {heads: []}": ["expected.source", "nothing", "a value"],
        "expected: {source: me, quadrants: {top: [0, 1]}}": ["quadrants.top", "'top-left'"],
        "expected: {source: me, quadrants: {top-left: [0, 0, 1]}}": ["top-left", "at most 2"],
        "expected: {source: me, vision_diff: {one: 1}}": ["vision_diff.one", "whole number"],
        "{seed: x, dtype: y, nonsense: z}": ["more wrong"],
        "1: 2": ["1: an unknown key", "question"],
        "": ["holds no mapping"],
        "- a\n- b": ["holds no mapping"],
        "just words": ["holds no mapping"],
        "a: b: c": ["is not YAML"],
        "a: [": ["is not YAML"],
        "question: 'open": ["is not YAML"],
        "!!python/object/apply:os.getcwd []": ["is not YAML"],
        "study: {seed: 1}": ["study", "unknown key"],
        "{study: [], run: {}}": ["holds no mapping"],
    }.items(),
    ids=repr,
)
def test_refused_in_one_line(tmp_path: Path, content: str, parts: list[str]) -> None:
    file = written(tmp_path, content)
    message = refusal(file)
    for part in parts:
        assert part in message


def test_a_wrong_value_names_its_file(tmp_path: Path) -> None:
    file = written(tmp_path, "seed: x")
    assert str(file) in refusal(file)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "--config" in refusal(tmp_path / "none.yaml")
    assert "--config" in refusal(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("question: \xe4".encode("latin-1"))
    assert "is not YAML" in refusal(tmp_path / "latin.yaml")


@pytest.mark.parametrize("given_one", ["with", "without"])
def test_one_picture_of_a_pair_is_not_enough(tmp_path: Path, given_one: str) -> None:
    assert "both pictures" in refusal(None, {given_one: "a.png"})
    assert "both pictures" in refusal(written(tmp_path, {given_one: "a.png"}))


def test_a_flag_with_a_wrong_value() -> None:
    assert "dtype" in refusal(None, {"dtype": "float8"})
    assert "40" in refusal(None, {"ablate.heads": "40"})
    assert "top: 0" in refusal(None, {"rank.top": 0})


def test_a_flag_into_a_section_that_is_no_mapping(tmp_path: Path) -> None:
    assert "rank" in refusal(written(tmp_path, "rank: 5"), {"rank.top": 3})

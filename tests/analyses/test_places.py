"""What the processor does to the picture reaches every figure of a region, or is said."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaImageProcessorPil

from headpatch.core.ask import ask
from headpatch.core.baseline_runs import survey
from headpatch.core.dataset import Pairs
from headpatch.core.gate_view import gate
from headpatch.core.question import Context
from headpatch.core.ranking import differences, masses
from headpatch.core.session import Session, open_session
from headpatch.core.stream_swaps import vision_classes
from headpatch.core.study.study import Study
from headpatch.engine.forward import Keep, forward
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.models.prompt import encode
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry, Manifest
from headpatch.pairs.pair import make_pair
from headpatch.pairs.region import Region
from headpatch.questions.ablate.question import ablate
from headpatch.questions.check.question import QUESTION as CHECK
from headpatch.questions.check.view import view
from headpatch.questions.rank.question import rank
from headpatch.questions.rollout.maps import roll_out
from tests.command import headpatch, printed
from tests.datasets import tiny_study, write_table
from tests.families import builders
from tests.families.builders import QUESTION
from tests.tiny import image_pair, noise_image, save_tiny

WIDE = (500, 140)
SQUARE = {"height": 56, "width": 56}


def llava(**options: object) -> VLM:
    """A tiny LLaVA of 4 x 4 patches with the image processor that LLaVA is published with."""
    vlm = builders.build("llava")
    vlm.processor.image_processor = LlavaImageProcessorPil(
        size={"shortest_edge": 56}, crop_size=SQUARE, **options
    )
    return vlm


def opened(
    folder: Path, vlm: VLM, size: tuple[int, int], region: str, positions: str | None = None
) -> Session:
    flags = {"ablate.kinds": ["zero"], "ablate.controls": 0}
    study = tiny_study(folder, size, question=QUESTION, region=region, **flags)
    return open_session(study, vlm, positions)


def asked_about(folder: Path, *regions: str) -> tuple[Entry, ...]:
    """The folder's pair, once for each region."""
    pair = {"with": "with.png", "without": "without.png", "question": QUESTION}
    rows = [pair | {"region": region, "scene": region} for region in regions]
    return Manifest.read(write_table(folder, rows)).entries


def test_a_picture_padded_to_a_square_is_found_inside_it() -> None:
    """300 x 180 in a square of 300: a patch is 75 pixels wide, and 60 rows of padding are above."""
    boxes = encode(llava(do_pad=True), [noise_image(0, (300, 180))], QUESTION).patches.boxes
    edges = [0, 1 / 12, 1 / 2, 11 / 12, 1]
    expected = [
        [left / 4, top, (left + 1) / 4, bottom]
        for top, bottom in itertools.pairwise(edges)
        for left in range(4)
    ]
    np.testing.assert_allclose(boxes, expected, atol=0.5 / 56)  # half a resampled pixel


def test_patches_of_padding_alone_have_no_place_and_no_share(tmp_path: Path) -> None:
    """500 x 140: the upper and the lower four patches show padding; the middle ones, half each."""
    session = opened(tmp_path, llava(do_pad=True), WIDE, "top-left", "answer")
    prompt = session.prompt
    assert len(prompt.patches.boxes) == len(prompt.image_positions) == 8
    first = int(prompt.spans.image[0])
    assert prompt.image_positions.tolist() == list(range(first + 4, first + 12))
    rows = session.base.trace.lm_rows[..., prompt.image_positions].double().numpy()
    found, inside = masses(session), [0, 1]  # the two left patches of the upper row
    share = rows[..., inside].sum(-1) / rows.sum(-1)
    np.testing.assert_allclose(found["with"], share[0], atol=1e-6)
    np.testing.assert_allclose(found["without_raw"], rows[1][..., inside].sum(-1), atol=1e-6)
    np.testing.assert_allclose(differences(session), share[0] - share[1], atol=1e-6)


def test_the_towers_padding_is_left_out_as_the_language_models_is(tmp_path: Path) -> None:
    session = opened(tmp_path, llava(do_pad=True), WIDE, "top-left")
    ranking = rank(session)
    trace = forward(session.vlm, session.prompt, keep=Keep(vision_rows=True))
    kept = ranking.with_run["vision_patch_rows"]
    torch.testing.assert_close(kept, trace.vision_patch_rows[0][..., 5:13].float())
    share = kept[..., :2].sum(-1) / kept.sum(-1)
    torch.testing.assert_close(
        ranking.spatial["vision_patch_with"], share.mean(1), atol=1e-6, rtol=0
    )
    assert vision_classes(session, 17)["region"].tolist() == [5, 6]
    maps = {one.stage: one.values for one in roll_out(session).maps if one.method == "rollout"}
    assert {values.shape[1] for values in maps.values()} == {8}


def test_no_part_of_the_picture_is_lost_in_silence(tmp_path: Path) -> None:
    """CLIP's crop shows 140 of 500 columns, from the 180th on: of the left half, 70 of 250."""
    session = opened(tmp_path, llava(), WIDE, "left-half")
    assert session.picture_shown == pytest.approx(0.28, abs=0.003)
    assert session.region_shown == pytest.approx(0.28, abs=0.003)
    assert session.cut_away == (
        "the processor shows the model 28% of the picture; 72% of the region is cut away"
    )
    whole = opened(tmp_path, llava(do_pad=True), WIDE, "left-half")
    assert (whole.picture_shown, whole.region_shown) == pytest.approx((1, 1))
    assert whole.cut_away == ""


def test_a_region_that_is_cut_away_is_not_a_question_to_change(tmp_path: Path) -> None:
    for force in (True, False):
        cut_away = r"^--region: 0,0,0.3,1 is cut away: .* 28% of"
        with pytest.raises(InputError, match=cut_away) as said:
            opened(tmp_path, llava(), WIDE, "0,0,0.3,1")
        assert "Change the question" not in str(said.value), force
    entries = asked_about(tmp_path, "center", "0.9,0,1,1")
    with pytest.raises(InputError, match=r"1 of 2 pairs .*line 3: .*0.9,0,1,1 is cut away"):
        survey(Study.make(None, {"force": True}), llava(), entries)


def test_of_an_object_that_is_cut_away_it_is_said_that_both_runs_are_identical(
    tmp_path: Path,
) -> None:
    """The pictures differ in their left fifth, of which CLIP's crop shows nothing."""
    first = noise_image(0, WIDE)
    other = first.copy()
    other.paste((255, 0, 0), (10, 10, 100, 130))
    pair = make_pair(other, first, QUESTION, Region.parse("0.4,0.2,0.6,0.8"))
    alike = r"^--with, --without: both runs are identical: .*28% of the picture"
    with pytest.raises(InputError, match=alike) as said:
        open_session(Study(), llava(), pair=pair)
    assert "Change the question" not in str(said.value)
    report = ask(CHECK, open_session(Study(force=True), llava(), pair=pair), {})
    assert any("Both runs are identical" in limit for limit in report.limits)
    shown = printed(view(report.files(), Context()))
    grid = shown.partition("The model's view")[2]
    assert "x where they differ and it is cut away" in shown and "x x" in grid
    assert "#" not in grid.partition("\n")[2].partition("Sweeps")[0]


def test_over_pairs_the_gate_says_which_runs_are_identical(tmp_path: Path) -> None:
    """By hand: the pair's pictures differ in their left fifth alone, which the crop hides."""
    first = noise_image(0, WIDE)
    other = first.copy()
    other.paste((255, 0, 0), (10, 10, 100, 130))
    for name, image in (("with", other), ("without", first)):
        image.save(tmp_path / f"{name}.png")
    entries = asked_about(tmp_path, "0.4,0.2,0.6,0.8")
    alike = "both runs are identical: the processor gives the model the same of both pictures; the "
    alike += "processor shows the model 28% of the picture; nothing of the region is cut away"
    with pytest.raises(InputError, match=r"none of 1 pairs.*identical.*Crop or pad both") as said:
        survey(Study(), llava(), entries)
    assert "other questions" not in str(said.value)
    (tmp_path / "b").mkdir()
    for name, image in zip(("with", "without"), image_pair(), strict=True):
        image.save(tmp_path / f"b/{name}.png")
    both = (*entries, replace(asked_about(tmp_path / "b", "center")[0], name="other"))
    found = survey(Study.make(None, {"force": True}), llava(), both)
    assert [one.reason == alike for one in found.gated] == [True, False]
    shown = printed(gate(found.gate_columns(), 1.0))
    assert "1 pair has two identical runs: the model is given the same of both pictures." in shown


def turned() -> VLM:
    """A LLaVA whose processor turns the picture by a quarter."""
    vlm = llava()
    images, real = vlm.processor.image_processor, vlm.processor.image_processor.preprocess

    def preprocess(pictures: list, *rest: object, **options: object) -> object:
        return real(
            [one.transpose(Image.Transpose.ROTATE_90) for one in pictures], *rest, **options
        )

    images.preprocess = preprocess
    return vlm


def test_where_places_are_unknown_shares_are_refused_and_heads_still_change(tmp_path: Path) -> None:
    vlm = turned()
    session = opened(tmp_path, vlm, WIDE, "top-left", "answer")
    assert session.cut_away == "" and np.isnan(session.picture_shown)
    for needs_places in (rank, masses, differences, roll_out):
        with pytest.raises(InputError, match=r"^--model: its image processor gives pixels") as said:
            needs_places(session)
        assert "\n" not in str(said.value)
    assert len(ablate(session, Head(1, 1)).effects)
    entries = asked_about(tmp_path, "top-left", "top-right")
    study = Study.make(None, {"force": True, "ablate.kinds": ["zero"], "ablate.controls": 0})
    found = survey(study, vlm, entries, "answer")
    with pytest.raises(InputError, match=r"^--model: its image processor"):
        rank(Pairs(study, vlm, found))
    assert len(ablate(Pairs(study, vlm, found, "answer"), Head(1, 1)).effects)


def test_pictures_of_one_size_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, asked = llava(), []
    images, real = vlm.processor.image_processor, vlm.processor.image_processor.preprocess

    def preprocess(pictures: list, *rest: object, **options: object) -> object:
        asked.append(pictures)
        return real(pictures, *rest, **options)

    monkeypatch.setattr(images, "preprocess", preprocess)
    encode(vlm, list(image_pair((90, 60))), QUESTION)
    assert len(asked) == 2 + 5  # five pictures of coordinates
    encode(vlm, [noise_image(3, (90, 60))], "Is it there?")
    assert len(asked) == 2 + 5 + 1
    images.do_pad = True  # and once more for other settings
    padded = encode(vlm, [noise_image(3, (90, 60))], QUESTION).patches
    assert len(asked) == 2 + 5 + 1 + 6
    assert padded.boxes[0, 2] == pytest.approx(1 / 4)


@pytest.mark.parametrize("verb", ["rank", "ablate --heads 1.1 --kinds zero --controls 0"])
def test_it_is_said_what_is_cut_away(tmp_path: Path, verb: str) -> None:
    save_tiny(tmp_path / "tiny")
    tiny_study(tmp_path, (80, 56))
    pictures = ["--with", tmp_path / "with.png", "--without", tmp_path / "without.png"]
    more = ["--model", tmp_path / "tiny", "--force", "--region", "left-half"]
    words = [*verb.split(), *pictures, *more]
    cut = "the processor shows the model 70% of the picture; 30% of the region is cut away"
    told = headpatch(*words, "--out", tmp_path / "told")
    assert told.err.splitlines() == [f"headpatch: {cut}"]
    assert f"Note: {cut}." in told.out.splitlines()
    script = headpatch(*words, "--out", tmp_path / "script", "--json")
    assert script.err.splitlines() == [f"headpatch: {cut}"]
    assert script.json["picture_shown"] == pytest.approx(0.7)
    assert script.json["region_shown"] == pytest.approx(0.7)

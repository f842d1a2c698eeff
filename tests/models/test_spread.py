"""A model spread over CPU memory and disk by Accelerate computes what it computes whole."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from headpatch.core.question import Verb
from headpatch.engine import from_layer, knockout, residual
from headpatch.engine.comparison import Check, Comparison
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import patch, run_pair
from headpatch.engine.widen import suffix_start, widen
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.models.load import load
from headpatch.models.prompt import encode
from headpatch.models.vlm import VLM
from tests.command import of_pair, ran
from tests.contract.cases import ASKED, study_of
from tests.planted import planted_folder
from tests.tiny import image_pair, save_tiny

QUESTION = "Is there anything in the top left corner?"


def split(vlm: VLM) -> dict[str, str]:
    """Every second decoder layer and the unembedding on disk, the rest in memory."""
    places = {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu", "lm_head": "disk"}
    text = "model.language_model"
    places |= {f"{text}.embed_tokens": "cpu", f"{text}.norm": "cpu", f"{text}.rotary_emb": "cpu"}
    return places | {
        f"{text}.layers.{layer}": ("disk", "cpu")[layer % 2] for layer in range(vlm.lm.grid.layers)
    }


def effects(vlm: VLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention rows of both runs, and every head's effect, plainly and by a widening pass."""
    prompt = encode(vlm, list(image_pair()), QUESTION)
    keep = Keep(lm_rows=True, z=("lm",), suffix=suffix_start(prompt.spans, "answer"))
    base = run_pair(vlm, prompt, keep, exact=True)
    asked = [Intervention(HeadSet.of(head), "resample", "noising") for head in vlm.lm.grid]
    found = [[one.effect for one in run(vlm, base, asked)] for run in (patch, widen)]
    assert base.trace.lm_rows is not None
    return base.trace.lm_rows, torch.tensor(found)


def test_cpu_and_disk_agree_with_memory(tmp_path: Path) -> None:
    whole = load(str(save_tiny(tmp_path)), "cpu")
    parts = load(str(tmp_path), dtype="float32", device_map=split(whole))
    assert "disk" in parts.model.hf_device_map.values()
    for one, other in zip(effects(whole), effects(parts), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_low_precision_on_disk_is_raised_to_float32(tmp_path: Path) -> None:
    """The vision tower and the projector, too; what lies on disk is left as it was."""
    whole = load(str(save_tiny(tmp_path)), "cpu", "bfloat16")
    places = split(whole) | {"model.multi_modal_projector": "disk"}
    del places["model.vision_tower"]
    tower = {name for name, _ in whole.model.model.vision_tower.named_children()} - {"encoder"}
    places |= {f"model.vision_tower.{name}": "cpu" for name in tower}
    layers = whole.model.model.vision_tower.encoder.layers
    places |= {
        f"model.vision_tower.encoder.layers.{layer}": ("disk", "cpu")[layer % 2]
        for layer in range(len(layers))
    }
    parts = load(str(tmp_path), dtype="bfloat16", device_map=places)
    before = [(one.dtype, one.device) for one in parts.model.parameters()]
    (rows, expected), (of_parts, found) = effects(whole), effects(parts)
    torch.testing.assert_close(of_parts, rows, atol=1e-5, rtol=1e-5)
    largest = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-5 * largest  # the same arithmetic
    assert (found[0] - found[1]).abs().max() <= 0.02 * largest  # 2^-9 relative a product
    assert [(one.dtype, one.device) for one in parts.model.parameters()] == before


def test_what_memory_does_not_hold_goes_to_disk_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`auto` on a machine that has as much memory as the weights take, 9/10 of it to be used."""
    whole = load(str(save_tiny(tmp_path)), "cpu")
    free = sum(weight.nbytes for weight in whole.model.parameters())
    found = "transformers.integrations.accelerate.accelerate_max_memory"
    monkeypatch.setattr(found, lambda *_: {"cpu": free})
    capfd.readouterr()
    parts = load(str(tmp_path), dtype="float32", device_map="auto")
    assert capfd.readouterr() == ("", "")
    places = parts.model.hf_device_map
    layers = {place for name, place in places.items() if "language_model.layers." in name}
    assert layers == {"cpu", "disk"}
    for one, other in zip(effects(whole), effects(parts), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the planted circuit and a pair."""
    return planted_folder(tmp_path_factory.mktemp("spread"))


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How far fast paths were off in each comparison with whole passes, in logits."""
    found: list[float] = []
    check, apart = Comparison.outcome, from_layer.apart

    def checked(comparison: Comparison) -> Check:
        made = check(comparison)
        found.append(made.worst)
        return made

    def resumed(*taken: Any) -> float:
        found.append(apart(*taken))
        return found[-1]

    monkeypatch.setattr(Comparison, "outcome", checked)
    for module in (knockout, residual):
        monkeypatch.setattr(module, "apart", resumed)
    return found


@pytest.mark.parametrize("verb", ASKED, ids=lambda verb: verb.name)
def test_every_question_is_answered_from_disk_as_from_memory(
    verb: Verb, place: Path, monkeypatch: pytest.MonkeyPatch, compared: list[float], undrawn: None
) -> None:
    """Through the command line, and by the fast paths."""
    study = {"region": "top-left", verb.name: study_of(verb, False)}
    config = place / f"{verb.name}.yaml"
    config.write_text(yaml.safe_dump(study))
    words = [verb.name, "--config", config, *of_pair(place)]
    ran(*words, "--out", place / f"{verb.name}-memory")
    compared.clear()
    free = sum(path.stat().st_size for path in (place / "model").glob("*.safetensors"))
    found = "transformers.integrations.accelerate.accelerate_max_memory"
    monkeypatch.setattr(found, lambda *_: {"cpu": free})
    with_map = ["--device-map", "auto", "--dtype", "float32"]
    ran(*words, *with_map, "--out", place / f"{verb.name}-disk")
    assert max(compared, default=0) <= 1e-4
    assert bool(compared) == (verb.name not in ("rank", "rollout"))
    for path in (place / f"{verb.name}-memory").glob("*.csv"):
        tables = [pd.read_csv(place / f"{verb.name}-{of}" / path.name) for of in ("memory", "disk")]
        expected, measured = (table.select_dtypes("number") for table in tables)
        pd.testing.assert_frame_equal(measured, expected, rtol=1e-5, atol=1e-5)


def test_low_precision_on_disk_is_exact_over_its_own_vision_tower(tmp_path: Path) -> None:
    whole = load(str(save_tiny(tmp_path)), "cpu")
    parts = load(str(tmp_path), dtype="bfloat16", device_map=split(whole))
    _, (plain, widened) = effects(parts)
    # Deviations are rounded to bfloat16: 2^-9 relative a product.
    torch.testing.assert_close(plain, widened, atol=0.02 * float(plain.abs().max()), rtol=0.02)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path)
    with pytest.raises(InputError, match="8bit or 4bit"):
        load(str(tmp_path), quantize="2bit")
    monkeypatch.setattr("headpatch.models.placement.installed", lambda name: name == "accelerate")
    with pytest.raises(InputError, match="bitsandbytes is not installed"):
        load(str(tmp_path), quantize="8bit")
    monkeypatch.setattr("headpatch.models.placement.installed", lambda name: False)
    with pytest.raises(InputError, match="accelerate is not installed"):
        load(str(tmp_path), device_map="auto")

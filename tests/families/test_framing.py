"""What stands around a question: a system turn, and pictures that are the same in both runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import headpatch as hp
from headpatch.core.store import unit_key
from headpatch.engine.forward import forward
from headpatch.engine.patching import run_pair
from headpatch.models.prompt import Prompt, encode
from headpatch.models.vlm import VLM
from headpatch.models.wording import image_token_id
from headpatch.pairs.framing import Framing
from tests.families.builders import QUESTION, build, built
from tests.refusals import refusal
from tests.tiny import image_pair, noise_image

SYSTEM = "Answer in one word."
PAIR = image_pair((84, 56))
ALIKE = (
    "llava",
    "llava_next",
    "qwen2_vl",
    "qwen3_vl",
    "idefics3",
    "gemma3",
    "internvl",
    "mistral3",
)
FOR_USERS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: <image>\n"
    "{{ m['content'][1]['text'] }} "
    "{% elif m['role'] == 'assistant' %}ASSISTANT: {{ m['content'][0]['text'] }}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def plainly(vlm: VLM, prompt: Prompt, pictures: list[list[Any]], system: str = "") -> Tensor:
    """LD of each run by transformers alone: template, processor and model."""
    said = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    shown = [{"type": "image"}] * len(pictures[0])
    asked = {"role": "user", "content": [*shown, {"type": "text", "text": QUESTION}]}
    processor, lds = vlm.processor, []
    text = processor.apply_chat_template([*said, asked], add_generation_prompt=True)
    assert prompt.text == text
    add = not text.startswith(processor.tokenizer.bos_token)
    for row, own in enumerate(pictures):
        batch = processor(images=own, text=[text], return_tensors="pt", add_special_tokens=add)
        given = {key: value for key, value in batch.items() if torch.is_tensor(value)}
        assert torch.equal(given["input_ids"][0], prompt.inputs["input_ids"][row])
        with torch.no_grad():
            logits = vlm.model(**given).logits[0, -1]
        lds.append(prompt.answers.ld(logits[None])[0])
    return torch.stack(lds)


def lds(vlm: VLM, prompt: Prompt) -> Tensor:
    return prompt.answers.ld(run_pair(vlm, prompt).trace.logits)


@pytest.mark.parametrize("name", ALIKE)
def test_a_system_turn_is_what_the_template_makes_of_it(name: str) -> None:
    vlm, before = built(name)
    before = encode(vlm, PAIR, QUESTION)
    prompt = encode(vlm, PAIR, QUESTION, framing=Framing(system=SYSTEM))
    torch.testing.assert_close(
        lds(vlm, prompt), plainly(vlm, prompt, [[one] for one in PAIR], SYSTEM), atol=2e-5, rtol=0
    )
    ids, mark = prompt.inputs["input_ids"][0], image_token_id(vlm)
    assert torch.equal(prompt.spans.image, (ids == mark).nonzero().flatten())
    later = prompt.spans.length - before.spans.length
    assert later > 0
    assert torch.equal(prompt.spans.image, before.spans.image + later)
    assert torch.equal(prompt.image_positions, before.image_positions + later)
    np.testing.assert_array_equal(prompt.patches.boxes, before.patches.boxes)


def test_a_system_turn_that_the_template_has_not_is_refused_in_one_line() -> None:
    plain = build("llava")
    for chat, why in (
        (FOR_USERS, "has no system turn; expected"),
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('not known') }}{% endif %}"
         + FOR_USERS, "not known"),
        (None, "has no chat template"),
    ):  # fmt: skip
        vlm = replace(plain, processor=build("llava").processor)
        vlm.processor.chat_template = chat
        found = refusal(encode, vlm, PAIR, QUESTION, framing=Framing(system=SYSTEM))
        assert why in found
        assert found.startswith("system: ")
        assert len(found.splitlines()) == 1


def test_a_study_has_one_of_prompt_and_system() -> None:
    with pytest.raises(hp.InputError, match="prompt, system: both of them; expected one"):
        hp.Study().override({"prompt": "USER: <image> {question}", "system": SYSTEM})


@pytest.mark.parametrize("name", ALIKE)
def test_other_pictures_come_before_the_one_in_question(name: str, tmp_path: Path) -> None:
    """Positions and patches are those of the last picture alone."""
    vlm, _ = built(name)
    context = [noise_image(5, (84, 56)), noise_image(6, (56, 84))]
    paths = [str(tmp_path / f"{place}.png") for place in range(2)]
    for one, path in zip(context, paths, strict=True):
        one.save(path)
    alone = encode(vlm, PAIR, QUESTION)
    prompt = encode(vlm, PAIR, QUESTION, framing=Framing(context=tuple(paths)))
    expected = plainly(vlm, prompt, [[*context, one] for one in PAIR])
    torch.testing.assert_close(lds(vlm, prompt), expected, atol=2e-5, rtol=0)
    every = (prompt.inputs["input_ids"][0] == image_token_id(vlm)).nonzero().flatten()
    assert torch.equal(prompt.spans.image, every[-len(alone.spans.image) :])
    assert len(every) > len(alone.spans.image)
    later = prompt.spans.length - alone.spans.length
    assert torch.equal(prompt.image_positions, alone.image_positions + later)
    np.testing.assert_array_equal(prompt.patches.boxes, alone.patches.boxes)


def test_a_study_with_other_pictures_is_asked(tmp_path: Path) -> None:
    noise_image(5, (84, 56)).save(tmp_path / "first.png")
    (tmp_path / "study.yaml").write_text("context_images: [first.png]\nforce: true\n")
    study = hp.Study.make(tmp_path / "study.yaml", {})
    assert study.framing.context == (str(tmp_path / "first.png"),)
    pair = hp.make_pair(*PAIR, QUESTION, "top-left")
    session = hp.open_session(study, build("llava"), "answer", pair)
    bare = hp.open_session(hp.Study(force=True), build("llava"), "answer", pair)
    assert session.prompt.spans.length > bare.prompt.spans.length
    found = hp.ablate(session, heads="1.1", kinds=["resample"], controls=0, on_progress=False)
    other = hp.ablate(bare, heads="1.1", kinds=["resample"], controls=0, on_progress=False)
    effects = [list(one.files()["effects.csv"]["effect"]) for one in (found, other)]
    assert effects[0] != effects[1]
    assert len(hp.rank(session).heads) == 12
    with pytest.raises(hp.InputError, match=r"2 pictures in a prompt \(context_images\)"):
        hp.rollout(session, tokens=1, answer="Yes", on_progress=False)
    with pytest.raises(hp.InputError, match=r"vision heads: 2 pictures in a prompt"):
        hp.open_session(study, build("llava"), "answer", pair, vision=True)
    missing = study.override({"context_images": [str(tmp_path / "none.png")]})
    with pytest.raises(hp.InputError, match=r"context_images: .*none\.png"):
        hp.open_session(missing, build("llava"), "answer", pair)


def test_each_row_may_show_pictures_of_its_own_before_the_one_in_question(tmp_path: Path) -> None:
    """What a row says is what a study with these pictures says; a row without one is refused."""
    vlm, study = build("llava"), hp.Study(force=True)
    for place in range(2):
        noise_image(5 + place, (84, 56)).save(tmp_path / f"{place}.png")
    for place, image in enumerate(PAIR):
        image.save(tmp_path / f"{'with' if place == 0 else 'without'}.png")
    shown = {"with": "with.png", "without": "without.png", "region": "top-left"}
    contexts = ["", "0.png", '["0.png", "1.png"]', "none.png"]
    rows = [
        shown | {"name": f"r{place}", "scene": f"r{place}", "question": QUESTION,
                 "context_images": one}
        for place, one in enumerate(contexts)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    pairs = hp.open_pairs(study, tmp_path, vlm=vlm, on_progress=False, resamples=100)
    asked = {"heads": "1.1", "kinds": ["resample"], "controls": 0, "on_progress": False}
    table = hp.ablate(pairs, **asked).files()["effects.csv"]
    pair = hp.make_pair(*PAIR, QUESTION, "top-left")
    for place, names in enumerate(([], ["0.png"], ["0.png", "1.png"])):
        own = study.override({"context_images": [str(tmp_path / name) for name in names]})
        alone = hp.ablate(hp.open_session(own, vlm, "answer", pair), **asked)
        effects = table.loc[table["pair"] == f"r{place}", "effect"].tolist()
        expected = alone.files()["effects.csv"]["effect"].tolist()
        assert effects == pytest.approx(expected, abs=1e-5)
    assert table["effect"].round(4).nunique() == 7  # six, and 0 of the heads' own z
    gate = pairs.gate.set_index("pair")
    assert "context_images: there is no file" in gate.loc["r3", "reason"]
    assert "context_images" not in gate  # it is no factor
    with pytest.raises(hp.InputError, match=r"2 pictures in a prompt \(context_images\)"):
        hp.path(pairs, on_progress=False)
    keys = [unit_key(study, vlm, one.pair(), {}) for one in pairs.entries]
    assert len({*keys}) == 3


def test_labelled_rows_show_them_too(tmp_path: Path) -> None:
    vlm = build("llava")
    for place in range(2):
        noise_image(5 + place, (84, 56)).save(tmp_path / f"{place}.png")
    rows = [
        {"image": PAIR[0], "question": QUESTION, "answer": "Yes", "context_images": one}
        for one in (
            [],
            [str(tmp_path / "0.png")],
            [str(tmp_path / "0.png"), noise_image(6, (84, 56))],
        )
    ]
    found = hp.evaluate(rows, "1.1", vlm=vlm, controls=0, on_progress=False).rows
    untouched = found[found["heads"] == ""]
    for row, names in zip(untouched.itertuples(), ([], ["0.png"], ["0.png", "1.png"]), strict=True):
        framing = Framing(context=tuple(str(tmp_path / name) for name in names))
        logits = forward(vlm, encode(vlm, PAIR[:1], QUESTION, framing=framing)).logits[0]
        assert row.margin == pytest.approx(float(-logits.topk(2).values.diff()), abs=1e-4)
    assert untouched["margin"].nunique() == 3

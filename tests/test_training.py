"""The demo model: questions, text, training forward, resuming; the shipped weights, if there."""

import hashlib
from copy import deepcopy
from dataclasses import replace
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaForConditionalGeneration,
)

from headpatch.pairs.scene import (
    COLOURS,
    DEFAULT_PAIR,
    PLACES,
    SHAPES,
    Scene,
    Thing,
    draw,
    sample_pair,
    sample_scene,
)
from training import questions, turns
from training.batches import IGNORED, Batcher, flip, ordered, patch_classes, thing_class
from training.export import write_pieces
from training.forward import FastLlava
from training.losses import augment
from training.text import build_config, build_processor, question_prompt
from training.train import train
from training.trainer import Settings, Trainer

DEMO = Path(str(files("headpatch.models.demo")))
TINY = {  # 4 heads × 8 dimensions (the default) are not the width
    "layers": 2, "heads": 4, "vision_layers": 3, "vision_heads": 2, "width": 16, "mlp": 24,
    "vision_mlp": 24,
}  # fmt: skip
ANSWERS = (
    "Yes, there is a triangle in the top left corner of the image.",
    "No, there is nothing in the top left corner of the image.",
)


@cache
def processor():
    return build_processor()


def batcher(size: int = 8) -> Batcher:
    return Batcher(processor().tokenizer.backend_tokenizer.to_str(), 0, size, 352)


def test_the_seeds_answers_come_out_word_for_word():
    for scene, expected in zip(DEFAULT_PAIR, ANSWERS, strict=True):
        assert questions.answer("anything", "top left", scene.at("top left"))[0] == expected


@pytest.mark.parametrize(
    ("kind", "names", "yes"),
    [
        ("shape", {"shape": "triangle"}, True),
        ("shape", {"shape": "circle"}, False),
        ("colour", {"colour": "white"}, True),
        ("colour", {"colour": "red"}, False),
        ("both", {"shape": "triangle", "colour": "white"}, True),
        ("both", {"shape": "triangle", "colour": "red"}, False),
        ("both", {"shape": "ring", "colour": "white"}, False),
    ],
)
def test_yes_only_if_every_named_word_is_true(kind: str, names: dict[str, str], yes: bool):
    with_, without = DEFAULT_PAIR
    sentence, truth = questions.answer(kind, "top left", with_.at("top left"), **names)
    assert truth is yes and "triangle" in sentence
    assert sentence.startswith("Yes, " if yes else "No, ")
    sentence, truth = questions.answer(kind, "top left", without.at("top left"), **names)
    assert truth is False and sentence == ANSWERS[1]


def test_promised_wordings_are_trained_and_held_out_ones_are_not():
    seen = {t.format(at=at) for t, at in questions.wordings("anything", "top left")}
    assert set(questions.NAMED_QUESTIONS) <= seen
    for kind in questions.TEMPLATES:
        for place in PLACES:
            trained, unseen = (
                set(questions.wordings(kind, place, unseen=u)) for u in (False, True)
            )
            assert trained and unseen and not trained & unseen


def test_turns_ask_about_different_places_and_are_balanced():
    rng = np.random.default_rng(0)
    said = {kind: [0, 0] for kind in questions.YES_NO_KINDS}
    for _ in range(400):
        scene = sample_scene(rng, count=int(rng.integers(3, 6)))
        asked = turns.sample_turns(rng, scene, 6)
        assert 1 <= len(asked) <= 6 and len({t.place for t in asked}) == len(asked)
        for turn in asked:
            if turn.yes is not None:
                said[turn.kind][turn.yes] += 1
                assert turn.answer.startswith("Yes, " if turn.yes else "No, ")
    for no, yes in said.values():
        assert 0.4 < yes / (yes + no) < 0.6


def test_twins_get_one_question_and_two_answers():
    rng = np.random.default_rng(0)
    named_wrong = 0
    for _ in range(300):
        scene = sample_scene(rng, count=int(rng.integers(0, 6)))
        place = str(rng.choice(list(PLACES)))
        twin = flip(rng, scene, place)
        assert scene.without(place).things == twin.without(place).things
        first, second = turns.twin_turns(rng, scene, twin, place)
        assert first.question == second.question and {first.yes, second.yes} == {True, False}
        named_wrong += scene.at(place) is not None and twin.at(place) is not None
    assert named_wrong > 30  # another thing at the place, not only none
    with pytest.raises(ValueError, match="nothing at"):
        turns.twin_turns(rng, Scene(), Scene(), "center")


def test_any_text_survives_the_tokenizer():
    tokenizer = processor().tokenizer
    for text in ("Is there a triangle?", "Über 日本 12", "a  b\n\tc", "{x} <y>"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_words_of_questions_and_answers_are_single_tokens():
    tokenizer = processor().tokenizer
    for word in ("Yes", "No"):
        ids = tokenizer(f"{question_prompt(questions.DEFAULT_QUESTION)} {word},").input_ids
        assert tokenizer.convert_ids_to_tokens(ids)[-3:] == [":", f"▁{word}", ","]
    pieces = tokenizer.tokenize("Is there a yellow triangle in the upper left corner?")
    assert pieces[:2] == ["▁", "Is"]  # "Is" is known as it stands: after a line end
    assert len(pieces) == 12


def test_the_chat_template_is_llava_15s():
    ask = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it?"}]}
    say = {"role": "assistant", "content": [{"type": "text", "text": "Yes, it is."}]}
    more = {"role": "user", "content": "Is it not?"}
    template = processor().apply_chat_template
    assert question_prompt("Is it?") == "USER: <image>\nIs it? ASSISTANT:"
    assert template([ask], add_generation_prompt=True) == question_prompt("Is it?")
    assert template([ask, say]) == "USER: <image>\nIs it? ASSISTANT: Yes, it is.</s>"
    expected = "USER: <image>\nIs it? ASSISTANT: Yes, it is.</s>USER: Is it not? ASSISTANT:"
    assert template([ask, say, more], add_generation_prompt=True) == expected


def test_the_processor_gives_the_ids_and_pixels_that_training_used():
    batch = batcher(2)(5)
    text = processor().tokenizer.decode(batch.tokens[0]).replace("<pad>", "")
    text = text.replace("<image>" * 144, "<image>").removeprefix("<s> ")
    image = Image.fromarray(batch.pixels[0])
    inputs = processor()(images=image, text=text, return_tensors="pt")
    ids = inputs["input_ids"][0]
    assert (ids == processor().tokenizer.convert_tokens_to_ids("<image>")).sum() == 144
    assert ids.tolist() == batch.tokens[0, : len(ids)].tolist()
    trainer = Trainer(Settings(Path("."), batch=2, shape=TINY))
    trainer.device = torch.device("cpu")
    pixels = (trainer.send(batch)["pixels"] - trainer.mean) / trainer.std
    expected = processor().image_processor(list(batch.pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


def test_labels_are_the_answers_and_nothing_else():
    make, tokenizer = batcher(), processor().tokenizer
    batch = make(0)
    for labels, tokens in zip(batch.labels, batch.tokens, strict=True):
        taught = tokenizer.decode(labels[labels != IGNORED])
        turns_of = tokenizer.decode(tokens).replace("<pad>", "").split("</s>")
        answers = [one.split(" ASSISTANT:")[1] + "</s>" for one in turns_of if " ASSISTANT:" in one]
        assert taught.strip() == "".join(answers).strip()
    after = np.isin(batch.labels, (make.yes, make.no))
    assert (batch.verdict == after).all() and (batch.tokens[batch.verdict] == make.colon).all()


def test_each_answer_position_knows_what_is_asked_and_what_is_there():
    make, tokenizer = batcher(), processor().tokenizer
    kinds = list(turns.KIND_WEIGHTS)
    batch = make(0)
    at_answer = batch.kind != IGNORED
    assert (at_answer == (batch.seen != IGNORED)).all() and at_answer.any(axis=1).all()
    is_verdict = np.isin(batch.kind, [kinds.index(kind) for kind in questions.YES_NO_KINDS])
    assert (is_verdict == batch.verdict).all()
    kinds = list(product(SHAPES, COLOURS))
    classes = {thing_class(Thing(*kind, 0.5, 0.5, 0.2)): kind for kind in kinds}
    assert sorted(classes) == list(range(1, 26)) and thing_class(None) == 0
    for row, position in zip(*np.nonzero(at_answer), strict=True):
        labels = batch.labels[row, position:]
        answer = tokenizer.decode(labels[: list(labels).index(make.end)])
        said = answer.replace(".", " ").split()
        shape, colour = classes.get(int(batch.seen[row, position]), (None, None))
        assert (shape is None) == ("nothing" in said)
        assert all(word == shape for word in said if word in SHAPES)
        assert all(word == colour for word in said if word in COLOURS)


def test_patch_classes_name_the_thing_in_each_patch():
    square = Thing("square", "green", 1 / 6, 1 / 6, 2 / 12)
    circle = Thing("circle", "blue", 5 / 6, 5 / 6, 0.2)
    classes = patch_classes(Scene((square, circle)))
    assert classes.shape == (12, 12)
    colours = list(COLOURS)
    assert (classes[1:3, 1:3] == 1 + SHAPES.index("square") * 5 + colours.index("green")).all()
    assert classes[10, 10] == 1 + SHAPES.index("circle") * 5 + colours.index("blue")
    assert (classes[:6, 6:] == 0).all()


def test_a_batch_depends_on_its_step_only():
    one, two, other = batcher()(3), batcher()(3), batcher()(4)
    assert all((a == b).all() for a, b in zip(vars(one).values(), vars(two).values(), strict=True))
    assert (one.tokens != other.tokens).any()
    assert list(ordered(abs, range(-5, 0), workers=2, ahead=2)) == [5, 4, 3, 2, 1]


def test_augmentation_is_repeatable_and_mild():
    pixels = torch.rand(4, 3, 28, 28)
    one, two = (augment(pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two) and one.min() >= 0 and one.max() <= 1
    assert 0 < (one - pixels).abs().mean() < 0.25


def test_the_training_forward_is_transformers_own():
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(build_config(processor().tokenizer, **TINY)).eval()
    batch = batcher(2)(0)
    tokens = torch.from_numpy(batch.tokens).long()
    pixels = torch.randn(2, 3, 168, 168)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases away from one and zero
            parameter.add_(0.1 * torch.randn_like(parameter))
        start = int((tokens[0] == model.config.image_token_id).nonzero()[0])
        fast = FastLlava(model, image_start=start)
        logits, middle = fast.read(tokens, fast.see(pixels))
        expected = model(input_ids=tokens, pixel_values=pixels, output_hidden_states=True)
        torch.testing.assert_close(logits, expected.logits, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(middle, expected.hidden_states[1], atol=2e-5, rtol=1e-4)


def test_a_step_is_adamw_on_the_losses_as_transformers_gives_them(tmp_path: Path):
    """The step that CUDA captures, against its slow twin: transformers, loops, plain AdamW."""
    settings = Settings(tmp_path, batch=2, warm_up=4, shape=TINY)
    trainer = Trainer(settings)
    trainer.to_device()
    model, probes = deepcopy(trainer.model), deepcopy(trainer.probes)
    parameters = [*model.parameters(), *probes.parameters()]
    wide, narrow = ([p for p in parameters if (p.ndim > 1) == w] for w in (True, False))
    groups = [{"params": wide, "weight_decay": settings.decay}, {"params": narrow}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    for step, done in enumerate((0.0, 0.25)):
        batch = trainer.batcher(step)
        losses = trainer.update(batch, step, done)

        sent = trainer.send(batch)
        pixels = augment(sent["pixels"], torch.Generator().manual_seed(step))
        seen = {"pixel_values": (pixels - trainer.mean) / trainer.std}
        out = model(input_ids=sent["tokens"], **seen, output_hidden_states=True)
        surprise = -out.logits.log_softmax(-1)

        def mean(mask: torch.Tensor, surprise=surprise, labels=sent["labels"]) -> torch.Tensor:
            places = mask.nonzero().tolist()
            return torch.stack([surprise[r, n, labels[r, n]] for r, n in places]).mean()

        asked = 0.0
        places = (sent["seen"] != IGNORED).nonzero().tolist()
        for row, position in places:
            x, thing = out.hidden_states[1][row, position], int(sent["seen"][row, position]) - 1
            x = x / (x.square().mean() + torch.finfo(x.dtype).eps).sqrt()
            shape, colour = (0, 0) if thing < 0 else (1 + thing // 5, 1 + thing % 5)
            asked = asked - probes.shape(x).log_softmax(-1)[shape] / len(places)
            asked = asked - probes.colour(x).log_softmax(-1)[colour] / len(places)
        image = model.get_image_features(**seen, return_dict=True).pooler_output
        expected = {
            "answer": mean(sent["labels"] != IGNORED),
            "verdict": mean(sent["verdict"]),
            "names": mean(sent["names"]),
            "patches": probes.patches(torch.stack(list(image)), sent["classes"]),
            "asked": asked,
        }
        weights = {"answer": 1.0, "verdict": settings.verdict, "names": settings.names}
        for name, (start, end) in (("patches", settings.patches), ("asked", settings.asked)):
            weights[name] = start + (end - start) * 2 * done
        expected["total"] = sum(weights[name] * value for name, value in expected.items())
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value.detach(), atol=1e-5, rtol=1e-5)

        optimizer.zero_grad()
        expected["total"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * (step + 1) / 4 * (1 + np.cos(np.pi * done)) / 2
        optimizer.step()
    # AdamW divides a gradient by its own size: where that is rounding alone, steps may differ by
    # the rate times a share of 1. 2e-5 is 3 % of the two steps' rates.
    for value, twin in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(value, twin, atol=2e-5, rtol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a capture that fails")
def test_without_a_cuda_graph_training_goes_on_plainly_and_says_so(tmp_path: Path):
    weights = []
    for out, capturing in ((tmp_path / "plain", False), (tmp_path / "tried", True)):
        out.mkdir()
        trainer = Trainer(Settings(out, batch=2, warm_up=1, shape=TINY))
        trainer.to_device()
        trainer.capturing, trainer.plain_steps = capturing, 3
        trainer.update(trainer.batcher(0), 0, 0.0)
        weights.append(trainer.model.lm_head.weight)
    assert torch.equal(*weights) and not (tmp_path / "plain" / "train.log").exists()
    assert (tmp_path / "tried" / "train.log").read_text().startswith("no CUDA graph, going on")


def test_a_killed_run_goes_on_exactly_where_it_was(tmp_path: Path):
    whole = Settings(tmp_path / "whole", steps=4, batch=2, warm_up=2, save_every=2, shape=TINY)
    unbroken = train(whole).model.state_dict()
    broken = replace(whole, out=tmp_path / "broken")
    train(replace(broken, stop_after=3))  # killed at step 3, saved at step 2
    resumed = train(broken).model.state_dict()
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)

    write_pieces(broken.out, tmp_path / "pieces")
    pieces = sorted((tmp_path / "pieces").glob("model.safetensors.*"))
    joined = b"".join(piece.read_bytes() for piece in pieces)
    assert joined == (broken.out / "model.safetensors").read_bytes()
    model = AutoModelForImageTextToText.from_pretrained(broken.out, dtype=torch.float32)
    assert torch.equal(model.lm_head.weight.half(), resumed["lm_head.weight"])
    assert AutoProcessor.from_pretrained(broken.out).tokenizer.eos_token == "</s>"


needs_weights = pytest.mark.skipif(
    not (DEMO / "model.safetensors").exists(), reason="no trained weights here"
)


@cache
def shipped():
    model = AutoModelForImageTextToText.from_pretrained(DEMO, dtype=torch.float32)
    return model.eval(), AutoProcessor.from_pretrained(DEMO)


def ask(image: Image.Image, question: str) -> str:
    model, reader = shipped()
    inputs = reader(images=image, text=question_prompt(question), return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**inputs, do_sample=False, max_new_tokens=32)
    return reader.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


@needs_weights
def test_the_shipped_model_is_small_and_of_llava_15s_shape():
    assert sum(f.stat().st_size for f in DEMO.iterdir() if f.is_file()) <= 30e6
    recorded = (DEMO / "model.safetensors.sha256").read_text().split()[0]
    assert hashlib.sha256((DEMO / "model.safetensors").read_bytes()).hexdigest() == recorded
    text, vision = shipped()[0].config.text_config, shipped()[0].config.vision_config
    assert (text.num_hidden_layers, text.num_attention_heads) == (32, 32)
    assert vision.num_hidden_layers == 24
    assert text.head_dim == 8 and shipped()[0].config.vision_feature_layer == -2


@needs_weights
def test_the_shipped_text_side_is_what_the_script_makes(tmp_path: Path):
    processor().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "chat_template.jinja", "processor_config.json"):
        assert (tmp_path / name).read_text() == (DEMO / name).read_text()


@needs_weights
@pytest.mark.parametrize("number", [1, 2])
def test_the_default_pair_is_answered_in_the_seeds_words(number: int):
    image = Image.open(str(files("headpatch.pairs") / "images" / f"{number}.jpg"))
    assert ask(image, questions.DEFAULT_QUESTION) == ANSWERS[number - 1]


@needs_weights
def test_a_triangle_is_not_a_circle():
    rng, question = np.random.default_rng(0), "Is there a triangle in the top left corner?"
    with_, without = sample_pair(rng, "top left", shape="circle", background="black")
    no_circle = ANSWERS[0].replace("Yes", "No").replace("triangle", "circle")
    assert ask(draw(with_), question) == no_circle
    assert ask(draw(Scene(without.things)), question) == ANSWERS[1]

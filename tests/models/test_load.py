"""Loading: what is complete loads, all else is refused in one line, and nothing remote runs."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import GitConfig, GitForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from headpatch.engine.patching import run_pair
from headpatch.errors import InputError
from headpatch.models.load import load
from headpatch.models.placement import resolve_device
from headpatch.models.vlm import VLM
from headpatch.models.weights import weights_of
from tests import refusals
from tests.command import headpatch, refused
from tests.tiny import SHAPES, save_tiny, tiny_model, tiny_processor, tiny_prompt, tiny_vlm


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def refusal(name: str | Path, argument: str = "--model", **options: str) -> str:
    message = refusals.refusal(load, str(name), of=argument, **options)
    assert len(message) < 500
    return message


def same_numbers(one: VLM, other: VLM) -> None:
    prompts = [tiny_prompt(vlm) for vlm in (one, other)]
    kinds = {type(vlm.processor.image_processor) for vlm in (one, other)}
    if len(kinds) > 1:  # where torchvision is installed, what is loaded resizes by it
        prompts[1] = prompts[0]
    for key, value in prompts[0].inputs.items():
        assert torch.equal(prompts[1].inputs[key], value), key
    found = [run_pair(vlm, prompt) for vlm, prompt in zip((one, other), prompts, strict=True)]
    assert len({(base.ld_with, base.ld_without) for base in found}) == 1


def test_a_saved_model_gives_the_same_numbers(saved: Path) -> None:
    same_numbers(tiny_vlm(), load(str(saved)))


def test_a_loaded_model_is_ready_to_be_looked_into(saved: Path) -> None:
    vlm = load(str(saved))
    assert not vlm.model.training
    assert not any(weight.requires_grad for weight in vlm.model.parameters())
    assert vlm.name == str(saved)
    assert vlm.dtype == torch.float32
    assert (vlm.lm.grid.layers, vlm.lm.grid.heads, vlm.lm.head_dim) == (3, 4, 8)
    assert vlm.vision is not None
    assert (vlm.vision.grid.layers, vlm.vision.grid.heads) == (3, 3)
    assert vlm.feature_layer == 1


@pytest.mark.parametrize("name", ["grouped-query", "wide-heads"])
def test_head_width_comes_from_the_projection(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    vlm = load(str(save_tiny(tmp_path / "m", shape)))
    assert (vlm.lm.grid.heads, vlm.lm.head_dim) == (shape.heads, shape.head_dim)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes(saved: Path, dtype: str) -> None:
    assert load(str(saved), dtype=dtype).dtype == getattr(torch, dtype)


def test_a_half_precision_checkpoint_runs_in_float32(tmp_path: Path) -> None:
    tiny_model(dtype=torch.float16).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    vlm = load(str(tmp_path))
    assert {weight.dtype for weight in vlm.model.parameters()} == {torch.float32}


def test_the_fingerprint_is_of_the_weights(folder: Path, saved: Path) -> None:
    before = load(str(folder)).fingerprint
    assert before == load(str(saved)).fingerprint
    assert before.startswith("sha256:")
    assert weights_of(str(folder)) == before and weights_of("owner/name") is None
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert load(str(folder)).fingerprint != before


def test_transformers_notices_are_silent_and_come_back(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    load(str(saved))
    refusal(saved.parent)
    assert transformers_logging.get_verbosity() == verbosity
    assert transformers_logging.is_progress_bar_enabled() == bars
    assert capfd.readouterr() == ("", "")


def test_what_is_not_there(tmp_path: Path) -> None:
    for name in (tmp_path / "nowhere", "./nowhere", "nowhere"):
        assert "is not there" in refusal(name)
    file = tmp_path / "file"
    file.touch()
    assert "is a file" in refusal(file)
    assert "no config.json" in refusal(tmp_path)


Spoil = Callable[[Path], object]


def lost(pattern: str) -> Spoil:
    return lambda folder: [file.unlink() for file in folder.glob(pattern)]


def written(file: str, text: str) -> Spoil:
    return lambda folder: (folder / file).write_text(text, "utf-8")


def rewritten(change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return spoil


def edited(file: str, **changes: object) -> Spoil:
    return lambda folder: edit(folder / file, **changes)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
POINTED = ("config.json", "tokenizer.json", "processor_config.json", "model.safetensors")
SPOILED: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "no processor": (
        lost("*processor*"), ("no processor", "processor_config.json", "save_pretrained"),
    ),
    "no tokenizer": (lost("tokenizer*"), ("processor does not load", "tokenizer")),
    "no weights": (
        lost("*.safetensors"), ("no weights", "model.safetensors", "save_pretrained"),
    ),
    "processor no JSON": (written("processor_config.json", "{"), ("processor does not load",)),
    "config no JSON": (written("config.json", "{"), ("does not load",)),
    "empty config": (written("config.json", "{}"), ("model_type",)),
    "unknown config": (written("config.json", '{"model_type": "no-such-model"}'), ("no-such-",)),
    "empty weights": (rewritten(lambda _: b""), ("{folder}", "does not load", "header")),
    "half a header": (rewritten(lambda whole: whole[:4]), ("{folder}",)),
    "garbage": (
        rewritten(lambda whole: b"\xff" * 64 + whole[64:]), ("{folder}", "does not load", "header"),
    ),
    "truncated": (
        rewritten(lambda whole: whole[: len(whole) // 2]), ("{folder}", "is cut", "bytes", "again"),
    ),
    "no tensors": (rewritten(lambda _: (2).to_bytes(8, "little") + b"{}"), ("{folder}",)),
    "another shape": (edited("config.json", text_config__intermediate_size=52), ()),
    "a layer left out": (
        edited("config.json", text_config__num_hidden_layers=2), ("layers.2.", "does not use"),
    ),
    "too many layers": (
        edited("config.json", text_config__num_hidden_layers=10**9),
        ("asks for 1,000,000,000 layers",),
    ),
    "too many vision layers": (
        edited("config.json", vision_config__num_hidden_layers=10**9),
        ("vision_config.num_hidden_layers",),
    ),
    "too wide": (
        edited("config.json", text_config__hidden_size=10**7), ("numbers, its weights are",),
    ),
    "too many words": (
        edited("config.json", text_config__vocab_size=10**12), ("numbers, its weights are",),
    ),
    **{
        f"pointer {file}": (
            written(file, POINTER), (f"{file} is a git-lfs pointer", "git lfs pull"),
        )
        for file in POINTED
    },
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "parts"), SPOILED.values(), ids=SPOILED)
def test_a_folder_that_is_spoiled(folder: Path, spoil: Spoil, parts: tuple[str, ...]) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")  # never unpickled
    spoil(folder)
    message = refusal(folder)
    assert all(part.format(folder=folder) in message for part in parts)


def test_missing_tensors(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    dropped = [name for name in weights if "layers.1.self_attn.o_proj" in name]
    for name in dropped:
        del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = refusal(folder)
    assert "lacks 1 weights" in message and "o_proj.weight" in message
    assert "complete checkpoint" in message


SMALL = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
}  # fmt: skip


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(vocab_size=99, **SMALL)).save_pretrained(tmp_path)
    message = refusal(tmp_path)  # before a processor is looked for
    assert "llama" in message and "reads text alone" in message


def test_a_model_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    """One that transformers loads as image-text-to-text, and whose processor is another's."""
    vision = {**SMALL, "image_size": 28, "patch_size": 14}
    config = GitConfig(**SMALL, vocab_size=99, bos_token_id=1, eos_token_id=2, vision_config=vision)
    GitForCausalLM(config).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert "it does not run on what its processor gives" in refusal(tmp_path)


@pytest.mark.parametrize("place", ["config.json", "processor_config.json"])
def test_remote_code_never_runs(folder: Path, place: str, tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    (folder / "evil.py").write_text(
        f"open({str(proof)!r}, 'w').close()\nclass Evil:\n    def __init__(self, *a, **k): pass\n"
    )
    kinds = ("Config", "ModelForImageTextToText", "Processor", "ImageProcessor")
    evil: dict[str, object] = {f"Auto{kind}": "evil.Evil" for kind in kinds}
    edit(folder / place, auto_map={**evil, "AutoTokenizer": ["evil.Evil"] * 2})
    if place == "config.json":
        edit(folder / place, model_type="evil")
    with suppress(InputError):
        load(str(folder))
    assert not proof.exists()


def test_devices_and_dtypes_that_are_not_there(saved: Path) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for device in ("gpu", "cuda:99", "cpu:x", ""):
        assert "auto, cpu" in refusal(saved, "--device", device=device)
    assert "float32" in refusal(saved, "--dtype", dtype="float8")


def edit(file: Path, **changes: object) -> None:
    """Set keys of a JSON file; ``a__b`` is key b of the mapping a, and None deletes."""
    content = json.loads(file.read_text("utf-8"))
    for key, value in changes.items():
        *places, last = key.split("__")
        place = content
        for name in places:
            place = place[name]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    file.write_text(json.dumps(content), "utf-8")


def add(folder: Path, **tensors: torch.Tensor) -> None:
    """Put more tensors into a checkpoint; ``__`` in a name is a dot."""
    file = folder / "model.safetensors"
    more = {name.replace("__", "."): value for name, value in tensors.items()}
    save_file({**load_file(file), **more}, file, {"format": "pt"})


BIAS = "model__language_model__layers__0__self_attn__o_proj__bias"


def test_weights_that_the_model_does_not_use_are_refused(folder: Path) -> None:
    add(folder, **{BIAS: torch.ones(32)})
    message = refusal(folder)
    assert "holds 1 weights that the model does not use" in message
    assert "layers.0.self_attn.o_proj.bias" in message and "--allow-unused-weights" in message


def test_unused_weights_are_left_out_when_asked_for(
    folder: Path, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(folder, **{BIAS: torch.ones(32)}, vision__extra=torch.ones(2))
    vlm, plain = load(str(folder), allow_unused_weights=True), load(str(saved))
    assert (vlm.unused, plain.unused) == (2, 0)
    assert vlm.fingerprint != plain.fingerprint
    (record,) = caplog.records
    assert "2 weights that the model does not use are left out" in record.getMessage()
    same_numbers(vlm, plain)


def test_buffers_of_earlier_releases_are_no_unused_weights(folder: Path) -> None:
    """Of transformers 4: every old checkpoint of these families holds some."""
    add(
        folder,
        model__language_model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4),
        model__vision_tower__embeddings__position_ids=torch.arange(17)[None],
    )
    assert load(str(folder)).unused == 0


def test_a_checkpoint_with_both_of_two_tied_weights_loads(tmp_path: Path) -> None:
    model = tiny_model()
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.clone())
    model.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert load(str(tmp_path)).unused == 0


def test_the_weights_name_covers_the_files_that_are_read(folder: Path) -> None:
    """Others beside them, as Mistral publishes, are not read."""
    before = load(str(folder)).fingerprint
    save_file({"other": torch.ones(3)}, folder / "consolidated.safetensors", {"format": "pt"})
    assert load(str(folder)).fingerprint == before == weights_of(str(folder))


@pytest.mark.parametrize("alone", [False, True])
def test_an_adapter_is_refused(folder: Path, alone: bool) -> None:
    base = {"base_model_name_or_path": "owner/base", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(base), "utf-8")
    if alone:
        (folder / "config.json").unlink()
    message = refusal(folder)
    assert "an adapter of owner/base (adapter_config.json)" in message
    assert "merge_and_unload" in message
    assert ("is an adapter" in message) == alone


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model_type": "florence2", "is_encoder_decoder": True}, "an encoder reads the prompt"),
        (
            {"model_type": "diffusion_gemma", "architectures": ["GemmaForBlockDiffusion"]},
            "by diffusion",
        ),
        ({"model_type": "idefics4"}, "The nearest that it knows is idefics3"),
        ({"model_type": "qwen2_5_omni"}, "The nearest that it knows is qwen2_5_vl"),
        ({"model_type": None}, "a model without `model_type`"),
        (
            {"model_type": "internvl_chat", "auto_map": {"AutoModel": "evil.Evil"}},
            "headpatch never runs code that comes with a model",
        ),
        ({"architectures": ["LlavaLlamaForCausalLM"]}, "the form of LLaVA's own code"),
        ({"model_type": "llava_llama", "mm_vision_tower": "x"}, "llava-hf/llava-1.5-7b-hf"),
    ],
)
def test_a_config_is_judged_before_anything_else(
    folder: Path, changes: dict[str, object], part: str
) -> None:
    edit(folder / "config.json", **changes)
    for file in folder.iterdir():
        if file.name != "config.json":
            file.unlink()
    assert part in refusal(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_3", "return_dict": False},
        {"text_config___attn_implementation": "flash_attention_2", "use_cache": False},
    ],
)
def test_how_another_program_runs_a_model_is_not_asked(
    folder: Path, saved: Path, changes: dict[str, object]
) -> None:
    edit(folder / "config.json", **changes)
    same_numbers(load(str(folder)), load(str(saved)))


def test_a_processor_is_given_what_its_files_leave_out(folder: Path, saved: Path) -> None:
    """As in folders of early 2024, which hold preprocessor_config.json alone."""
    counts = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
    edit(folder / "processor_config.json", **dict.fromkeys(counts))
    same_numbers(load(str(folder)), load(str(saved)))


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("vision_feature_select_strategy", "full", ""),
        ("patch_size", 7, "14 by"),
        ("num_additional_image_tokens", 0, "1 by"),
    ],
)
def test_a_processor_that_counts_other_tokens_is_refused(
    folder: Path, key: str, value: object, part: str
) -> None:
    edit(folder / "processor_config.json", **{key: value})
    message = refusal(folder)
    assert f"`{key}` is {value!r} in processor_config.json" in message
    assert part in message and "model's config.json" in message


def test_a_processor_that_counts_the_same_otherwise_loads(tmp_path: Path) -> None:
    """A class token neither counted nor left out, and one counted and left out, are one number."""
    counts = {"vision_feature_select_strategy": "full", "num_additional_image_tokens": 1}
    save_tiny(tmp_path / "m", SHAPES["class-token-kept"])
    edit(tmp_path / "m/processor_config.json", **counts)
    load(str(tmp_path / "m"))


def test_a_decoder_of_unknown_layout_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    for layer in model.model.language_model.layers:
        layer.self_attn.other = layer.self_attn.o_proj
        del layer.self_attn.o_proj
    message = refusals.refusal(lambda: VLM(model, tiny_processor(), "tiny", "").lm, of="--model")
    for part in ("its decoder is of type 'llama'", "gpt_neox", "o_proj"):
        assert part in message


def test_a_processor_whose_packages_are_missing_is_refused_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headpatch.models.load.installed", lambda _: False)
    edit(folder / "config.json", model_type="smolvlm")
    message = refusal(folder)
    assert "needs torchvision and num2words" in message and "headpatch[vision]" in message


def test_what_was_left_out_and_what_read_the_pictures_is_written_down(
    folder: Path, tmp_path: Path
) -> None:
    add(folder, **{BIAS: torch.ones(32)})
    words = ("ablate", "--heads", "0.0", "--controls", 0, "--force", "--json")
    words = (*words, "--model", folder, "--out", tmp_path / "out")
    assert "--allow-unused-weights" in refused(*words)
    said = headpatch(*words, "--allow-unused-weights")
    assert said.code == 0 and said.json["unused_weights"] == 1
    run = yaml.safe_load((tmp_path / "out/run.yaml").read_text("utf-8"))
    assert run["study"]["allow_unused_weights"] is True
    ran = run["run"]
    assert ran["unused_weights"] == 1 and ran["image_processor"].startswith("CLIPImageProcessor")
    assert {"torchvision", "pillow"} <= set(ran)
    assert ran["settings"].startswith("sha256:")


@pytest.mark.parametrize("file", ["config.json", "chat_template.jinja", "tokenizer_config.json"])
def test_finished_parts_hang_on_what_describes_the_model(
    folder: Path, saved: Path, file: str
) -> None:
    text = (folder / file).read_text("utf-8")
    (folder / file).write_text(text + " ", "utf-8")
    changed, before = load(str(folder)).identity, load(str(saved)).identity
    assert changed["weights"] == before["weights"] and changed["settings"] != before["settings"]


def test_pictures_of_another_size_than_the_towers_are_refused(folder: Path) -> None:
    sizes = {"crop_size": {"height": 28, "width": 28}, "size": {"shortest_edge": 28}}
    changes = {f"image_processor__{key}": value for key, value in sizes.items()}
    edit(folder / "processor_config.json", **changes)
    line = refused("rank", "--model", folder, "--force", "--out", folder / "out")
    assert "refuses what its processor makes" in line and "28" in line

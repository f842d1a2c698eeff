"""Loading: what is complete loads, all else is refused in one line, and nothing remote runs."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GitConfig, GitForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from headpatch.engine.patching import run_pair
from headpatch.errors import InputError
from headpatch.models.load import load, resolve_device
from headpatch.models.weights import weights_of
from tests.tiny import (
    SHAPES,
    save_tiny,
    tiny_model,
    tiny_processor,
    tiny_prompt,
    tiny_tokenizer,
    tiny_vlm,
)


def in_one_line(error: InputError) -> None:
    assert "\n" not in str(error)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def refusal(name: str | Path, argument: str = "--model", **options: str) -> str:
    with pytest.raises(InputError) as caught:
        load(str(name), **options)
    message = str(caught.value)
    assert message.startswith(f"{argument}: ")
    assert "\n" not in message
    assert "; expected " in message
    assert len(message) < 500
    assert caught.value.exit_code == 2
    return message


def test_a_saved_model_gives_the_same_numbers(saved: Path) -> None:
    made, loaded = tiny_vlm(), load(str(saved))
    prompt = tiny_prompt(loaded)
    for key, value in tiny_prompt(made).inputs.items():
        assert torch.equal(prompt.inputs[key], value), key
    expected, found = run_pair(made, prompt), run_pair(loaded, prompt)
    assert (found.ld_with, found.ld_without) == (expected.ld_with, expected.ld_without)


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
    assert "is not there" in refusal(tmp_path / "nowhere")
    assert "is not there" in refusal("./nowhere")
    assert "is not there" in refusal("nowhere")
    file = tmp_path / "file"
    file.touch()
    assert "is a file" in refusal(file)
    assert "no config.json" in refusal(tmp_path)


def test_a_hub_id_that_cannot_be_reached() -> None:
    message = refusal("no-such-owner/no-such-model")
    assert "no-such-owner/no-such-model" in message
    assert "--model PATH" in message


def test_a_folder_without_a_processor(folder: Path) -> None:
    for file in folder.glob("*processor*"):
        file.unlink()
    message = refusal(folder)
    assert "no processor" in message
    assert "save_pretrained" in message


def test_a_processor_that_is_no_json(folder: Path) -> None:
    (folder / "processor_config.json").write_text("{")
    refusal(folder)


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refusal(folder)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")  # never unpickled
    assert "no weights" in refusal(folder)


def test_a_config_that_is_no_json_or_of_no_model(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    refusal(folder)
    (folder / "config.json").write_text('{"model_type": "no-such-model"}')
    refusal(folder)
    (folder / "config.json").write_text("{}")
    refusal(folder)


@pytest.mark.parametrize("damage", ["empty", "header", "garbage", "truncated", "no tensors"])
def test_corrupted_weights(folder: Path, damage: str) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(
        {
            "empty": b"",
            "header": whole[:4],
            "garbage": b"\xff" * 64 + whole[64:],
            "truncated": whole[: len(whole) // 2],
            "no tensors": (2).to_bytes(8, "little") + b"{}",
        }[damage]
    )
    assert str(folder) in refusal(folder)


def test_missing_tensors(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    dropped = [name for name in weights if "layers.1.self_attn.o_proj" in name]
    for name in dropped:
        del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = refusal(folder)
    assert "o_proj" in message
    assert "complete checkpoint" in message


def test_tensors_of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 52
    (folder / "config.json").write_text(json.dumps(config))
    refusal(folder)


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=99,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
    ).save_pretrained(tmp_path)
    assert "reads text alone" in refusal(tmp_path)  # before a processor is looked for


def test_a_model_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    """One that transformers loads as image-text-to-text, laid out in a way not known here."""
    small = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    config = GitConfig(
        **small,
        vocab_size=99,
        bos_token_id=1,
        eos_token_id=2,
        vision_config={**small, "image_size": 28, "patch_size": 14},
    )
    GitForCausalLM(config).save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "'git'" in message
    assert "llava" in message


@pytest.mark.parametrize("place", ["config.json", "processor_config.json"])
def test_remote_code_never_runs(folder: Path, place: str, tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    (folder / "evil.py").write_text(
        f"open({str(proof)!r}, 'w').close()\nclass Evil:\n    def __init__(self, *a, **k): pass\n"
    )
    config = json.loads((folder / place).read_text())
    evil = "evil.Evil"
    config["auto_map"] = {
        "AutoConfig": evil,
        "AutoModelForImageTextToText": evil,
        "AutoProcessor": evil,
        "AutoImageProcessor": evil,
        "AutoTokenizer": [evil, evil],
    }
    if place == "config.json":
        config["model_type"] = "evil"
    (folder / place).write_text(json.dumps(config))
    try:
        load(str(folder))
    except InputError as error:
        in_one_line(error)
    assert not proof.exists()


def test_devices_and_dtypes_that_are_not_there(saved: Path) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for device in ("gpu", "cuda:99", "cpu:x", ""):
        assert "auto, cpu" in refusal(saved, "--device", device=device)
    assert "float32" in refusal(saved, "--dtype", dtype="float8")

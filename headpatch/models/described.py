"""What a model's ``config.json`` says it is, judged before anything else is read or fetched.

A model that headpatch cannot look into is refused when only ``config.json``, one small file, is
known.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from headpatch.errors import InputError
from headpatch.models.families import FAMILIES
from headpatch.pairs.pair import refuse_pointer

CONFIG, ADAPTER = "config.json", "adapter_config.json"
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Either of them describes a processor."""

ACROSS = "an encoder reads the prompt, and a decoder that writes the answer looks at it across"
"""Why encoder-decoders are refused: the answer's position attends to no token of the prompt."""

DIFFUSES = "it fills in a block of the answer at once, by diffusion, and says no next token"

_LAYERS = ("num_hidden_layers", "num_layers", "num_global_layers", "depth")
_ORIGINAL = (  # published in LLaVA's own format, and where the same weights are in transformers'
    ("liuhaotian/llava-v1.5-", "llava-hf/llava-1.5-7b-hf"),
    ("liuhaotian/llava-v1.6-mistral", "llava-hf/llava-v1.6-mistral-7b-hf"),
    ("liuhaotian/llava-v1.6-vicuna", "llava-hf/llava-v1.6-vicuna-7b-hf"),
    ("liuhaotian/llava-v1.6-34b", "llava-hf/llava-v1.6-34b-hf"),
    ("lmms-lab/llava-onevision-qwen2", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
)


def config_of(folder: Path, name: str) -> dict[str, Any]:
    """Read and judge a folder's ``config.json``; `name` is what the user called the model."""
    path = folder / CONFIG
    if not path.is_file():
        raise _without_config(folder, name)
    refuse_pointer("--model", path)
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        found = f"{path} does not load: it is no JSON ({reason})"
        raise InputError("--model", found, "a model's config") from None
    if not isinstance(config, dict):
        raise InputError("--model", f"{path} holds no mapping", "a model's config")
    _judge(config, name)
    return config


def _judge(config: Mapping[str, Any], name: str) -> None:
    """Refuse a model of no known family: say what it is, and the nearest that is known."""
    kind = config.get("model_type")
    made_as = config.get("architectures")
    classes = [str(one) for one in made_as] if isinstance(made_as, list) else []
    if "mm_vision_tower" in config or any(
        one.startswith("Llava") and one.endswith("ForCausalLM") for one in classes
    ):
        raise _refused_original(name)
    if kind in FAMILIES or kind in mapped():
        if not isinstance(config.get("vision_config", {}), dict):
            found = f"{name}: its config.json has no `vision_config`"
            raise InputError("--model", found, "a mapping")
        if why := another_way(config.get("is_encoder_decoder", False), classes):
            raise InputError("--model", f"{name}: {why}", "a decoder that reads the prompt")
        return
    of = f" ({classes[0]})" if classes else ""
    what = f"model type {kind!r}{of}" if kind else f"a model without `model_type`{of}"
    expected = f"a model type of {', '.join(FAMILIES)}"
    near = _nearest(str(kind or ""), classes)
    if config.get("auto_map"):
        raise InputError(
            "--model",
            f"{name} is {what}, run by code of its own (`auto_map`); headpatch never runs code "
            "that comes with a model",
            expected,
            f"Look for a copy converted to transformers' classes{near and f', such as {near}'}.",
        )
    sees = any("vision" in key or "image" in key or "visual" in key for key in config)
    lacks = "" if sees else ": it has no `vision_config`, so it reads text alone"
    raise InputError(
        "--model",
        f"{name} is {what}, of which headpatch does not know where the decoder and the image "
        f"tokens are{lacks}",
        expected,
        f"The nearest that it knows is {near}." if near else "",
    )


def another_way(encoder_decoder: bool, classes: Collection[str]) -> str:
    """Say why a model of some classes answers otherwise than by a decoder's next token; or ""."""
    if encoder_decoder:
        return ACROSS
    return DIFFUSES if any(one.endswith("ForBlockDiffusion") for one in classes) else ""


def mapped() -> Collection[str]:
    """Return the model types that transformers loads as image-text-to-text models."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    return set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def _nearest(kind: str, classes: list[str]) -> str:
    """Return the nearest model type that is known; empty if none is near."""
    close = get_close_matches(kind, FAMILIES, 1, 0.5) or [
        name for name in FAMILIES if kind and (kind.startswith(name) or name.startswith(kind))
    ]
    if not close and classes:
        spelled = {name.replace("_", ""): name for name in FAMILIES}
        short = classes[0].partition("For")[0].lower()
        close = [spelled[one] for one in get_close_matches(short, spelled, 1, 0.6)]
    return close[0] if close else ""


def _refused_original(name: str) -> InputError:
    other = next((there for start, there in _ORIGINAL if name.startswith(start)), "")
    return InputError(
        "--model",
        f"{name} is in the form of LLaVA's own code (mm_projector, mm_vision_tower)",
        "the form of transformers (LlavaForConditionalGeneration)",
        f"Use {other or 'a converted one, such as llava-hf/llava-1.5-7b-hf'}, or convert it with "
        "transformers' script convert_llava_weights_to_hf.py.",
    )


def _without_config(folder: Path, name: str) -> InputError:
    if (folder / ADAPTER).is_file():
        return refused_adapter(folder, name)
    if (folder / "mm_projector.bin").exists():
        return _refused_original(name)
    return InputError("--model", f"{name} has no {CONFIG}", "a folder saved by transformers")


def refused_adapter(folder: Path, name: str) -> InputError:
    """Return the error for an adapter that lies in a model's folder, or alone in one."""
    base = read_mapping(folder / ADAPTER).get("base_model_name_or_path")
    alone = not (folder / CONFIG).is_file()
    of = f" of {base}" if isinstance(base, str) and base else ""
    return InputError(
        "--model",
        f"{name} {'is' if alone else 'holds'} an adapter{of} ({ADAPTER}), which headpatch does not "
        "apply",
        "a model whose weights are whole",
        "Merge it with peft (PeftModel.from_pretrained(model, folder).merge_and_unload()) and save "
        f"that{'' if alone else ', or move the adapter away to load the weights without it'}.",
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """Return what a file of JSON maps; nothing if it cannot be read, or is no mapping."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def check_layers(config: Mapping[str, Any], tensors: Collection[str], name: str) -> None:
    """Refuse a config with more layers than the weights have, before any layer is made.

    A layer's number is a part of its tensors' names.
    """
    most = len({part for key in tensors for part in key.split(".") if part.isdecimal()})
    for key, asked in _layer_counts(config):
        if asked > most:
            found = f"{name}: its config.json asks for {asked:,} layers (`{key}`), and its weights"
            expected = "weights and a config.json that belong together"
            raise InputError("--model", f"{found} have no more than {most:,}", expected)


def _layer_counts(config: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, float]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _layer_counts(value, f"{inside}{key}.")
        elif key in _LAYERS and isinstance(value, int | float):
            yield f"{inside}{key}", value

"""Whether a processor and a model belong together: both count the tokens of a picture.

LLaVA's processors are saved with numbers of the model's vision tower. Folders of before 2025 lack
some, and copies edited by hand hold others; the model then refuses the prompt, or the processor
fails, without a word of where the mistake is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headpatch.errors import InputError
from headpatch.models.described import CONFIG, PROCESSOR_FILES
from headpatch.models.families import TOWERS

_STRATEGY, _MORE = "vision_feature_select_strategy", "num_additional_image_tokens"


def fit_processor(processor: Any, config: Any, folder: Path, name: str) -> None:
    """Give a processor what its files leave out and the model's config says.

    Parameters
    ----------
    processor, config
        Of transformers. The processor is changed in place.
    folder
        Where their files are.
    name
        What the user called the model.

    Raises
    ------
    InputError
        If the processor counts other image tokens than the model gives.
    """
    if not hasattr(processor, _STRATEGY):  # it counts otherwise
        return
    right = _right(processor, config)
    stated = {key: found for key in right if (found := _stated(folder, key)) is not None}
    for key, value in right.items():
        if key not in stated:
            setattr(processor, key, value)
    same = {"patch_size", "num_image_tokens"} & set(right)
    if all(getattr(processor, key) == right[key] for key in same) and (
        _change({key: getattr(processor, key) for key in right}) == _change(right)
    ):
        return
    wrong = [key for key, (_, value) in stated.items() if value != right[key]]
    there = "; ".join(f"`{key}` is {stated[key][1]!r} in {stated[key][0]}" for key in wrong)
    from_model = ", ".join(repr(right[key]) for key in wrong)
    raise InputError(
        "--model",
        f"{name}: its processor counts other image tokens than the model gives: {there}, "
        f"but {from_model} by the model's {CONFIG}",
        "a processor and a model that belong together",
        "Write the same in both files.",
    )


def _right(processor: Any, config: Any) -> dict[str, Any]:
    """Return what the processor should hold, as far as the model's config says so."""
    tower = config.vision_config
    whole, patch = getattr(tower, "image_size", None), getattr(tower, "patch_size", None)
    found: dict[str, Any] = {
        "patch_size": patch,
        # a ViP-LLaVA always leaves out the class token, and has no name for that
        _STRATEGY: getattr(config, _STRATEGY, "default"),
    }
    if (known := TOWERS.get(str(tower.model_type))) is not None:
        found[_MORE] = int(bool(known.get("class_token")))
    if isinstance(whole, int) and isinstance(patch, int) and patch:
        found["num_image_tokens"] = (whole // patch) ** 2
    return {key: value for key, value in found.items() if hasattr(processor, key)}


def _change(held: Mapping[str, Any]) -> int:
    """Return by how many the image tokens differ from the patches."""
    return int(held.get(_MORE, 0)) - (held.get(_STRATEGY) == "default")


def _stated(folder: Path, key: str) -> tuple[str, Any] | None:
    """Return which of the processor's files states a number, and what it is."""
    for file in PROCESSOR_FILES:
        try:
            held = json.loads((folder / file).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(held, dict) and held.get(key) is not None:
            return file, held[key]
    return None

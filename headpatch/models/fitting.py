"""What a processor makes of a picture: within bounds, and with the tokens that the model counts.

LLaVA's processors are saved with numbers of the model's vision tower. Folders of before 2025 lack
some, and copies edited by hand hold others; the model then refuses the prompt, or the processor
fails, without a word of where the mistake is.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headpatch.errors import InputError
from headpatch.models.described import CONFIG, PROCESSOR_FILES, read_mapping
from headpatch.models.families import TOWERS

_STRATEGY, _MORE = "vision_feature_select_strategy", "num_additional_image_tokens"


_SIDE = 20_000  # pixels; models in use make pictures of at most some 4,000
_PIXELS = _SIDE**2  # models in use take at most some 17 million
_TILES = 1_000  # models in use cut a picture into at most some 40
_TOKENS = 1_000_000  # of a picture; models in use have at most some 20,000
_SIZES = ("size", "crop_size", "pad_size", "max_image_size", "patch_size", "image_grid_pinpoints")
_COUNTS = ("max_patches", "min_patches", "max_image_tiles", "pan_and_scan_max_num_crops")


def check_token_counts(folder: Path, name: str) -> None:
    """Refuse files of a processor that would count absurdly many image tokens.

    Before it is loaded: some processors write them all out as they are made.
    """
    for key in ("image_seq_len", "image_seq_length", "num_image_tokens"):
        if (stated := _stated(folder, key)) is not None:
            _refuse_above(_TOKENS, "image tokens", f"{name}: `{key}` in {stated[0]}", stated[1])


def check_picture_sizes(processor: Any, name: str) -> None:
    """Refuse a processor of transformers that would make pictures of absurd sizes."""
    for setting, number, most, unit in _bounds(processor):
        _refuse_above(most, unit, f"{name}: its processor's `{setting}`", number)


def _bounds(processor: Any) -> Iterator[tuple[str, object, int, str]]:
    """Return the settings that decide how much is made of a picture, and the most of each."""
    images = processor.image_processor
    edges_are_areas = hasattr(images, "merge_size")  # Qwen's
    for setting in _SIZES:
        for key, number in _numbers(setting, getattr(images, setting, None)):
            if key.endswith("_pixels") or (edges_are_areas and key.startswith("size.")):
                yield key, number, _PIXELS, "pixels"
            else:
                yield key, number, _SIDE, "pixels a side"
    tile, patch = (_largest(getattr(images, setting, None)) for setting in ("size", "patch_size"))
    for setting in _COUNTS:
        most = max(1, min(_TILES, _PIXELS // tile**2))
        yield setting, getattr(images, setting, None), most, f"of {tile:,} pixels a side"
    for owner, setting in ((images, "merge_size"), (processor, "spatial_merge_size")):
        yield setting, getattr(owner, setting, None), _SIDE // patch, f"of {patch:,} pixels a side"
    yield "temporal_patch_size", getattr(images, "temporal_patch_size", None), _TILES, "pictures"
    yield "image_seq_length", getattr(images, "image_seq_length", None), _TOKENS, "image tokens"


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """Return the numbers of a setting, and where each is: ``size.height``."""
    if isinstance(value, int | float):
        yield key, value
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _numbers(f"{key}[{index}]", one)
    else:
        parts = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})  # SizeDict
        for part, one in parts.items():
            yield from _numbers(f"{key}.{part}", one)


def _largest(value: Any) -> int:
    return int(max((number for _, number in _numbers("", value)), default=1)) or 1


def _refuse_above(most: int, unit: str, what: str, number: object) -> None:
    if isinstance(number, int | float) and number > most:
        hint = "Write what the model was trained with."
        raise InputError("--model", f"{what} is {number:,}", f"at most {most:,} {unit}", hint)


def fit_processor(processor: Any, config: Any, folder: Path, name: str) -> None:
    """Give a processor, in place, what its files in `folder` leave out and the config says.

    One that counts other image tokens than the model gives is refused.
    """
    if not hasattr(processor, _STRATEGY):  # it counts otherwise
        return
    right = _right(processor, config)
    stated = {key: found for key in right if (found := _stated(folder, key)) is not None}
    for key in set(right) - set(stated):
        setattr(processor, key, right[key])
    has = {key: getattr(processor, key) for key in right}
    same = {"patch_size", "num_image_tokens"} & set(right)
    if all(has[key] == right[key] for key in same) and _surplus(has) == _surplus(right):
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
    # a ViP-LLaVA always leaves out the class token, and has no name for that
    strategy = getattr(config, _STRATEGY, "default")
    found: dict[str, Any] = {"patch_size": patch, _STRATEGY: strategy}
    if (known := TOWERS.get(str(tower.model_type))) is not None:
        found[_MORE] = int(bool(known.get("class_token")))
    if isinstance(whole, int) and isinstance(patch, int) and patch:
        found["num_image_tokens"] = (whole // patch) ** 2
    return {key: value for key, value in found.items() if hasattr(processor, key)}


def _surplus(held: Mapping[str, Any]) -> int:
    """Return how many more image tokens there are than patches."""
    return int(held.get(_MORE, 0)) - (held.get(_STRATEGY) == "default")


def _stated(folder: Path, key: str) -> tuple[str, Any] | None:
    """Return which of the processor's files states a number, and what it is."""
    stated = ((file, read_mapping(folder / file).get(key)) for file in PROCESSOR_FILES)
    return next((one for one in stated if one[1] is not None), None)

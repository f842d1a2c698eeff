"""Loading a model: the bundled one, a local folder, or a hub id. Never remote code."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import logging as transformers_logging

from headpatch.errors import InputError
from headpatch.models.described import (
    ADAPTER,
    PROCESSOR_FILES,
    check_layers,
    config_of,
    refused_adapter,
)
from headpatch.models.discovery import with_family
from headpatch.models.families import FAMILIES, Family
from headpatch.models.fitting import check_picture_sizes, check_token_counts, fit_processor
from headpatch.models.hub import WAY_OUT, HubModel
from headpatch.models.placement import (
    dtype_of,
    installed,
    placement,
    quantize_weights_alone,
    quantized,
)
from headpatch.models.vlm import VLM
from headpatch.models.weights import DEMO, DESCRIBING, held, settings_in, weight_files, weights_in
from headpatch.pairs.pair import refuse_pointer
from headpatch.text import at_home, checked_text

_LOG = logging.getLogger(__name__)
_SMALL = 4 << 30  # bytes in float32 under which a model is not worth rounding
_TALKATIVE = ("accelerate", "bitsandbytes", "huggingface_hub")
_WANTED = "demo, a model's folder, or a hub id such as owner/name"
_TOGETHER = "weights and a config.json that belong together"


def load(
    name: str = "demo",
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | dict[str, str] | None = None,
    quantize: str | None = None,
    allow_unused_weights: bool = False,
) -> VLM:
    """Load a vision-language model with its processor.

    Parameters
    ----------
    name
        ``demo`` (the bundled model), a folder, or a hub id such as
        ``llava-hf/llava-1.5-7b-hf``.
    device
        ``auto`` (a CUDA device if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    dtype
        ``auto``, ``float32``, ``bfloat16`` or ``float16``. ``auto`` is float32 on the CPU and
        for small models, else the checkpoint's own.
    device_map
        Spreads a model over devices, CPU memory and disk through Accelerate: ``auto``, or a mapping
        of modules to devices. `device` is not used then.
    quantize
        ``8bit`` or ``4bit``: the language model's and the tower's weights are stored by
        bitsandbytes in that many bits, and nothing else is rounded (see
        `headpatch.models.placement`).
    allow_unused_weights
        Loads a checkpoint that holds weights which the model has no place for, and leaves these
        out: `VLM.unused` counts them. Those that transformers expects to be left out (buffers of
        earlier releases) do not count.

    Raises
    ------
    InputError
        If the model is missing, incomplete or corrupted, has no processor, holds an adapter or
        weights that it does not use, or is not a vision-language model whose layers are listed or
        can be discovered (`headpatch.models.discovery`); or the hub is to be asked for it and
        cannot be reached (then a copy that it left in its cache is loaded, if there is one). A
        model on the hub is judged by its ``config.json`` before the rest of it is fetched.
    RunError
        If the hub stops answering meanwhile.

    Examples
    --------
    >>> vlm = hp.load("demo")
    >>> vlm.lm.grid
    Grid(layers=32, heads=32, tower='lm')
    >>> vlm.dtype
    torch.float32
    """
    place = placement(device, device_map, quantize)
    name = at_home(checked_text(name, "--model"))
    local = _local(name)
    with _quiet():
        remote = HubModel(name) if local is None else None
        folder = remote.describe() if remote else Path(local or "")
        described = config_of(folder, name)
        _check_folder(folder, name)
        processor = _load_processor(folder, name, str(described["model_type"]))
        files = weight_files(folder, described, remote.files if remote else ())
        if remote:
            remote.weights(files)
        tensors = _tensors(folder, files, name)
        check_layers(described, tensors, name)
        config = _config(folder, name, tensors)
        fit_processor(processor, config, folder, name)
        model, unused = _load_model(folder, config, name, place, dtype)
    if unused:
        _tell_unused(name, unused, allow_unused_weights)
    fingerprint = f"commit:{folder.name}" if remote else weights_in(folder, files)
    settings = fingerprint if remote else settings_in(folder)
    vlm = VLM(model, processor, name, fingerprint, len(unused), settings)
    return with_family(vlm)


def _tell_unused(name: str, unused: list[str], allowed: bool) -> None:
    """Refuse weights that the model has no place for, or warn that they are left out."""
    count, first = len(unused), ", ".join(unused[:3])
    if allowed:
        words = "headpatch: %s: %d weights that the model does not use are left out (first: %s)"
        _LOG.warning(words, name, count, first)
        return
    found = f"{name} holds {count} weights that the model does not use (first: {first})"
    flags = "--allow-unused-weights, or allow_unused_weights=True"
    hint = f"Mend config.json; or load it without them: {flags}."
    raise InputError("--model", found, _TOGETHER, hint)


def _local(name: str) -> Path | None:
    """Return the folder that a name means; None if it is for the hub to know."""
    if name == "demo":
        return DEMO
    if not name:
        raise InputError("--model", "an empty name", _WANTED)
    if Path(name).is_dir():
        return Path(name)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()
    if looks_local or "/" not in name:
        found = f"{name} is {'a file' if Path(name).exists() else 'not there'}"
        raise InputError("--model", found, _WANTED)
    return None


def _check_folder(folder: Path, name: str) -> None:
    """Refuse a folder of which a part is missing, or an adapter lies in it."""
    if (folder / ADAPTER).exists():
        raise refused_adapter(folder, name)
    if not any((folder / file).is_file() for file in PROCESSOR_FILES):
        found, expected = f"{name} has no processor", f"one of {', '.join(PROCESSOR_FILES)} in it"
        hint = "Save it there with processor.save_pretrained(folder)."
        raise InputError("--model", found, expected, hint)
    for file in sorted(folder.iterdir()):
        if file.suffix in DESCRIBING:
            refuse_pointer("--model", file)


def _tensors(folder: Path, files: list[str], name: str) -> dict[str, int]:
    """Read what the weight files hold; refuse a folder without any."""
    if not files:
        expected = "model.safetensors in it, or model.safetensors.index.json and what it lists"
        hint = "Convert other formats with model.save_pretrained(folder)."
        raise InputError("--model", f"{name} has no weights", expected, hint)
    return held([folder / file for file in files])


def _load_processor(folder: Path, name: str, kind: str) -> ProcessorMixin:
    missing = [package for package in FAMILIES.get(kind, Family()).needs if not installed(package)]
    if missing:
        raise _needs(name, missing)
    check_token_counts(folder, name)
    try:
        processor = AutoProcessor.from_pretrained(str(folder), trust_remote_code=False)
    except ImportError as error:  # a processor of another family than the model's
        missing = [one for one in ("torchvision", "num2words") if not installed(one)]
        raise _needs(name, missing) from error
    except Exception as error:  # transformers raises whatever its parts raise
        if "trust_remote_code" in str(error):
            found = f"{name}: its processor runs only with code of its own (`auto_map`)"
            never = "headpatch never runs code that comes with a model"
            own = "a processor of transformers' own classes"
            raise InputError("--model", f"{found}; {never}", own) from error
        raise _bad_model(name, "its processor does not load", error) from error
    if not hasattr(processor, "image_processor"):
        raise InputError("--model", f"{name} has no image processor", "a vision-language model")
    check_picture_sizes(processor, name)
    return processor


def _needs(name: str, packages: list[str]) -> InputError:
    found = [f"{package} is not installed" for package in packages]
    needs = f"{name}: its processor needs {' and '.join(packages)}; {', '.join(found)}"
    hint = "pip install 'headpatch[vision]'; torchvision must be the release made for torch's."
    return InputError("--model", needs, "what the extra `vision` installs", hint)


def _config(folder: Path, name: str, tensors: Mapping[str, int]) -> PretrainedConfig:
    """Read a config as transformers does; refuse a model that is larger than its weights."""
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        config._attn_implementation = None  # headpatch brings its own
        config.return_dict = True
        with torch.device("meta"):  # shapes without numbers
            asked = AutoModelForImageTextToText.from_config(config).num_parameters()
    except Exception as error:  # likewise
        raise _bad_model(name, "its config.json is of no model", error) from error
    there = sum(tensors.values())
    packed = 16 if getattr(config, "quantization_config", None) else 1  # numbers to one stored
    if asked > 2 * there * packed:
        found = f"{name}: its config.json asks for {asked:,} numbers, its weights are {there:,}"
        raise InputError("--model", found, _TOGETHER)
    return config


def _load_model(
    folder: Path, config: PretrainedConfig, name: str, place: Mapping[str, Any], dtype: str
) -> tuple[PreTrainedModel, list[str]]:
    """Load the weights; return also the names of those that the model has no place for."""
    spread = dict(place)
    device: torch.device | None = spread.pop("device", None)
    on_cpu = device is not None and device.type == "cpu"
    wanted = torch.float32 if dtype == "auto" and on_cpu else dtype_of(dtype)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            str(folder),
            config=config,
            dtype=wanted,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with the weight's name
            **spread,
        )
    except Exception as error:  # likewise
        raise _bad_model(name, "it does not load", error) from error
    if missing := sorted(report["missing_keys"]):
        found = f"{name} lacks {len(missing)} weights (first: {missing[0]})"
        raise InputError("--model", found, "a complete checkpoint of the configured architecture")
    if mismatched := sorted(report["mismatched_keys"]):
        key, there, wanted_shape = mismatched[0]
        first = f"{key} is {list(there)}, its config.json asks for {list(wanted_shape)}"
        found = f"{name} has {len(mismatched)} weights of a wrong shape (first: {first})"
        raise InputError("--model", found, _TOGETHER)
    unused = sorted(map(str, report["unexpected_keys"]))
    quantize_weights_alone(model)
    model = model.eval().requires_grad_(False)
    if device is None or quantized(model):  # every part is where it belongs
        return model, unused
    if dtype == "auto" and 4 * model.num_parameters() < _SMALL:
        model = model.float()
    return model.to(device), unused


def _bad_model(name: str, what: str, error: Exception) -> InputError:
    found = f"{name}: {what} ({shorten(str(error), 240, placeholder=' …') or type(error).__name__})"
    hint = "" if Path(name).is_dir() else WAY_OUT
    return InputError("--model", found, "a complete vision-language model", hint)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide notices (torchvision missing, say) and transformers' own progress bars."""
    with ExitStack() as before:
        before.callback(transformers_logging.set_verbosity, transformers_logging.get_verbosity())
        transformers_logging.set_verbosity(logging.CRITICAL)
        if transformers_logging.is_progress_bar_enabled():
            before.callback(transformers_logging.enable_progress_bar)
        transformers_logging.disable_progress_bar()
        for logger in map(logging.getLogger, _TALKATIVE):
            before.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        yield

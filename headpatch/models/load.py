"""Loading a model: the bundled one, a local folder, or a hub id. Never remote code."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import logging as transformers_logging

from headpatch.errors import InputError
from headpatch.models.vlm import VLM

DEMO = Path(__file__).parent / "demo"
_SMALL = 4 << 30  # bytes in float32 under which a model is not worth rounding
_HASHED = 1 << 30  # bytes of weights that are hashed whole
_LOCAL_WAY_OUT = "Give a folder that holds the model: --model PATH."


def load(name: str = "demo", device: str = "auto", dtype: str = "auto") -> VLM:
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

    Raises
    ------
    InputError
        If the model is missing, incomplete or corrupted, has no processor, or is not a
        vision-language model of a known family.
    """
    place = resolve_device(device)
    source, local = _source(name)
    if local:
        _check_folder(Path(source), name)
    with _quiet():
        processor = _load_processor(source, name)
        model = _load_model(source, name, place, dtype)
    vlm = VLM(model, processor, name, _fingerprint(model, Path(source) if local else None))
    vlm.lm  # noqa: B018  an unknown layout is refused here, not in the middle of a run
    return vlm


def resolve_device(device: str) -> torch.device:
    """Turn ``auto`` or a device's name into a device that exists here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(
            "--device", repr(device), "a device of this machine: auto, cpu, cuda, cuda:1 or mps"
        ) from None
    return place


def _source(name: str) -> tuple[str, bool]:
    if name == "demo":
        return str(DEMO), True
    if Path(name).is_dir():
        return name, True
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()
    if looks_local or "/" not in name:
        found = f"{name} is {'a file' if Path(name).exists() else 'not there'}"
        raise InputError("--model", found, "demo, a model's folder, or a hub id such as owner/name")
    return name, False


def _check_folder(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise InputError("--model", f"{name} has no config.json", "a folder saved by transformers")
    if not any((folder / file).is_file() for file in _PROCESSOR_FILES):
        raise InputError(
            "--model",
            f"{name} has no processor",
            f"one of {', '.join(_PROCESSOR_FILES)} in it",
            "Save it there with processor.save_pretrained(folder).",
        )
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            "--model",
            f"{name} has no weights",
            "*.safetensors files in it",
            "Convert other formats with model.save_pretrained(folder).",
        )


_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def _load_processor(source: str, name: str) -> ProcessorMixin:
    try:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its parts raise
        raise _bad_model(name, "its processor does not load", error) from error
    if not hasattr(processor, "image_processor"):
        raise InputError("--model", f"{name} has no image processor", "a vision-language model")
    return processor


def _load_model(source: str, name: str, device: torch.device, dtype: str) -> PreTrainedModel:
    wanted = torch.float32 if dtype == "auto" and device.type == "cpu" else _dtype(dtype)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=wanted,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # likewise
        raise _bad_model(name, "it does not load", error) from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            "--model",
            f"{name} lacks {len(missing)} weights (first: {missing[0]})",
            "a complete checkpoint of the configured architecture",
        )
    if dtype == "auto" and 4 * model.num_parameters() < _SMALL:
        model = model.float()
    return model.eval().requires_grad_(False).to(device)


def _dtype(dtype: str) -> torch.dtype | str:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return "auto"
    if dtype not in known:
        raise InputError("--dtype", repr(dtype), f"auto, {', '.join(known)}")
    return known[dtype]


def _bad_model(name: str, what: str, error: Exception) -> InputError:
    first = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
    return InputError(
        "--model",
        f"{name}: {what} ({first})",
        "a complete vision-language model",
        _LOCAL_WAY_OUT if not Path(name).is_dir() else "",
    )


def _fingerprint(model: PreTrainedModel, folder: Path | None) -> str:
    """Name the weights: the hub's commit, or a SHA-256.

    Weight files up to 1 GiB are hashed whole, larger ones by their headers (which list every
    tensor's name, shape and place) and sizes, since reading 14 GB would take longer than a run.
    """
    if folder is None:
        return f"commit:{getattr(model.config, '_commit_hash', None) or 'unknown'}"
    files = sorted(folder.glob("*.safetensors"))
    whole = sum(file.stat().st_size for file in files) <= _HASHED
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            if whole:
                while block := stream.read(1 << 22):
                    digest.update(block)
            else:
                size = int.from_bytes(stream.read(8), "little")
                digest.update(stream.read(size) + json.dumps(file.stat().st_size).encode())
    return f"{'sha256' if whole else 'sha256-of-headers'}:{digest.hexdigest()}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' notices (torchvision missing, say) and its own progress bars."""
    verbosity, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()

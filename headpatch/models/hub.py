"""Whether the hub has a model: asked once, in seconds, before anything is downloaded."""

from pathlib import Path
from textwrap import shorten

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from headpatch.errors import InputError

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Either of them describes a processor."""

WAY_OUT = "Give a folder that holds the model: --model PATH."
"""A hint for where the hub does not help."""

_CONFIG = "config.json"
_SECONDS = 5.0  # for each address of the hub, to connect and to answer


def copy_of(name: str) -> Path | None:
    """Ask the hub for a model; return where it is kept here if the hub does not answer.

    One ``HEAD`` request for its ``config.json``, not tried again: transformers would try every
    file of the model for minutes.

    Parameters
    ----------
    name
        A hub id, of which no folder is here.

    Returns
    -------
    The copy in huggingface_hub's cache, named after its commit; None where the hub answers, and
    transformers may ask it for more.

    Raises
    ------
    InputError
        If the hub does not have the model, or does not answer and no copy is kept.
    """
    try:
        get_hf_file_metadata(hf_hub_url(name, _CONFIG), timeout=_SECONDS)
    except HFValidationError:
        raise _nowhere(name, "this is no name that the hub could have") from None
    except GatedRepoError:
        why = f"the hub ({constants.ENDPOINT}) gives it only to those who may have it"
        raise _nowhere(name, why, f"Log in with `hf auth login`. {WAY_OUT}") from None
    except RepositoryNotFoundError:
        why = f"the hub ({constants.ENDPOINT}) has none of this name, or shows it to others only"
        raise _nowhere(name, why) from None
    except EntryNotFoundError:
        raise _nowhere(name, f"the hub's has no {_CONFIG}") from None
    except OfflineModeIsEnabled:
        return _kept(name, "the hub is not asked (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)")
    except Exception as error:  # whatever its HTTP library raises, which differs by release
        said = shorten(str(error), 120, placeholder=" …") or type(error).__name__
        return _kept(name, f"the hub ({constants.ENDPOINT}) cannot be reached ({said})")
    return None


def _kept(name: str, why: str) -> Path:
    config = try_to_load_from_cache(name, _CONFIG)
    if not isinstance(config, str):
        raise _nowhere(name, why)
    folder = Path(config).parent
    has_processor = any((folder / file).is_file() for file in PROCESSOR_FILES)
    if not has_processor or not list(folder.glob("*.safetensors")):
        raise _nowhere(name, f"{why}, and its local cache holds only a part of it")
    return folder


def _nowhere(name: str, why: str, hint: str = WAY_OUT) -> InputError:
    found = f"{name}: there is no such folder here, and {why}"
    expected = "demo, a model's folder, or the id of a model that the hub gives"
    return InputError("--model", found, expected, hint)

"""A model on the hub: asked for once and in seconds, judged by its config before the rest comes."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from textwrap import shorten
from typing import TypeVar

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from headpatch.errors import InputError, RunError
from headpatch.models.described import ADAPTER, CONFIG, PROCESSOR_FILES, config_of, refused_adapter
from headpatch.models.weights import DESCRIBING

WAY_OUT = "Give a folder that holds the model: --model PATH."
"""A hint for where the hub does not help."""

_SECONDS = 5.0  # for each address of the hub, to connect and to answer
_AT_ONCE = 8  # files that are fetched
_Given = TypeVar("_Given")


class HubModel:
    """A model on the hub, at one commit, by a hub id of which no folder is here.

    The hub gets one ``HEAD`` request for the model's ``config.json``, not tried again: transformers
    would try every file for minutes. An `InputError` if the hub does not have the model, or does
    not answer and no copy is kept. `files` are those that the hub has; none before `describe`, nor
    if it is not asked.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: list[str] = []
        self._copy = None
        try:
            found = get_hf_file_metadata(hf_hub_url(name, CONFIG), timeout=_SECONDS)
        except HFValidationError:
            raise _nowhere(name, "this is no name that the hub could have") from None
        except GatedRepoError:
            why = f"the hub ({constants.ENDPOINT}) gives it only to those who may have it"
            raise _nowhere(name, why, f"Log in with `hf auth login`. {WAY_OUT}") from None
        except RepositoryNotFoundError:
            why = f"the hub ({constants.ENDPOINT}) has none of this name, or shows it to others"
            raise _nowhere(name, f"{why} only") from None
        except EntryNotFoundError:
            raise _without_config(name) from None
        except OfflineModeIsEnabled:
            why = "the hub is not asked (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)"
            self._copy = _kept(name, why)
        except Exception as error:  # whatever its HTTP library raises, which differs by release
            why = f"the hub ({constants.ENDPOINT}) cannot be reached ({_said(error, 120)})"
            self._copy = _kept(name, why)
        self.commit: str | None = self._copy.name if self._copy else found.commit_hash

    def describe(self) -> Path:
        """Fetch ``config.json``, judge it, then fetch what else is small; return the cached folder.

        An `InputError` if it is a model that headpatch cannot look into, has no processor or no
        weights; a `RunError` if the hub stops answering.
        """
        if self._copy is not None:
            return self._copy
        folder = Path(self._download(CONFIG)).parent
        config_of(folder, self.name)
        self.files = self._fetch(lambda: _listed(self.name, self.commit))
        if not set(PROCESSOR_FILES) & set(self.files):
            raise _nowhere(self.name, f"the hub's has no {' or '.join(PROCESSOR_FILES)}")
        if not any(fnmatch(one, "*.safetensors") for one in self.files):
            raise _nowhere(self.name, "the hub's has no weights in the form of safetensors")
        self._take(filter(_is_small, self.files))
        return folder

    def weights(self, files: Iterable[str]) -> None:
        """Fetch weight files into the folder; a `RunError` if the hub stops answering."""
        if self._copy is None:
            self._take(files)

    def _take(self, files: Iterable[str]) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._download, files))

    def _download(self, file: str) -> str:
        return self._fetch(lambda: hf_hub_download(self.name, file, revision=self.commit))

    def _fetch(self, get: Callable[[], _Given]) -> _Given:
        try:
            return get()
        except Exception as error:  # likewise
            line = f"--model: {self.name} could not be fetched whole ({_said(error, 200)})"
            raise RunError(line) from error


def _said(error: Exception, most: int) -> str:
    return shorten(str(error), most, placeholder=" …") or type(error).__name__


def _is_small(file: str) -> bool:
    """Whether a file describes the model: in its folder itself, or one of its chat templates."""
    folder, _, name = file.rpartition("/")
    return name.endswith(DESCRIBING) and folder in ("", "additional_chat_templates")


def _kept(name: str, why: str) -> Path:
    config = try_to_load_from_cache(name, CONFIG)
    if not isinstance(config, str):
        raise _nowhere(name, why)
    folder = Path(config).parent
    has_processor = any((folder / file).is_file() for file in PROCESSOR_FILES)
    if not has_processor or not list(folder.glob("*.safetensors")):
        raise _nowhere(name, f"{why}, and its local cache holds only a part of it")
    return folder


def _without_config(name: str) -> InputError:
    """Say what is on the hub in place of a model with a config."""
    with suppress(Exception):  # what cannot be found out now is not said
        if ADAPTER in _listed(name, None):
            return refused_adapter(Path(hf_hub_download(name, ADAPTER)).parent, name)
    return _nowhere(name, f"the hub's has no {CONFIG}")


def _listed(name: str, commit: str | None) -> list[str]:
    """Ask the hub which files a model has."""
    answer = HfApi().model_info(name, revision=commit, timeout=6 * _SECONDS)
    return [one.rfilename for one in answer.siblings or ()]


def _nowhere(name: str, why: str, hint: str = WAY_OUT) -> InputError:
    found = f"{name}: there is no such folder here, and {why}"
    expected = "demo, a model's folder, or the id of a model that the hub gives"
    return InputError("--model", found, expected, hint)

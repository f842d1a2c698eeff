"""The hub: asked once and quickly; where it does not answer, what it left here still loads."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from headpatch.errors import InputError
from headpatch.models.load import load
from tests.command import refused
from tests.tiny import save_tiny

NAME, COMMIT = "owner/name", "0123456789abcdef0123456789abcdef01234567"
CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Puts the hub elsewhere; its local cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def move(endpoint: str) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return move


def cached(folder: Path) -> Path:
    """Put a tiny model into the cache `folder`, as a download of it leaves it."""
    place = folder / "models--owner--name"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(COMMIT, "utf-8")
    return save_tiny(place / "snapshots" / COMMIT)


@contextmanager
def serving(status: int, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """Answer every request alike; give the address, and what is asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", ["llava-hf/llava-1.5-7b-hf", "models/llava"])
def test_a_hub_out_of_reach_is_one_line_at_once(hub: Callable[[str], None], name: str) -> None:
    hub(CLOSED)
    start = time.monotonic()
    line = refused("check", "--model", name)
    assert time.monotonic() - start < 5
    assert line.startswith(f"--model: {name}: there is no such folder here, and the hub ({CLOSED})")
    assert "cannot be reached" in line
    assert "--model PATH" in line


def test_offline_on_purpose_is_said(hub: Callable[[str], None]) -> None:
    assert "the hub is not asked (HF_HUB_OFFLINE" in refused("check", "--model", NAME)


@pytest.mark.parametrize(
    ("status", "code", "part"),
    [
        (404, "RepoNotFound", "has none of this name"),
        (404, "EntryNotFound", "no config.json"),
        (403, "GatedRepo", "hf auth login"),
        (503, "", "cannot be reached (Server error '503"),
    ],
)
def test_what_the_hub_answers_is_asked_once(
    hub: Callable[[str], None], status: int, code: str, part: str
) -> None:
    with serving(status, X_Error_Code=code) as (address, asked):
        hub(address)
        line = refused("check", "--model", NAME)
    assert part in line
    assert "there is no such folder here" in line
    assert asked == [f"HEAD /{NAME}/resolve/main/config.json"]


def test_a_name_that_the_hub_cannot_have(hub: Callable[[str], None]) -> None:
    hub(CLOSED)
    assert "no name that the hub could have" in refused("check", "--model", "a/b c")


@pytest.mark.parametrize("offline", [True, False])
def test_a_copy_in_the_cache_loads_without_the_hub(
    hub: Callable[[str], None],
    tmp_path: Path,
    offline: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cached(tmp_path / "cache")
    capfd.readouterr()
    if not offline:
        hub(CLOSED)
    vlm = load(NAME)
    assert (vlm.name, vlm.fingerprint) == (NAME, f"commit:{COMMIT}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("lost", ["*.safetensors", "*processor*"])
def test_half_a_copy_is_no_copy(hub: Callable[[str], None], tmp_path: Path, lost: str) -> None:
    hub(CLOSED)
    for file in cached(tmp_path / "cache").glob(lost):
        file.unlink()
    with pytest.raises(InputError, match="its local cache holds only a part of it"):
        load(NAME)


def test_a_shard_that_is_missing_is_named(hub: Callable[[str], None], tmp_path: Path) -> None:
    hub(CLOSED)
    folder = cached(tmp_path / "cache")
    shutil.move(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(InputError, match="model-00002-of-00002") as caught:
        load(NAME)
    assert "--model PATH" in str(caught.value)

"""The hub: asked once and quickly; where it does not answer, what it left here still loads."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from headpatch.errors import InputError
from headpatch.models import hub as hub_module
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
def answering(answer: Callable[[BaseHTTPRequestHandler, str], None]) -> Iterator[tuple[str, list]]:
    """Be a hub that answers each request for a path so; give the address, and what is asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(f"{self.command} {self.path.partition('?')[0]}")
            answer(self, self.path.partition("?")[0])

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def send(to: BaseHTTPRequestHandler, status: int, content: bytes = b"", **headers: str) -> None:
    to.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        to.send_header(name.replace("_", "-"), value)
    to.end_headers()
    if to.command == "GET":
        to.wfile.write(content)


def holding(folder: Path) -> AbstractContextManager[tuple[str, list[str]]]:
    """Be a hub that has one model, the files of `folder`."""

    def answer(to: BaseHTTPRequestHandler, path: str) -> None:
        if path.startswith("/api/models/"):
            names = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
            about = json.dumps({"id": NAME, "sha": COMMIT, "siblings": names}).encode()
            return send(to, 200, about, Content_Type="application/json")
        file = folder / path.rpartition("/")[2]
        if not file.is_file():
            return send(to, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        content = file.read_bytes()
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        return send(to, 200, content, ETag=tag, X_Repo_Commit=COMMIT)

    return answering(answer)


@pytest.mark.parametrize("name", ["llava-hf/llava-1.5-7b-hf", "models/llava"])
def test_a_hub_out_of_reach_is_one_line_at_once(hub: Callable[[str], None], name: str) -> None:
    hub(CLOSED)
    refused("check", "--model", "a/b c")  # what is imported once does not count
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
    with answering(lambda to, _: send(to, status, X_Error_Code=code)) as (address, asked):
        hub(address)
        line = refused("check", "--model", NAME)
    assert part in line
    assert "there is no such folder here" in line
    heads = [one for one in asked if one.startswith("HEAD")]
    assert heads == [f"HEAD /{NAME}/resolve/main/config.json"]
    assert heads == asked or code == "EntryNotFound"  # then an adapter is looked for


def test_a_name_that_the_hub_cannot_have(hub: Callable[[str], None]) -> None:
    hub(CLOSED)
    assert "no name that the hub could have" in refused("check", "--model", "a/b c")


@pytest.mark.parametrize("offline", [True, False])
def test_a_copy_in_the_cache_loads_without_the_hub(
    hub: Callable[[str], None], tmp_path: Path, offline: bool, capfd: pytest.CaptureFixture[str]
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


def test_a_model_that_the_hub_gives_loads(hub: Callable[[str], None], tmp_path: Path) -> None:
    place = save_tiny(tmp_path / "there")
    (place / "consolidated.safetensors").write_bytes(b"of another program")
    with holding(place) as (address, asked):
        hub(address)
        vlm = load(NAME)
    assert (vlm.name, vlm.fingerprint) == (NAME, f"commit:{COMMIT}")
    gets = [one.rpartition("/")[2] for one in asked if one.startswith("GET")]
    assert gets[0] == "config.json"
    assert "model.safetensors" in gets and "consolidated.safetensors" not in gets


def test_a_model_is_refused_when_its_config_alone_is_known(
    hub: Callable[[str], None], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "idefics4"}', "utf-8")
    with holding(tmp_path) as (address, asked):
        hub(address)
        assert "idefics3" in refused("check", "--model", NAME)
    assert {one.rpartition("/")[2] for one in asked} == {"config.json"}


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_on_the_hub_is_refused_without_weights(
    hub: Callable[[str], None], tmp_path: Path, alone: bool
) -> None:
    place = save_tiny(tmp_path / "there")
    (place / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}', "utf-8")
    if alone:
        (place / "config.json").unlink()
    with holding(place) as (address, asked):
        hub(address)
        assert "an adapter of owner/base" in refused("check", "--model", NAME)
    assert not any(one.endswith("/model.safetensors") for one in asked)


def test_a_hub_that_stops_answering_is_one_line(hub: Callable[[str], None], tmp_path: Path) -> None:
    place = save_tiny(tmp_path / "there")
    with holding(place) as (address, _):
        hub(address)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hub_module, "hf_hub_download", _stopped)
            line = refused("check", "--model", NAME, code=1)
    assert "could not be fetched whole (the line is dead)" in line


def _stopped(*_: object, **__: object) -> None:
    raise ConnectionError("the line is dead")

"""Bad input: one line that names the argument, what was found, what was expected; nothing written.

Each command here runs in a folder of good and broken pictures and models.
"""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.command import contents, done, headpatch, refused, refused_early
from tests.tiny import image_pair, save_tiny, tiny_processor

command = shlex.split
RANK, ABLATE = (
    f"{verb} --with with.png --without without.png --model tiny --out new/folder"
    for verb in ("rank", "ablate")
)
TRUNCATED = ("png", "jpg", "gif", "bmp", "tiff", "webp")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    _pictures(folder)
    _models(folder)
    (folder / "a-file").write_text("in the way")
    (folder / "wrong.yaml").write_text("seed: three")
    (folder / "heads.yaml").write_text("ablate: {heads: 24-17}")
    return folder


@pytest.fixture(autouse=True)
def untouched(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every command here runs in the folder and leaves it as it was."""
    monkeypatch.chdir(place)
    before = contents(place)
    yield
    assert contents(place) == before


def said(parts: list[str], message: str) -> None:
    for part in parts:
        assert part in message


def _pictures(folder: Path) -> None:
    present, absent = image_pair()
    present.save(folder / "with.png")
    absent.save(folder / "without.png")
    present.resize((80, 56)).save(folder / "wide.png")
    (folder / "words.png").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    for kind in TRUNCATED:
        present.save(folder / f"whole.{kind}")
        whole = (folder / f"whole.{kind}").read_bytes()
        (folder / f"cut.{kind}").write_bytes(whole[: len(whole) * 2 // 3])
    Image.new("F", (56, 56)).save(folder / "float.tiff")


HUGE, EDGE, QWEN = 10**6, {"longest_edge": 56}, {"shortest_edge": 784, "longest_edge": 9408}
SQUARE, LARGE = {"height": 56, "width": 56}, {"height": 10**4, "width": 10**4}
ABSURD: dict[str, tuple[str | None, dict[str, Any]]] = {
    "crop": (None, {"crop_size": {"height": 56, "width": HUGE}}),
    "shortest": (None, {"size": {"shortest_edge": HUGE}}),
    "longest": ("PixtralImageProcessor", {"size": {"longest_edge": HUGE}}),
    "height": ("SiglipImageProcessor", {"size": {"height": HUGE, "width": 56}}),
    "padded": ("SiglipImageProcessor", {"pad_size": {"height": 56, "width": HUGE}}),
    "area": ("Qwen2VLImageProcessor", {"min_pixels": 1, "max_pixels": 10**9}),
    "few-areas": ("Qwen2VLImageProcessor", {"min_pixels": 10**9}),
    "merged": ("Qwen2VLImageProcessor", {"size": QWEN, "patch_size": 14, "merge_size": HUGE}),
    "tiles": ("GotOcr2ImageProcessor", {"size": SQUARE, "max_patches": HUGE}),
    "large-tiles": ("GotOcr2ImageProcessor", {"size": LARGE, "max_patches": 12}),
    "mllama": ("MllamaImageProcessor", {"size": SQUARE, "max_image_tiles": HUGE}),
    "split": ("Idefics3ImageProcessor", {"size": EDGE, "max_image_size": {"longest_edge": HUGE}}),
    "pinpoints": ("LlavaNextImageProcessor", {"image_grid_pinpoints": [[56, 56], [HUGE, 56]]}),
    "patch": ("PixtralImageProcessor", {"size": EDGE, "patch_size": HUGE}),
}
"""Image processors that would make too much of a picture: their kind, and what they are told."""


def _models(folder: Path) -> None:
    save_tiny(folder / "tiny")

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folder / "tiny", folder / name))

    (copy("bad-chat") / "chat_template.jinja").write_text("{% for message in messages %}")
    (copy("blind-chat") / "chat_template.jinja").write_text("USER: hello ASSISTANT:")
    file = copy("corrupted") / "model.safetensors"
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])
    weights = load_file(folder / "tiny/model.safetensors")
    (query,) = (key for key in weights if "language" in key and ".0.self_attn.q_proj" in key)
    for name, changed in {
        "misshapen": weights | {query: weights[query][:4].clone()},
        "nan": weights | {query: torch.full_like(weights[query], float("nan"))},
    }.items():
        save_file(changed, copy(name) / "model.safetensors", metadata={"format": "pt"})
    processor = json.loads((folder / "tiny/processor_config.json").read_text())
    for name, (kind, options) in ABSURD.items():
        images = options if kind is None else options | {"image_processor_type": kind}
        changed = processor | {"image_processor": processor["image_processor"] | images}
        (copy(name) / "processor_config.json").write_text(json.dumps(changed))
    tokens = processor | {"image_seq_length": 10**9}
    (copy("tokens") / "processor_config.json").write_text(json.dumps(tokens))
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "text-with-processor")
    tiny_processor().save_pretrained(folder / "text-with-processor")


BEFORE_THE_MODEL = {
    # pictures
    f"{RANK} --with none.png": ["--with", "none.png", "does not exist", "picture"],
    f"{RANK} --without none.png": ["--without", "none.png", "does not exist"],
    f"{RANK} --with words.png": ["--with", "words.png", "is not a picture", "JPEG"],
    f"{RANK} --with empty.png": ["--with", "empty.png", "is not a picture"],
    f"{RANK} --with tiny": ["--with", "tiny", "a folder", "picture"],
    f"{RANK} --with float.tiff": ["--with", "float.tiff", "8 or 16 bits"],
    f"{RANK} --with {'x' * 300}.png": ["--with", "too long"],
    f"{RANK} --with bundled:9.jpg": ["--with", "9.jpg", "does not exist"],
    **{
        f"{RANK} --with cut.{kind}": ["--with", f"cut.{kind}", "cannot be read", "complete"]
        for kind in TRUNCATED
    },
    f"{RANK} --with without.png": ["--with, --without", "same picture", "differ"],
    "rank --model tiny --with with.png": ["--with, --without", "only one", "both"],
    "ablate --model tiny --without with.png": ["--with, --without", "only one", "both"],
    f"{RANK} --region 0,0,9000,9000": ["--region", "leaves the picture", "pixels within"],
    f"{RANK} --region [1,2,30,40]": ["--region", "a list of pixels", "x,y,x+w,y+h"],
    # the output folder
    f"{RANK} --out a-file": ["--out", "a-file", "cannot be written", "folder"],
    f"{RANK} --out {'y' * 300}": ["--out", "cannot be written", "too long"],
    f"{RANK} --dtype int8": ["--dtype", "'int8'", "'float32'"],
    # the command itself
    "rnak": ["rnak", "--help"],
    f"{RANK} --frobnicate": ["--frobnicate", "--help"],
    f"{RANK} --heads 1.1": ["--heads", "--help"],
    f"{RANK} again": ["again", "--help"],
    f"{RANK} --seed": ["--seed", "--help"],
    # the study file
    "rank --config none.yaml": ["--config", "none.yaml", "No such file", "YAML"],
    "rank --config tiny": ["--config", "tiny", "directory"],
    "rank --config with.png": ["--config", "with.png", "is not YAML"],
    "rank --config words.png": ["--config", "words.png", "question:"],
    "rank --config wrong.yaml": ["wrong.yaml: seed", "'three'", "whole number"],
    "rank --config heads.yaml": ["--heads", "'24-17'"],
}


@pytest.mark.parametrize("line", BEFORE_THE_MODEL, ids=lambda line: line.removeprefix(RANK)[:60])
def test_refused_before_a_model_loads(line: str) -> None:
    said(BEFORE_THE_MODEL[line], refused_early(*command(line)))


MODELS = {
    "nowhere": ["nowhere is not there", "folder", "owner/name"],
    "./nowhere": ["./nowhere is not there", "folder"],
    "/no/where": ["/no/where is not there", "folder"],
    "with.png": ["with.png is a file", "folder"],
    "''": ["an empty name", "folder"],
    "owner/name": ["owner/name", "--model PATH"],
    "corrupted": ["corrupted", "does not load", "header"],
    "misshapen": ["q_proj.weight", "[4, 32]", "[32, 32]", "config.json"],
    "text-with-processor": ["Llama", "reads text alone"],
    "bad-chat": ["chat template", "`prompt`"],
    "blind-chat": ["leaves out the image token <image>", "`prompt`"],
    "crop": ["`crop_size.width` is 1,000,000", "at most 20,000 pixels a side"],
    "shortest": ["`size.shortest_edge` is 1,000,000", "at most 20,000 pixels a side"],
    "longest": ["`size.longest_edge` is 1,000,000"],
    "height": ["`size.height` is 1,000,000"],
    "padded": ["`pad_size.width` is 1,000,000"],
    "area": ["`size.longest_edge` is 1,000,000,000", "at most 400,000,000 pixels"],
    "few-areas": ["`size.shortest_edge` is 1,000,000,000", "at most 400,000,000 pixels"],
    "merged": ["`merge_size` is 1,000,000", "at most 1,428 of 14 pixels a side"],
    "tiles": ["`max_patches` is 1,000,000", "at most 1,000 of 56 pixels a side"],
    "large-tiles": ["`max_patches` is 12", "at most 4 of 10,000 pixels a side"],
    "mllama": ["`max_image_tiles` is 1,000,000", "at most 1,000"],
    "split": ["`max_image_size.longest_edge` is 1,000,000"],
    "pinpoints": ["`image_grid_pinpoints[1][0]` is 1,000,000"],
    "patch": ["`patch_size` is 1,000,000"],
    "tokens": ["`image_seq_length` in processor_config.json is 1,000,000,000", "1,000,000 image"],
}


@pytest.mark.parametrize("model", MODELS)
def test_a_bad_model_is_refused(model: str) -> None:
    message = refused(*command(f"{RANK} --force --model {model}"))
    assert message.startswith("--model: ")
    said(["; expected ", *MODELS[model]], message)


@pytest.mark.parametrize("device", ["tpu", "", "cuda:99", "meta", "hpu", "mkldnn", "privateuseone"])
def test_an_unknown_device_is_refused(device: str) -> None:
    message = refused(*command(f"{RANK} --force"), "--device", device)
    said([f"--device: {device!r}", "cpu"], message)


WITH_THE_MODEL = {
    f"{RANK} --force --with wide.png": ["--with, --without", "cut up differently", "one size"],
    f"{ABLATE} --heads top:2 --region 0,0,1,.99 --force": ["--region", "all 16 patches", "smaller"],
    f"{ABLATE} --force --heads 40.2": ["--heads", "40.2", "layers 0-2 and heads 0-3"],
    f"{ABLATE} --force --heads 1.4": ["--heads", "1.4", "layers 0-2 and heads 0-3"],
    f"{ABLATE} --force --heads layer:9": ["--heads", "out of range"],
    f"{ABLATE} --force --heads 1.2-1.9": ["--heads", "1.9", "out of range"],
    f"{ABLATE} --force --heads 1.3-1.2": ["--heads", "backwards", "lower"],
    f"{ABLATE} --force --heads top:13": ["--heads", "top:13", "at most top:12"],
    f"{ABLATE} --force --heads layer:1,1.2": ["--heads", "1.2", "twice"],
    f"{RANK} --force --region 0,0,0.01,0.01": ["--region", "no patch centre", "16 patches"],
    f"{ABLATE} --force --region 0,0,0.01,0.01": ["--region", "no patch centre"],
    f"{ABLATE} --force --region 0,0,0.01,0.01 --heads 1.1": ["--region", "no patch centre"],
    f"{RANK} --question 'Is <image> here?'": ["--question", "image token"],
    RANK: ["--question", "LD_with = +", "LD_without = +", "LD_with > 0 > LD_without", "--force"],
    f"{ABLATE} --heads 1.1": ["--question", "LD_with", "--force"],
}


@pytest.mark.parametrize("line", WITH_THE_MODEL)
def test_refused_with_a_model(line: str) -> None:
    said(WITH_THE_MODEL[line], refused(*command(line)))


STUDIES = {
    "prompt: 'no place for it'": ["prompt", "{question}", "<image>"],
    "answers: [Yes, Yes]": ["answers", "same token", "differ"],
    "answers: [Indubitably, No]": ["answers", "'Indubitably'", "one token"],
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_that_does_not_fit_the_model(tmp_path: Path, study: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(study)
    said(STUDIES[study], refused(*command(f"{RANK} --force"), "--config", file))


@pytest.mark.parametrize("verb", [RANK, ABLATE])
def test_logits_that_are_no_numbers_are_a_failed_run(verb: str) -> None:
    message = refused(*command(f"{verb} --force --model nan"), code=1)
    said(["nan", "not finite", "weights"], message)


def test_a_bug_is_one_line_too_and_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headpatch.core.session.load", lambda: None)  # takes no arguments
    message = refused(*command(RANK), code=1)
    assert message.startswith("TypeError: ") and "--debug" in message
    shown = headpatch(*command(f"{RANK} --debug")).err
    assert "Traceback" in shown
    assert shown.splitlines()[-1] == f"headpatch: {message}"


def test_no_verb_shows_help() -> None:
    shown = headpatch()
    assert (shown.code, shown.err) == (2, "")
    said(["rank", "ablate"], shown.out)


def test_force_runs_and_marks_every_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        "headpatch.core.output.writing.draw", lambda *_, question, **__: titles.append(question)
    )
    ablate = f"{ABLATE} --force --heads 1.1 --kinds zero --controls 0"
    for line in (f"{RANK} --force", ablate):
        assert "INVALID" in done(*command(line), "--out", tmp_path / "out").out
        assert done(*command(line), "--out", tmp_path / "out", "--json").json["valid"] is False
        run = yaml.safe_load((tmp_path / "out/run.yaml").read_text())
        assert run["run"]["valid"] is False
        assert run["study"]["force"] is True
    for run_name in ("with", "without"):
        kept = torch.load(tmp_path / f"out/attention_{run_name}_triangle.pt", weights_only=True)
        assert kept["valid"] is False
    assert len(titles) == 2 * (7 + 1)
    assert all("INVALID" in title for title in titles)


def _turned(image: Image.Image, file: Path) -> None:
    """The file lies on its side and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    image.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)


def test_image_modes_and_rotation_give_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headpatch.core.output.writing.draw", lambda *_, **__: None)
    found = {}
    for mode in ("RGB", "L", "RGBA", "LA", "P", "CMYK", "turned"):
        files = []
        for run_name, picture in zip(("with", "without"), image_pair((56, 42)), strict=True):
            image = picture.convert("L")
            files.append(tmp_path / f"{mode}-{run_name}.tiff")
            if mode == "turned":
                _turned(image, files[-1])
            else:
                through = image if mode in ("L", "LA", "P") else image.convert("RGB")
                through.convert(mode).save(files[-1])
        shown = headpatch(
            *command(f"{ABLATE} --force --json --heads 1.1 --kinds zero --controls 0"),
            "--with", files[0], "--without", files[1], "--out", tmp_path / "out",
        )  # fmt: skip
        (line,) = shown.err.splitlines()  # the pictures are wide, and CLIP crops
        assert "of the picture" in line and shown.code == 0
        found[mode] = shown.json["ld_with"], shown.json["ld_without"]
    assert len(set(found["RGB"])) == 2
    for mode, lds in found.items():
        assert lds == pytest.approx(found["RGB"], abs=1e-6), mode


def test_a_process_of_its_own_says_no_more(place: Path) -> None:
    """No warning of a library either; a library's own streams are not redirected above."""
    shell = [sys.executable, "-m", "headpatch", *command(f"{RANK} --model corrupted")]
    ended = subprocess.run(shell, cwd=place, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("headpatch: --model: corrupted")

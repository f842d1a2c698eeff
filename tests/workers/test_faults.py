"""What happens to workers does not change what they find: each fault on two of them."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headpatch.core.workers.cluster import PACKAGE
from tests.command import headpatch
from tests.long import long
from tests.workers.conftest import PAIRS, Plan
from tests.workers.faulty import PLAN

pytestmark = pytest.mark.usefixtures("undrawn")
ABLATE = ("ablate", "--heads", "1.1,1.2", "--kinds", "resample", "--controls", "2")
TWO = ("--workers", "2")
TOLD = re.compile(r"headpatch: 2 workers measured (\d+) and (\d+) units in ")


def asked(place: Path, out: Path, *more: object, pairs: str = "pairs") -> tuple[object, ...]:
    return (*ABLATE, "--model", place / "model", "--pairs", place / pairs, "--out", out, *more)


def tables(out: Path) -> Mapping[str, bytes]:
    return {
        path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".pt")
    }


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """What one process writes."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headpatch.core.output.writing.draw", lambda part, to, **_: to.touch())
        assert headpatch(*asked(place, out)).code == 0
    return tables(out)


def test_a_worker_that_is_killed_is_replaced(
    plan: Plan, place: Path, whole: Mapping[str, bytes], tmp_path: Path
) -> None:
    plan(kill={"p02": 1})
    said = headpatch(*asked(place, tmp_path, *TWO))
    assert said.code == 0, said.err
    died, last = said.err.splitlines()  # and nothing of Ray's
    words = r"headpatch: worker \d died while it measured pair p02; another takes its place"
    assert re.fullmatch(words, died) and " measured " in last
    assert tables(tmp_path) == whole
    assert not (tmp_path / ".ablate-pairs").exists()


def test_a_pair_that_kills_workers_is_left_out_and_said(
    plan: Plan, place: Path, tmp_path: Path
) -> None:
    plan(kill={"p02": 99})
    said = headpatch(*asked(place, tmp_path / "left", *TWO))
    assert said.code == 0, said.err
    reason = "2 workers died while they measured it"
    assert f"headpatch: pair p02 is left out: {reason}" in said.err.splitlines()
    text = (place / "pairs" / "manifest.csv").read_text()
    kept = [line for line in text.splitlines() if not line.startswith("p02,")]
    (place / "pairs" / "without.csv").write_text("\n".join(kept) + "\n")
    other = asked(place, tmp_path / "without", pairs="pairs/without.csv")
    assert headpatch(*other).code == 0
    left, without = tables(tmp_path / "left"), tables(tmp_path / "without")
    for name in without.keys() - {"gate.csv"}:
        assert left[name] == without[name], name
    with (tmp_path / "left" / "gate.csv").open(newline="") as stream:
        (row,) = (one for one in csv.DictReader(stream) if one["pair"] == "p02")
    assert (row["reason"], row["passed"], row["ld_with"]) == (reason, "False", "")
    assert not (tmp_path / "left" / ".ablate-pairs").exists()


@long
def test_others_take_the_share_of_a_slow_worker(
    plan: Plan, crew: Any, place: Path, whole: Mapping[str, bytes], tmp_path: Path
) -> None:
    plan(slow={crew.names[0]: 3})
    said = headpatch(*asked(place, tmp_path, *TWO))
    assert said.code == 0, said.err
    told = TOLD.match(said.err)
    assert told is not None
    few, many = sorted(map(int, told.groups()))
    assert few + many == 2 * PAIRS and many > 2 * few
    assert tables(tmp_path) == whole


@long
def test_a_full_disk_at_one_worker_is_one_line_and_can_be_gone_on_from(
    plan: Plan, crew: Any, place: Path, whole: Mapping[str, bytes], tmp_path: Path
) -> None:
    plan(full=crew.names[0], pause=0.3)
    said = headpatch(*asked(place, tmp_path, *TWO))
    assert said.code == 1
    assert "No space left on device" in said.err and "Traceback" not in said.err
    assert not list(tmp_path.glob("*.csv"))
    plan()
    again = headpatch(*asked(place, tmp_path, *TWO, "--resume"))
    assert again.code == 0, again.err
    assert tables(tmp_path) == whole


@long
def test_a_verdict_is_the_same_though_workers_die(plan: Plan, place: Path, tmp_path: Path) -> None:
    (place / "verdict.yaml").write_text(
        "verdict: {top: 5, nulls: 2, vision: 2, attribution: 2, random: 1, noise: 1}\n"
        "pairs: {resamples: 200}\n"
    )
    words = ("verdict", "--config", place / "verdict.yaml", "--model", place / "model",
             "--pairs", place / "many")  # fmt: skip
    plan(kill={"p07": 1, "p31": 1})
    for out, more in (("one", ()), ("two", TWO)):
        said = headpatch(*words, "--out", tmp_path / out, *more)
        assert said.code == 0, said.err
        if not more:
            plan(kill={"p07": 1, "p31": 1})
    assert tables(tmp_path / "two") == tables(tmp_path / "one")


FAULTY = (
    "import headpatch.core.workers.crew as crew; from tests.workers.faulty import Faulty; "
    "crew.Worker = Faulty; from headpatch.cli import main; main()"
)


@pytest.fixture
def begun(plan_file: Path, place: Path, tmp_path: Path) -> "subprocess.Popen[str]":
    """The same command in a process group of its own, with a Ray of its own, in the midst."""
    plan_file.write_text('{"pause": 0.4}')
    own = {PLAN: str(plan_file), "HOME": str(tmp_path / "home"), "PYTHONPATH": str(PACKAGE.parent)}
    own["TMPDIR"] = str(tmp_path / "a place for temporary files with so long a name that no socket")
    Path(own["TMPDIR"]).mkdir()
    Path(own["HOME"]).mkdir()
    words = map(str, asked(place, tmp_path / "out", *TWO))
    process = subprocess.Popen(
        [sys.executable, "-c", FAULTY, *words], env=os.environ | own, start_new_session=True,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    units = tmp_path / "out" / ".ablate-pairs"
    limit = time.monotonic() + 120
    while len(list(units.glob("*.unit"))) < PAIRS + 2:
        assert time.monotonic() < limit and process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def of_session(leader: int) -> list[str]:
    """Processes of a session: all that a command has begun."""
    found = subprocess.run(
        ["ps", "-eo", "sid=,pid=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=2) for line in found.stdout.splitlines())
    return [" ".join(rest) for sid, *rest in rows if int(sid) == leader]


def gone(leader: int, seconds: float) -> list[str]:
    """Wait until all processes of a session are gone; return those that are not."""
    limit = time.monotonic() + seconds
    while (left := of_session(leader)) and time.monotonic() < limit:
        time.sleep(0.2)
    return left


@long
def test_an_interrupted_run_ends_all_its_workers_and_is_gone_on_from(
    begun: "subprocess.Popen[str]", place: Path, whole: Mapping[str, bytes], tmp_path: Path
) -> None:
    os.killpg(begun.pid, signal.SIGINT)  # as a terminal does
    out, err = begun.communicate(timeout=60)
    assert (begun.returncode, out) == (130, ""), err
    (line,) = err.splitlines()
    assert re.match(r"headpatch: interrupted; \d finished pairs are kept in ", line)
    assert gone(begun.pid, 10) == []
    assert not list((tmp_path / "home").iterdir())  # no token, no settings
    (scratch,) = (path for path in tmp_path.iterdir() if path.name.startswith("a place"))
    assert not list(scratch.iterdir())
    assert headpatch(*asked(place, tmp_path / "out", "--resume")).code == 0
    assert tables(tmp_path / "out") == whole


@long
def test_a_killed_driver_leaves_no_worker_and_torn_files_are_measured_anew(
    begun: "subprocess.Popen[str]", place: Path, whole: Mapping[str, bytes], tmp_path: Path
) -> None:
    begun.kill()
    begun.communicate(timeout=60)
    left = gone(begun.pid, 10)  # Ray's agents wait a minute for their server; none holds a model
    assert all(one.split()[1] in ("ray::DashboardAgent", "ray::RuntimeEnvAgent") for one in left)
    units = sorted((tmp_path / "out" / ".ablate-pairs").glob("*.unit"))
    units[0].write_bytes(units[0].read_bytes()[:-20])
    said = headpatch(*asked(place, tmp_path / "out", "--resume"))
    assert said.code == 0, said.err
    assert "1 of the files" in said.err
    assert tables(tmp_path / "out") == whole

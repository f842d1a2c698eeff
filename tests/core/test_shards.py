"""Shards over one folder: who may take part, and what is refused in one line."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headpatch.core.output.shards import Number, alive, digest_of, joined, left_by_shards, shards_in
from headpatch.core.output.staging import taken
from headpatch.core.share import Loop, Shard
from headpatch.core.study.study import Study
from headpatch.errors import InputError, Unfinished

DIGEST = "a study's"


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/2", "1.0/4"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard: '.*'; expected number/count, such as 1/4"):
        Number.parse(text)


@contextmanager
def elsewhere(out: Path, which: str, digest: str = DIGEST) -> Iterator[int]:
    """Run a shard in another process; gives its number."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from headpatch.core.output.shards import Number, joined\n"
        f"out = Path({str(out)!r})\n"
        f"with joined(out, out / '.kept', Number.parse({which!r}), 'ablate', {digest!r}):\n"
        "    print('here', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        try:
            yield process.pid
        finally:
            process.kill()


def test_who_is_there_is_named_and_the_dead_are_not(tmp_path: Path) -> None:
    kept = tmp_path / ".kept"
    with elsewhere(tmp_path, "1/3") as pid:
        with joined(tmp_path, kept, Number(2, 3), "ablate", DIGEST):  # others of its run may
            assert set(shards_in(kept)) == {(1, 3), (2, 3)}
            assert alive(kept / "shard-1-of-3") is not None
        line = f"is held by shard 1/3 \\(process {pid} on .*Wait for them to end"
        with pytest.raises(InputError, match=line), taken(tmp_path, "rank"):
            pass
        same = f"--shard: 1/3 is run by process {pid} on"
        with (
            pytest.raises(InputError, match=same),
            joined(tmp_path, kept, Number(1, 3), "a", DIGEST),
        ):
            pass
        more = "--shard: 1/2, and shard 1/3 runs .*; expected a shard of 3"
        with (
            pytest.raises(InputError, match=more),
            joined(tmp_path, kept, Number(1, 2), "a", DIGEST),
        ):
            pass
        other = "of another study, or of other pairs, has left; expected this study's"
        with pytest.raises(InputError, match=other), joined(tmp_path, kept, Number(3, 3), "a", "b"):
            pass
    assert alive(kept / "shard-1-of-3") is None  # it was killed
    with joined(tmp_path, kept, Number(1, 3), "ablate", DIGEST):
        pass
    with taken(tmp_path, "ablate"):
        assert left_by_shards(kept, DIGEST)
        with pytest.raises(InputError, match="of another study"):
            left_by_shards(kept, "another's")


def test_a_run_that_holds_the_folder_keeps_shards_out(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path\n"
        "from headpatch.core.output.staging import taken\n"
        f"with taken(Path({str(tmp_path)!r}), 'sweep'):\n"
        "    print('here', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            how = tmp_path, tmp_path / ".kept", Number(1, 2), "ablate", DIGEST
            with pytest.raises(InputError, match="is held by headpatch sweep"), joined(*how):
                pass
        finally:
            process.kill()


def test_cheap_units_of_shards_that_do_not_run_are_taken_and_others_are_left(
    tmp_path: Path,
) -> None:
    kept = tmp_path / ".kept"
    kept.mkdir()
    with joined(tmp_path, kept, Number(2, 3), "ablate", DIGEST):
        shard = Shard(Number(2, 3), kept)
        keys = tuple(f"k{place}" for place in range(7))
        cheap, dear = Loop("first", keys, 0, kept), Loop("then", keys, 1, kept)
        assert list(shard.places(dear, ())) == [1, 4]
        assert list(shard.places(dear, (4,))) == [4, 1]  # what is open here comes first
        done = []
        for place in shard.places(cheap, ()):
            done.append(place)
            (kept / f"{keys[place]}.unit").touch()
        assert done[:2] == [1, 4] and sorted(done) == list(range(7))
        assert shard.wait(cheap, lambda *_: None)
        for file in kept.glob("*.unit"):
            file.unlink()
        shard.finished(dear, 1)
        words = "shard 2/3: 1 pairs measured; 7 are left to the other shards"
        with pytest.raises(Unfinished, match=words):
            shard.wait(dear, lambda *_: None)
        assert Unfinished("").exit_code == 0


def test_a_shard_waits_for_one_that_runs(tmp_path: Path) -> None:
    kept = tmp_path / ".kept"
    loop = Loop("then", ("a", "b"), 1, kept)
    with elsewhere(tmp_path, "2/2"), joined(tmp_path, kept, Number(1, 2), "ablate", DIGEST):
        (kept / "a.unit").touch()
        told: list[int] = []

        def watched(done: int, _: int) -> None:
            told.append(done)
            if len(told) == 3:
                (kept / "b.unit").touch()

        assert Shard(Number(1, 2), kept).wait(loop, watched)
        assert told == [1, 1, 1]


def test_a_shard_of_another_machine_lives_as_long_as_it_shows(tmp_path: Path) -> None:
    place = tmp_path / "shard-1-of-2"
    place.mkdir()
    owner = '{"verb": "ablate", "pid": 1, "host": "another", "began": null, "since": "then"}'
    (place / ".headpatch.lock").write_text(owner)
    (place / "shard.json").write_text("{}")
    assert alive(place) is not None
    long_ago = time.time() - 3600
    os.utime(place / "shard.json", (long_ago, long_ago))
    assert alive(place) is None


def test_a_study_is_the_same_wherever_it_is_run() -> None:
    study = Study()
    here = digest_of(study, "ablate", ["a", "b"])
    assert here == digest_of(study.override({"out": "x", "device": "cpu"}), "ablate", ["a", "b"])
    assert here != digest_of(study.override({"seed": 3}), "ablate", ["a", "b"])
    assert here != digest_of(study, "ablate", ["a"]) != digest_of(study, "cut", ["a"])

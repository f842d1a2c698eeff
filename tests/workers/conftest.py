"""One Ray for all tests of workers; a model and pairs that they run."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.planted import planted_dataset, save_planted
from tests.workers.faulty import PLAN

PAIRS = 6
Plan = Callable[..., None]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a few pairs and many."""
    folder = tmp_path_factory.mktemp("two workers")  # with a space
    save_planted(folder / "model", noise=0.05)
    planted_dataset(folder / "pairs", PAIRS)
    planted_dataset(folder / "many", 40)
    return folder


@pytest.fixture(scope="session")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plan of faulty workers lies."""
    return tmp_path_factory.mktemp("plan") / "plan.json"


@pytest.fixture(scope="session")
def a_ray(plan_file: Path) -> Iterator[Any]:
    """Ray, begun once: whoever needs one uses it."""
    pytest.importorskip("ray")
    from headpatch.core.workers.cluster import cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PLAN, str(plan_file))
        with cluster(2, None) as found:
            yield found.ray


@pytest.fixture(scope="session")
def crew(a_ray: Any, place: Path) -> Iterator[Any]:
    """Two faulty workers, whom all tests of faults share."""
    from headpatch.core.study.study import Study
    from headpatch.core.workers.crew import Crew
    from tests.workers.faulty import Faulty

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headpatch.core.workers.crew.Worker", Faulty)
        crew = Crew(Study().override({"model": str(place / "model")}), 2, None)
        yield crew
        crew.close()


@pytest.fixture
def plan(crew: Any, a_ray: Any, plan_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """Give the workers of commands a plan of faults."""

    def write(**content: Any) -> None:
        plan_file.write_text(json.dumps(content))

    monkeypatch.setattr("headpatch.core.workers.crew.Crew", lambda *_: crew)
    monkeypatch.setattr(crew, "close", lambda: None)
    monkeypatch.setattr(crew, "dismiss", lambda: None)
    write()
    a_ray.get([one.__ray_ready__.remote() for one in crew.actors])
    yield write
    for path in plan_file.parent.iterdir():
        path.unlink()

"""Who measures which unit: what is handed out, taken back, and left out."""

import asyncio
from collections.abc import Awaitable, Callable

from headpatch.core.share import Loop
from headpatch.core.workers.coordinator import AGAIN, Coordinator
from headpatch.core.workers.handed import Handed

PAIRS = ["0001", "0002", "0003", "0004"]


def told(story: Callable[[Coordinator, int], Awaitable[None]]) -> None:
    """Run what happens at a coordinator that knows one loop."""

    async def run() -> None:
        coordinator = Coordinator()
        number = await coordinator.start(True)
        begun = await coordinator.epoch(number)
        assert begun is not None
        await coordinator.loop(begun[0], "loop", "Changing heads", PAIRS)
        await story(coordinator, begun[0])

    asyncio.run(run())


def test_each_unit_is_handed_out_once_near_ones_first_and_then_the_last() -> None:
    async def story(coordinator: Coordinator, epoch: int) -> None:
        async def take(worker: str, near: set[int], finished: int | None = None) -> int | None:
            return await coordinator.take(epoch, worker, "loop", near, finished, peak=0)

        assert await take("a", set()) == 0
        assert await take("b", {0, 2}) == 2
        assert await take("b", {0}, finished=2) == 3  # not where others are at work
        assert await take("a", set(), finished=0) == 1
        assert await take("b", set(), finished=3) is None
        standing = await coordinator.standing()
        assert (standing.stage, standing.done, standing.total) == ("Changing heads", 3, 4)
        assert {name: one.measured for name, one in standing.workers.items()} == {"a": 1, "b": 2}

    told(story)


def test_a_loop_is_known_once_and_another_run_forgets_it() -> None:
    async def story(coordinator: Coordinator, epoch: int) -> None:
        assert await coordinator.take(epoch, "a", "loop", (), None, 0) == 0
        await coordinator.loop(epoch, "loop", "Changing heads", PAIRS)
        assert await coordinator.take(epoch, "a", "loop", (), 0, 0) == 1
        await coordinator.start(True)
        assert await coordinator.take(epoch, "a", "loop", (), 1, 0) == AGAIN
        assert await coordinator.wait(epoch, "a", "loop", 1) == (0, AGAIN, False)
        assert await coordinator.epoch(1) is None  # over
        assert (await coordinator.standing()).total == 0

    told(story)


def test_who_waits_hears_of_the_end_and_of_units_that_are_open_again() -> None:
    async def story(coordinator: Coordinator, epoch: int) -> None:
        for worker in "aaab":
            await coordinator.take(epoch, worker, "loop", (), None, 0)
        done, total, waiting = await coordinator.wait(epoch, "b", "loop", 0.01)
        assert (done, total, waiting) == (0, 4, True)
        waits = asyncio.create_task(coordinator.wait(epoch, "a", "loop", 60))
        await asyncio.sleep(0)
        assert await coordinator.died("b") == "0004"
        assert await waits == (0, 4, False)
        assert await coordinator.take(epoch, "a", "loop", (), None, 0) == 3
        waits = asyncio.create_task(coordinator.wait(epoch, "c", "loop", 60))
        for place in range(4):
            await coordinator.take(epoch, "a", "loop", (), place, 0)
        assert await waits == (4, 4, False)

    told(story)


def test_a_unit_that_two_workers_die_of_has_its_pair_left_out() -> None:
    async def story(coordinator: Coordinator, epoch: int) -> None:
        assert await coordinator.died("idle") == ""
        await coordinator.take(epoch, "a", "loop", (), None, 0)
        assert await coordinator.died("a") == "0001"
        assert not (await coordinator.standing()).left_out
        waits = asyncio.create_task(coordinator.wait(epoch, "c", "loop", 60))
        assert await coordinator.take(epoch, "b", "loop", (), None, 0) == 0  # first of all
        assert await coordinator.died("b") == "0001"
        standing = await coordinator.standing()
        assert standing.left_out == {"0001": "2 workers died while they measured it"}
        assert await coordinator.take(epoch, "c", "loop", (), None, 0) == AGAIN
        assert (await waits)[1] == AGAIN
        anew = await coordinator.epoch(1)
        assert anew is not None and anew[0] > epoch and anew[1] == standing.left_out

    told(story)


def test_a_loop_after_another_is_not_taken_for_it() -> None:
    """Though it may lie where that one lay in memory."""
    asked: list[str] = []

    def ask(method: str, *given: object) -> object:
        asked.extend(str(one) for one in given[1:2] if method == "loop")
        return None

    share = Handed(ask, "worker 1", 0, {})
    keys = [(f"key {number}",) for number in range(20)]
    for own in keys:
        loop = Loop("Changing sets", own)
        assert list(share.places(loop, ())) == []
        del loop
    assert len(set(asked)) == len(keys)

"""A measurement pair by pair that goes on where a killed run has stopped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from headpatch.core.gate import sessions
from headpatch.core.session import Session
from headpatch.core.store import Store
from headpatch.core.study import Study
from headpatch.engine.selfcheck import Checks
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry


def measured(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    keys: Mapping[str, str],
    positions: Positions,
    store: Store,
    measure: Callable[[Session], Mapping[str, Any]],
    checks: Checks,
    held: Mapping[str, Session] | None = None,
) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Yield what is saved of each pair, in order; what is not is measured, and saved.

    The gate is not applied again: `entries` are those that are run. `keys`, by the pair's name,
    hash all that its numbers depend on (`headpatch.core.store.unit_key`). `checks`, what is known
    of the fast paths, is saved with each pair, since the noise floor hangs on it: a run that goes
    on must not compare them anew, on another pair. `held` are sessions that are still open.
    """
    judged = study.model_copy(update={"force": True})
    known = {name: store.get(key) for name, key in keys.items()}
    for unit in known.values():
        checks.recall(() if unit is None else unit["checks"])
    left = [entry for entry in entries if known[entry.name] is None]
    opened = sessions(judged, vlm, left, positions, held=held, checks=checks)
    for entry in entries:
        unit = known.pop(entry.name)
        if unit is None:
            session = next(opened)
            unit = {"measured": dict(measure(session)), "checks": checks.saved()}
            del session  # its caches go before the next pair's are made
            store.put(keys[entry.name], unit)
        yield entry, unit["measured"]

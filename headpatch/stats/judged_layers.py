"""What is shown of layers that are claimed to read the region, or to matter in the vision tower."""

from headpatch.stats.claim_evidence import Evidence, cut_of, each_layer, records, streams_of
from headpatch.stats.claim_figures import Found, between, either, interval, needed
from headpatch.stats.claims import Claim
from headpatch.stats.followed import Ask, Followed

HALF = 0.5
"""The share of the difference between the runs that counts as carrying the object."""


def reads(claim: Claim, seen: Evidence) -> Found:
    """Cutting the region must cost more than δ, and more than cutting as much elsewhere."""
    found = seen.followed.get(cut_of(claim).name)
    if found is None or found.why_not:
        return "not testable", found.why_not if found else "attention was not cut there"
    low, high, said = interval(found.figures["region"], seen.rule)
    said = f"cutting it from {_FROM[claim.word]} costs {said}"
    if "elsewhere" not in found.figures:
        return either(low > seen.rule.delta, high < seen.rule.delta), said
    apart = found.figures["region"] - found.figures["elsewhere"]
    more, _, figure = interval(apart, seen.rule)
    said += f", which is {figure} more than as many image tokens elsewhere"
    return either(low > seen.rule.delta and more > 0, high < seen.rule.delta), said


_FROM = {"answer": "the answer position", "question": "the question's words"}


def vision_heads(claim: Claim, seen: Evidence) -> Found:
    """Every layer's must be; one shown not to be contradicts."""
    delta = seen.rule.delta
    rows = []
    if seen.vision is not None:
        for row in records(seen.vision[seen.vision["layer"].between(*claim.layers)]):
            figure = f"layer {row['layer']} {between(row, 'necessity')}"
            rows.append((figure, needed(row, seen.rule), row["necessity_high"] < delta))
    else:
        for one in each_layer(claim, "vision heads"):
            found = seen.followed.get(one.name)
            if found is None or found.why_not:
                return "not testable", found.why_not if found else "no vision layer was changed"
            low, high, figure = interval(found.figures["necessity"], seen.rule)
            rows.append((f"layer {one.layers[0]} {figure}", low > delta, high < delta))
    said = "necessity of all heads of a layer: " + "; ".join(row[0] for row in rows)
    return either(all(row[1] for row in rows), any(row[2] for row in rows)), said


def vision_span(claim: Claim, seen: Evidence) -> Found:
    """Together they must be necessary, and by more than δ more than as many other layers are."""
    found, delta = seen.followed.get(Ask("vision span", layers=claim.layers).name), seen.rule.delta
    if found is None or found.why_not:
        return "not testable", found.why_not if found else "these layers were not changed together"
    low, high, said = interval(found.figures["necessity"], seen.rule)
    said = f"necessity of all their heads together {said}"
    if high < delta:
        return "contradicted", said
    if "elsewhere" not in found.figures:
        return "not testable", f"{said}; no other layers, as many and read, are left to compare"
    apart = found.figures["necessity"] - found.figures["elsewhere"]
    more, most, figure = interval(apart, seen.rule)
    said += f", which is {figure} more than as many other layers have in the mean"
    return either(low > delta and more > delta, most < delta), said


def carries(claim: Claim, seen: Evidence) -> Found:
    """The region's patches must hold half of the difference after the layers, and not before.

    Where they hold it before, every layer after passes it on, and a swap tells none from another.
    """
    (first, last), (after, *before) = claim.layers, streams_of(claim)
    leaving = _share(seen.followed.get(after.name), seen)
    if isinstance(leaving, str):
        return "not testable", leaving
    low, high, said = leaving
    said = (
        f"the region's patches, put into the other run as they leave layer {last}, bring {said} of "
        "the difference; half counts as carrying it"
    )
    if high < HALF:
        return "contradicted", said
    if not before:
        return "not testable", f"{said}; nothing lies before layer 0 to compare with"
    entering = _share(seen.followed.get(before[0].name), seen)
    if isinstance(entering, str):
        return "not testable", f"{said}; {entering}"
    early, late, figure = entering
    said += f"; as they enter layer {first}, {figure}"
    if early > HALF:
        return "not testable", (
            f"{said}: they hold it before, so that this tells no layer from those before it; "
            "claim that the heads of these vision layers matter more than those of other layers"
        )
    return either(low > HALF and late < HALF, False), said


def _share(found: Followed | None, seen: Evidence) -> tuple[float, float, str] | str:
    """Return the interval of what a swap brings; or why there is none."""
    if found is None or found.why_not:
        return found.why_not if found else "the stream was not swapped there"
    return interval(found.figures["sufficiency"], seen.rule)

"""Results for a paper: their tables as markup, and a paragraph on methods with its sources."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from headpatch.core.output.folder import Part, parts_of, written_in
from headpatch.core.question import verbs
from headpatch.errors import InputError
from headpatch.kinds import KINDS
from headpatch.present.markup import Markup, written
from headpatch.present.parts import Grid
from headpatch.reports.derived import context, runs_of, saved

_SOURCES: Final = {
    "vig2020": "Jesse Vig et al. Investigating Gender Bias in Language Models Using Causal "
    "Mediation Analysis. NeurIPS 2020. arXiv:2004.12265",
    "zhang2024": "Fred Zhang and Neel Nanda. Towards Best Practices of Activation Patching in "
    "Language Models: Metrics and Methods. ICLR 2024. arXiv:2309.16042",
    "meng2022": "Kevin Meng et al. Locating and Editing Factual Associations in GPT. NeurIPS 2022. "
    "arXiv:2202.05262",
    "geva2023": "Mor Geva et al. Dissecting Recall of Factual Associations in Auto-Regressive "
    "Language Models. EMNLP 2023. arXiv:2304.14767",
    "goldowsky2023": "Nicholas Goldowsky-Dill et al. Localizing Model Behavior with Path Patching. "
    "2023. arXiv:2304.05969",
    "mcgrath2023": "Thomas McGrath et al. The Hydra Effect: Emergent Self-repair in Language Model "
    "Computations. 2023. arXiv:2307.15771",
    "abnar2020": "Samira Abnar and Willem Zuidema. Quantifying Attention Flow in Transformers. ACL "
    "2020. arXiv:2005.00928",
    "mueller2025": "Aaron Mueller et al. MIB: A Mechanistic Interpretability Benchmark. ICML 2025. "
    "arXiv:2504.13151",
}
_PLACES: Final = {
    "answer": "the last position of the prompt",
    "question": "the positions from the question to the end of the prompt",
    "image": "the positions of the image",
    "all": "all positions",
}


def tables(folder: Path, markup: Markup) -> Iterator[str]:
    """Write the tables for people of every run in a folder; an `InputError` if there is none."""
    parts, some = _parts(folder), False
    for verb in verbs():
        for run in runs_of(verb, parts):
            seen = verb.question().view(saved(verb, run), context(verb, run))
            grids = (replace(one, place="everywhere") for one in seen if isinstance(one, Grid))
            for grid in dict.fromkeys(grids):  # once, where a page and a terminal place it apart
                some = True
                yield written(grid, markup)
    if not some:
        raise InputError("DIR", f"{folder} holds no table", "results of a verb")


def _parts(folder: Path) -> list[Part]:
    return list(parts_of(written_in(folder, "DIR"), folder))


def paragraph(folder: Path) -> str:
    """Write the paragraph on the runs of a folder, of one study and several verbs.

    An `InputError` if the folder holds no results.
    """
    parts = _parts(folder)
    first = parts[0]
    words = [*_model(first.run), *_data(first.study, first.run)]
    for part in parts:
        for verb in part.verbs:
            words += [one for one in _measured(verb, part.study, part.run) if one not in words]
    text = " ".join(words)
    cited = [name for name in _SOURCES if f"[{name}]" in text]
    sources = "\n".join(f"[{name}] {_SOURCES[name]}" for name in cited)
    return f"{text}\n" + (f"\n{sources}\n" if sources else "")


def _model(run: Mapping[str, Any]) -> Iterator[str]:
    weights = f" ({str(run['weights'])[:19]})" if run.get("weights") else ""
    commit = str(run.get("commit") or "")[:7]
    of = f" (commit {commit})" if commit else ""
    yield (
        f"Measurements were made with headpatch {run.get('headpatch')}{of}, PyTorch "
        f"{run.get('torch')} and transformers {run.get('transformers')}, on {run.get('device')} in "
        f"{run.get('dtype')}. The model is {run.get('model')}{weights}."
    )


def _data(study: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    yes, no = study.get("answers") or ("Yes", "No")
    pairs = study.get("pairs") or {}
    if run.get("pairs"):
        scenes = f", {run['scenes']:,} scenes" if run.get("scenes") else ""
        source = pairs.get("manifest") or f"drawn with seed {study.get('seed')}"
        yield (
            f"Data are {run['pairs']:,} pairs of pictures ({source}{scenes}) that differ in one "
            f"object, of which {run.get('passed', run['pairs']):,} passed the gate: in both runs "
            f"the most likely token is the right answer, and the logit differences lie at least "
            f"{pairs.get('margin', 1):g} apart."
        )
        yield (
            f"Means over pairs are given with {pairs.get('level', 0.95):.0%} intervals "
            f"({pairs.get('resamples', 5000):,} bootstrap draws); the unit is the scene."
        )
    else:
        yield (
            f"The data are one pair of pictures that differ in one object, and the question "
            f'"{study.get("question")}".'
        )
    yield f"LD is the logit of {yes} minus the logit of {no} at the last position of the prompt."


def _measured(verb: str, study: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    own = study.get(verb) or {}
    if verb == "rank":
        yield (
            "Heads were ranked by the difference, between the runs with and without the object, of "
            "the share of their attention to the image, at the last position of the prompt, that "
            f"falls on the region ({study.get('region')})."
        )
    if verb in ("ablate", "sweep", "combine"):
        yield from _changes(own)
    if verb == "sweep":
        yield "Every head was changed alone, each exactly, by its own forward pass or its equal."
    if verb == "combine":
        yield (
            "The interaction of two heads is the effect of both less the sum of each alone; "
            "self-repair follows [mcgrath2023]."
        )
    if verb == "verdict":
        yield from _verdict(own)
    if verb == "path":
        yield (
            "The residual stream of the other run was put in layer by layer [meng2022], attention "
            "between groups of tokens was cut in windows of layers [geva2023], and paths between "
            "heads were patched [goldowsky2023]."
        )
    if verb == "cut":
        window = own.get("window")
        yield f"Attention was cut between named tokens in windows of {window} layers [geva2023]."
    if verb == "rollout":
        yield "Maps of tokens are attention rollout [abnar2020], checked by deleting patches."
    if run.get("noise_floor") is not None and verb != "rank":
        yield f"The noise floor of the changes is {run['noise_floor']:.1g} logits."


def _changes(own: Mapping[str, Any]) -> Iterator[str]:
    kinds = ", ".join(f"{name} ({KINDS[name].help})" for name in own.get("kinds") or ())
    where = _PLACES.get(str(own.get("positions")), "the last position of the prompt")
    yield (
        f"The output z of a head, before its output projection, was replaced at {where} by, for "
        f"each kind: {kinds} [vig2020] [zhang2024]."
    )
    if {"noising", "denoising"} <= set(own.get("directions") or ()):
        yield (
            "Noising changes the run with the object, denoising the run without it; effects are "
            "shifts of LD, normalized by the difference of LD between the two runs."
        )


def _verdict(own: Mapping[str, Any]) -> Iterator[str]:
    where = _PLACES.get(str(own.get("positions")), "the last position of the prompt")
    yield (
        f"Every head was resampled from the other run, and set to its mean, at {where}, noising "
        "and denoising [vig2020] [zhang2024]. A head counts as necessary or sufficient if the "
        f"interval of its normalized effect lies beyond ±{own.get('delta'):g} and a test against "
        "that bound survives a correction over all heads; as doing next to nothing only if an "
        "equivalence test of the mean and a tolerance interval of single pairs show it. Sets of "
        "heads and rankings were chosen on one part of the pairs and judged on the other, and the "
        "other way round. Faithfulness curves follow [mueller2025]."
    )

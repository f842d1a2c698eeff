"""Which heads look at the region more when the object is there, over a dataset of pairs."""

from headpatch.core.aggregate import intervals
from headpatch.core.baseline_runs import Survey
from headpatch.core.ranking import columns_of
from headpatch.core.study import Study


def rank(study: Study, survey: Survey) -> dict[str, list[int | float]]:
    """Rank every head by its mean attention difference over the pairs.

    Raises
    ------
    InputError
        If heads cannot be compared on the region of a pair.

    Returns
    -------
    The columns of ``heads.csv``: means over pairs, then the interval of each difference
    (``diff_low``, ``diff_high``, …) and the number of pairs.
    """
    survey.compare()
    figures = {name: values.mean(0) for name, values in survey.masses.items()}
    for name in ("diff", "diff_raw"):
        values = survey.masses[name]
        _, low, high = intervals(study, values.reshape(len(values), -1))
        shape = values.shape[1:]
        figures |= {f"{name}_low": low.reshape(shape), f"{name}_high": high.reshape(shape)}
    columns = columns_of(figures)
    columns["pairs"] = [len(survey.entries)] * len(columns["rank"])
    return columns

"""What a reader of a group's maps should know."""

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.attribution_files import MOST_OTHERS
from neurostorm_bids.explain.checks import MIN_SPLIT_HALF, SPLIT_HALF
from neurostorm_bids.group.attribution_contrast import Contrast
from neurostorm_bids.group.attribution_maps import Maps
from neurostorm_bids.group.study import Study, counted

ALPHA = 0.05
AGREEING = MIN_SPLIT_HALF  # correlation that is asked for of halves of people, and of runs of a person
MOST_COMPARED = 400  # maps with each other


def alarms_of(maps: Maps, halves: dict[str, float | None]) -> list[str]:
    """Return what is said in red: the checks that half of the maps or more fail, and what does not come out twice.

    Parameters
    ----------
    halves : dict
        Title of a map of people -> how two halves of the people agree on it.
    """
    alarms = [
        f"{failed} of {len(maps.runs)} maps fail the check {name}: do not read the mean map without it"
        for name, failed in mostly_failed(maps).items()
    ]
    alarms += [
        f"two halves of the people tell different things of the {title} (r = {r:.2f}; {AGREEING} is asked for): it is not drawn"
        for title, r in halves.items()
        if r is not None and r < AGREEING
    ]
    if (agreement := _between_runs(maps)) is not None and agreement[0] < AGREEING:
        alarms.append(
            f"two runs of a person tell different things (median r = {agreement[0]:.2f}; {AGREEING} is asked for)"
        )
    return alarms


def mostly_failed(maps: Maps) -> dict[str, int]:
    """Return the checks that half of the maps or more fail, and how many do."""
    return {name: failed for name, failed in _counts(maps, False).items() if 2 * failed >= len(maps.runs)}


def may_be_drawn(maps: Maps) -> bool:
    """Whether in most runs two halves of the windows tell the same; where that is not known, the mean is not drawn either."""
    return 2 * _counts(maps, True).get(SPLIT_HALF, 0) > len(maps.runs)


def notes_of(maps: Maps, halves: dict[str, float | None], study: Study) -> list[str]:
    """Return which checks failed or are open, how halves of the people and runs of a person agree, and what else limits the maps."""
    n, in_red = len(maps.runs), mostly_failed(maps)
    notes = [
        f"{failed} of {n} maps fail the check {name}"
        for name, failed in _counts(maps, False).items()
        if name not in in_red
    ]
    notes += [f"of {is_open} of {n} maps the check {name} is open" for name, is_open in _counts(maps, None).items()]
    if seen := set(study.seen()) & set(maps.people):
        notes.append(
            f"the model was trained on {counted(len(seen), 'subject')} of these: what it knows by heart shows in their maps"
        )
    if _are_of_different_others(maps):
        notes.append(
            "maps compare runs with the mean images of different people: keep the runs of everybody with --save-grid first, then map them"
        )
    notes += [
        f"two halves of the people correlate with r = {r:.2f} in the {title} (mean over ways to halve them, families whole)"
        if r is not None
        else f"too few people to halve them: whether the {title} comes out twice is open, and it is not drawn"
        for title, r in halves.items()
    ]
    outside = float(np.mean([run.outside for run in maps.runs]))
    notes.append(f"{outside:.0%} of the maps, by size, lie in no parcel")
    if (agreement := _between_runs(maps)) is not None:
        within, between = agreement
        notes.append(
            f"maps of two runs of a person correlate with r = {within:.2f} (median), of two people with r = {between:.2f}"
        )
    return notes


def _are_of_different_others(maps: Maps) -> bool:
    """Whether maps from the group's mean are from the means of different people, beyond everybody's leaving out him- or herself."""
    everybody = sorted({person for run in maps.runs for person in run.others})
    return any(
        run.others != tuple([person for person in everybody if person != run.person][:MOST_OTHERS])
        for run in maps.runs
        if run.others
    )


def table_of_checks(maps: Maps) -> pd.DataFrame:
    """Return of how many maps each check passed, is open, or failed."""
    names = dict.fromkeys(name for run in maps.runs for name in run.checks)
    counts = {words: _counts(maps, which) for words, which in (("passed", True), ("open", None), ("failed", False))}
    return pd.DataFrame([{"check": name, **{words: of.get(name, 0) for words, of in counts.items()}} for name in names])


def unreachable(maps: Maps, families: np.ndarray | None, n_flips: int, contrast: Contrast | str) -> list[str]:
    """Return which tests can't reach p <= 0.05, however clear the maps are."""
    n, whose = (len(maps.people), "people") if families is None else (len(np.unique(families)), "families")
    notes = []
    if _least(n_flips, min(n, 50)) > ALPHA:
        notes.append(f"{n} {whose}, {n_flips} flips of signs: none can reach p <= {ALPHA}")
    if isinstance(contrast, Contrast) and 1 / contrast.n_orders > ALPHA:
        notes.append(
            f"{contrast.n_orders} orders of the labels: none can reach p <= {ALPHA} (--n-permutations, --exchange)"
        )
    return notes


def _least(n_flips: int, n: int) -> float:
    """Return the least p of a two-sided test: all signs the other way round give as large a statistic."""
    return max(1 / n_flips, 2 / 2.0**n)


def _counts(maps: Maps, which: bool | None) -> dict[str, int]:
    """Return the checks that came out in a way, and of how many maps."""
    names = dict.fromkeys(name for run in maps.runs for name in run.checks)
    counts = {name: sum(run.checks.get(name, True) is which for run in maps.runs) for name in names}
    return {name: n for name, n in counts.items() if n}


def _between_runs(maps: Maps) -> tuple[float, float] | None:
    """Return the median correlation of maps of two runs of one person, and of two people; `None` if nobody has two runs."""
    several = [run for run in maps.runs if np.ptp(run.values) > 0][:MOST_COMPARED]
    people = np.array([run.person for run in several])
    same = people[:, None] == people[None]
    upper = np.triu(np.ones(same.shape, dtype=bool), 1)
    if not (same & upper).any() or not (~same & upper).any():
        return None
    alike = np.corrcoef(np.stack([run.values for run in several]))
    return float(np.median(alike[same & upper])), float(np.median(alike[~same & upper]))

"""Whether maps differ between people of whom a model should say different things.

With as many people of one class as of the other, contributions to a logit cancel in the mean over people; their difference does not.
"""

from dataclasses import dataclass

import numpy as np

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT, column
from neurostorm_bids.group.attribution_maps import Maps
from neurostorm_bids.group.exchange import exchange_of
from neurostorm_bids.group.halves import agreement_of_halves
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.group.sign_flips import label_test
from neurostorm_bids.group.study import Study


@dataclass(frozen=True)
class Contrast:
    """How people's maps go with the target.

    Attributes
    ----------
    words : str
        What is compared, such as ``M minus F``.
    of_classes : bool
        Whether classes are compared, and not values.
    n : int
        People.
    r, p : (parcels,) arrays
        Correlation of what a parcel adds with the target; corrected for all parcels.
    n_orders : int
        Orders of the labels that were tried, the true one among them.
    halves : float or None
        How the map of one half of the people goes with that of the other, as of `agreement_of_halves`.
    volume : (X, Y, Z) array
        The difference between the classes' mean maps; of values, the change of the map with one standard deviation.
    """

    words: str
    of_classes: bool
    n: int
    r: np.ndarray
    p: np.ndarray
    n_orders: int
    halves: float | None
    volume: np.ndarray


def contrast_of(maps: Maps, study: Study) -> Contrast | str:
    """Return how maps go with the target of --target, or why it cannot be told.

    Raises
    ------
    NeurostormError
        If the target is not known, or is one of sessions and not of people.
    """
    target, options = study.target(), study.settings.group
    if target is None:
        return (
            "without --target the mean over people alone is tested: of as many people of one class as of the other it tells little, as "
            "what raises the output in some lowers it in others"
        )
    labels = study.labels(target)
    if labels.n_subjects < len(labels.y):
        raise NeurostormError(
            f"--target {target} changes between sessions, and maps are compared between people; add --samples subject"
        )
    if study.seen() and not options.allow_seen:
        return (
            "maps are not compared between people: the model was trained on some of them, of whom their labels would come back "
            "(--allow-seen compares them all the same)"
        )
    y, words = _numbers(labels, maps)
    there = np.array([person in y for person in maps.people])
    label = np.array([y[person] for person in maps.people if person in y])
    if len(np.unique(label)) < 2:
        return f"maps are not compared between people: those with maps all have the same '{target}'"
    group_of = dict(zip(labels.names[SUBJECT], labels.groups, strict=True))
    who = np.array(maps.people)[there]
    exchange = exchange_of(who, np.array([group_of[person] for person in who]), options.exchange)
    orders = exchange.permutations(options.n_permutations, np.random.RandomState(study.settings.conduct.random_seed))
    values, families = maps.values[there], families_of(maps, study)
    r, p = label_test(values, label, orders)
    seed = study.settings.conduct.random_seed
    halves = agreement_of_halves(
        who if families is None else families[there], lambda some: _slopes(label[some]) @ values[some], seed
    )
    weights = np.zeros(len(there))
    weights[there] = _slopes(label) * (1 if labels.classes else label.std(ddof=1))
    n, n_orders = int(there.sum()), len(orders) + 1
    return Contrast(words, bool(labels.classes), n, r, p, n_orders, halves, maps.weighted(weights))


def _slopes(label: np.ndarray) -> np.ndarray:
    """Return the weights of people by which their maps sum to the change with the label, (people,); 0 where it does not vary."""
    centred = label - label.mean()
    size = centred @ centred
    return centred / size if size else np.zeros(len(label))


def families_of(maps: Maps, study: Study) -> np.ndarray | None:
    """Return who belongs together, (people,), by --group-by; `None` if everybody is alone, or groups are so large that they are sites."""
    name = study.settings.group.group_by
    if name is None:
        return None
    values = column(study.table, name)
    of = dict(zip(study.table[SUBJECT][values.notna()], values[values.notna()].astype(str), strict=True))
    families = np.array([of.get(person, person) for person in maps.people])
    are_sites = exchange_of(np.array(maps.people), families).mode == "within"
    return None if are_sites else families


def _numbers(labels: Labels, maps: Maps) -> tuple[dict[str, float], str]:
    """Return person -> label as a number, and what the contrast is called."""
    y = labels.y.astype(float)
    if not labels.classes:
        return dict(zip(labels.names[SUBJECT], y, strict=True)), f"with {labels.target}"
    second = labels.classes.index(maps.raised) if maps.raised in labels.classes else 1
    others = "the others" if len(labels.classes) > 2 else labels.classes[1 - second]
    words = f"{labels.classes[second]} minus {others}"
    return dict(zip(labels.names[SUBJECT], (labels.y == second).astype(float), strict=True)), words

"""Which samples may change places if the target has nothing to do with the features, and permutations that keep to it.

Samples of one subject, family or site resemble each other, so that labels cannot be exchanged freely: a permutation must
keep who resembles whom, or far too much is called significant. As in Winkler et al. (2015),
https://doi.org/10.1016/j.neuroimage.2015.05.092, blocks of the same size change places as a whole, and, where that is
allowed, the subjects within a block. Knows no files and no tables.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SMALL_GROUP = 6  # subjects; a larger group is a site, whose members differ from other sites', and not a family
MODES = ("auto", "within", "between")
IN_WORDS = {
    "": "none",
    "free": "samples change places freely",
    "between": "whole subjects (or groups) of the same size change places",
    "within": "subjects change places within their group, or samples within their subject",
    "both": "subjects change places within their group, and whole groups of the same make-up",
}


@dataclass(frozen=True)
class Exchange:
    """What may change places.

    Attributes
    ----------
    n : int
        Samples.
    sets : tuple of tuple of int arrays
        Blocks of the same size; those of one set may change places. In the order in which they are applied: the inner
        ones (subjects within a group) first, the outer ones (whole groups) last.
    mode : str
        What was decided: "within" groups, "between" groups, "both", or "free".
    """

    n: int
    sets: tuple[tuple[np.ndarray, ...], ...]
    mode: str

    @property
    def n_possible(self) -> float:
        """How many different permutations there are, the identity among them; infinity for more than 1e15."""
        total = math.prod(math.factorial(len(blocks)) if len(blocks) < 18 else 10**16 for blocks in self.sets)
        return float(total) if total < 10**15 else math.inf

    def permutations(self, n_wanted: int, rng: np.random.RandomState) -> list[np.ndarray]:
        """Return permutations, (samples,) int arrays: which sample's label each sample gets.

        Where there are no more than are wanted, all of them but the identity; else a random sample.
        """
        if self.n_possible <= n_wanted + 1:
            return list(self._all())[1:]
        return [self._apply([rng.permutation(len(blocks)) for blocks in self.sets]) for _ in range(n_wanted)]

    def _all(self) -> Iterator[np.ndarray]:
        """Yield every permutation, the identity first."""
        each = [list(itertools.permutations(range(len(blocks)))) for blocks in self.sets]
        for orders in itertools.product(*each):
            yield self._apply([np.array(order) for order in orders])

    def _apply(self, orders: list[np.ndarray]) -> np.ndarray:
        index = np.arange(self.n)
        for blocks, order in zip(self.sets, orders, strict=True):
            moved = index.copy()
            for to, k in zip(blocks, order, strict=True):
                moved[to] = index[blocks[k]]
            index = moved
        return index


def exchange_of(subjects: np.ndarray, groups: np.ndarray, mode: str = "auto") -> Exchange:
    """Decide what may change places.

    Parameters
    ----------
    subjects : (samples,) array
        Samples of one subject (its sessions) stay together, in their order.
    groups : (samples,) array
        Families or sites; the subjects again where there are none.
    mode : {"auto", "within", "between"}
        within: subjects of one group change places (of a subject that is its own group, its samples); between: whole
        groups of the same make-up do. auto: of subjects, between; of families (small groups), both; of sites, within.

    Raises
    ------
    ValueError
        If the mode is none of these.

    Examples
    --------
    >>> exchange_of(np.array(["a", "a", "b", "b"]), np.array(["a", "a", "b", "b"])).permutations(9, None)
    [array([2, 3, 0, 1])]
    """
    if mode not in MODES:
        raise ValueError(mode)
    members = _members(subjects, groups)
    alone = all(len(each) == 1 for each in members.values())
    if alone and all(len(block) == 1 for each in members.values() for block in each):
        blocks = [each[0] for each in members.values()]
        return Exchange(len(subjects), (tuple(blocks),), "free")
    decided = _decide(members, alone) if mode == "auto" else mode
    sets: list[tuple[np.ndarray, ...]] = []
    if decided in ("within", "both"):
        for each in members.values():
            blocks = [np.array([i]) for i in each[0]] if alone else each
            sets += _of_the_same_size(blocks)
    if decided in ("between", "both"):
        make_up: dict[tuple[int, ...], list[np.ndarray]] = {}
        for each in members.values():
            ordered = sorted(each, key=len)
            make_up.setdefault(tuple(map(len, ordered)), []).append(np.concatenate(ordered))
        sets += [tuple(blocks) for blocks in make_up.values()]
    return Exchange(len(subjects), tuple(blocks for blocks in sets if len(blocks) > 1), decided)


def _decide(members: dict[object, list[np.ndarray]], alone: bool) -> str:
    """Tell families from sites by their size."""
    if alone:
        return "between"
    sizes = [len(each) for each in members.values()]
    return "both" if np.median(sizes) <= SMALL_GROUP and max(sizes) <= 2 * SMALL_GROUP else "within"


def _members(subjects: np.ndarray, groups: np.ndarray) -> dict[object, list[np.ndarray]]:
    """Return the samples of each subject, by group; in one pass, since a cohort may have 60,000 groups."""
    found: dict[object, dict[object, list[int]]] = {}
    for i, (group, subject) in enumerate(zip(groups.tolist(), subjects.tolist(), strict=True)):
        found.setdefault(group, {}).setdefault(subject, []).append(i)
    return {group: [np.array(samples) for samples in each.values()] for group, each in found.items()}


def _of_the_same_size(blocks: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    by_size: dict[int, list[np.ndarray]] = {}
    for block in blocks:
        by_size.setdefault(len(block), []).append(block)
    return [tuple(each) for each in by_size.values()]

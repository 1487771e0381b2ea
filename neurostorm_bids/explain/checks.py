"""Whether a map can be trusted: what would fool the eye is made to fail.

Completeness; cascading randomisation of the weights (Adebayo et al. 2018, arXiv 1810.03292) beside what two random networks
share, since patches, scan and outline of the brain survive in any network; deletion and insertion against other orders;
agreement with occlusion; split halves of windows; for a probe, labels that are permuted.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from scipy.stats import spearmanr
from torch import Tensor

from neurostorm_bids.explain.gradients import BAD, GOOD, Output
from neurostorm_bids.explain.occlusion import replaced
from neurostorm_bids.model.initial import new_network
from neurostorm_bids.model.network import NeuroSTORM

SPLIT_HALF = "split halves of windows"
FRACTIONS = (0.01, 0.05, 0.1, 0.2)  # of the parcels that are replaced
N_ORDERS = 10  # random ones
MIN_SPLIT_HALF = 0.3  # below, no map is drawn
MIN_AGREEMENT = 0.3  # rank correlation with occlusion
MOST_OF_ANY_LABEL = 0.5  # rank correlation with the maps of heads for permuted labels
FEWEST_HEADS = 5  # for permuted labels, whose maps vary at all
SSIM_WINDOW, SSIM_FLOORS = 7, (0.01**2, 0.03**2)  # patches along an edge; what keeps quotients of nothing finite
CHANCE = 0.05  # p-value of the model's own test
MARGIN = 0.1  # by which random networks may share more with this one than with each other


@dataclass(frozen=True)
class Check:
    """One check of a map.

    Attributes
    ----------
    name : str
    passed : bool or None
        `None`: it could not be made.
    words : str
        What was found.
    values : dict
        The numbers.
    """

    name: str
    passed: bool | None
    words: str
    values: dict[str, float]


def completeness(errors: list[float]) -> Check:
    """Check that attributions sum to what the clips add to the baseline's output."""
    worst = max(errors)
    words = f"attributions sum to the change of the output within {worst:.1%} ({GOOD:.0%} is asked for, more than {BAD:.0%} fails)"
    return Check("completeness", None if GOOD < worst <= BAD else worst <= GOOD, words, {"error": worst})


def split_half(of_windows: np.ndarray, starts: np.ndarray, length: int) -> Check:
    """Check that two halves of the windows tell the same.

    Parameters
    ----------
    of_windows : (windows, parcels) array
    starts : (windows,) int array
        Their first frames, in order.
    length : int
        Frames of a window.
    """
    halves = _halves(starts, length)
    if halves is None:
        words = "there are no two windows without a frame in common" if len(starts) > 1 else "there is one window only"
        return Check(SPLIT_HALF, None, words, {})
    one, other = (of_windows[half].mean(axis=0) for half in halves)
    r = float(np.corrcoef(one, other)[0, 1]) if np.ptp(one) and np.ptp(other) else 0.0
    words = f"maps of two halves of the windows correlate with r = {r:.2f} ({MIN_SPLIT_HALF} is asked for)"
    return Check(SPLIT_HALF, bool(r >= MIN_SPLIT_HALF), words, {"r": r})


def tested(record: dict[str, Any] | None) -> Check:
    """Check that what is explained is worth it: that the model was better than chance when it was tested.

    The other checks ask whether a map is faithful to the network. So it is to one of random weights, too.

    Parameters
    ----------
    record : dict, or None
        Metric, value and p-value of the model's own test, as its file keeps them.
    """
    name = "better than chance"
    p = None if record is None else record.get("p")
    if record is None or not isinstance(p, (int, float)):
        return Check(name, None, "the model's file does not say how it was tested on people whom it had not seen", {})
    words = f"in its test the model had {record.get('metric')} {record.get('value'):.2f}, p = {p:.2g} ({CHANCE} at most is asked for)"
    words += "" if p <= CHANCE else ": what the map shows predicts nothing"
    return Check(name, bool(p <= CHANCE), words, {"p": float(p)})


def beyond_the_mean_image(of_labels: Check) -> Check:
    """Check that a map of what stands still can be told from chance: the mean image is the same in all windows, so that they agree."""
    told = {
        True: "permuted labels tell this map from chance",
        False: "permuted labels give such a map too",
        None: "only permuted labels could tell this map from chance, and they are open",
    }
    words = (
        f"the run's mean image is in every window, so that halves agree whatever the weights; {told[of_labels.passed]}"
    )
    return Check("more than a mean image", of_labels.passed is True, words, {})


def _halves(starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return two halves of windows that share no frame: every second one; of windows that overlap, those before and after a cut.

    The cut is where the smaller half is largest.
    """
    if len(starts) < 2:
        return None
    if np.diff(starts).min() >= length:
        windows = np.arange(len(starts))
        return windows[::2], windows[1::2]
    cuts = [(np.flatnonzero(starts + length <= cut), np.flatnonzero(starts >= cut)) for cut in starts]
    early, late = max(cuts, key=lambda halves: min(map(len, halves)))
    return (early, late) if len(early) and len(late) else None


def agreement(of_parcels: np.ndarray, occluded: np.ndarray) -> Check:
    """Check that parcels rank as they do by occlusion."""
    rho = rank_correlation(of_parcels, occluded)
    words = f"rank correlation with occlusion {rho:.2f} ({MIN_AGREEMENT} is asked for)"
    return Check("agreement with occlusion", bool(rho >= MIN_AGREEMENT), words, {"rho": rho})


def randomisation(
    maps: dict[str, np.ndarray],
    own: np.ndarray,
    others: list[np.ndarray],
    image_of: Callable[[np.ndarray], np.ndarray],
) -> Check:
    """Check that the map needs the weights: by rank correlation and, of its sizes, by structural similarity.

    Parameters
    ----------
    maps : dict
        What was given random weights, from the head down, each with all before it -> its map.
    own : (patches,) array
        The map, of the patches that hold brain.
    others : list of arrays
        Those of more random networks.
    image_of : callable
        Returns the (D, H, W) image of all patches of such an array; NaN where there is no brain.

    Notes
    -----
    Over several networks and for signed maps too, against what random networks share (Hedstrom et al. 2023, arXiv 2401.06465).
    """
    random = [list(maps.values())[-1], *others]
    values: dict[str, float] = {}
    passed, found = True, []
    for what, alike in (
        ("rank correlation", _alike),
        ("structural similarity", lambda one, other: similarity(image_of(one), image_of(other))),
    ):
        with_random = float(np.mean([alike(own, each) for each in random]))
        of_random = float(np.mean([alike(one, other) for one, other in combinations(random, 2)]))
        chance = 2 / np.sqrt(own.size)  # two standard errors of a correlation of nothing
        passed &= with_random <= of_random + max(MARGIN, chance)
        found.append((what, with_random, of_random))
        of_what = {**{name: alike(own, each) for name, each in maps.items()}, "random networks": with_random}
        of_what["random networks with each other"] = of_random
        values |= {f"{what}, {name}": value for name, value in of_what.items()}
    (rank, with_random, of_random), (structure, *similar) = found
    steps = ", ".join(f"{_alike(own, each):.2f}" for each in maps.values())
    words = (
        f"with all weights random, maps share a {rank} of {with_random:.2f} with this one (mean of {len(random)} networks; {structure} "
        f"{similar[0]:.2f}); random networks share {of_random:.2f} ({similar[1]:.2f}) with each other; from the head down: {steps}"
    )
    return Check("randomised weights", bool(passed), words, values)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Return the structural similarity of the sizes of two maps, (D, H, W) each, mean over where they are no NaN.

    Wang et al. (2004), doi 10.1109/TIP.2003.819861; windows of 7 patches, mirrored at the edges.
    """
    where = np.isfinite(one)
    a, b = (np.abs(np.where(where, each, 0)) for each in (one, other))
    a, b = (each / max(float(each.max()), np.finfo(float).tiny) for each in (a, b))
    mean = partial(uniform_filter, size=SSIM_WINDOW, mode="mirror")
    of_a, of_b = mean(a), mean(b)
    variances = mean(a * a) - of_a**2 + mean(b * b) - of_b**2
    alike = (2 * of_a * of_b + SSIM_FLOORS[0]) * (2 * (mean(a * b) - of_a * of_b) + SSIM_FLOORS[1])
    alike /= (of_a**2 + of_b**2 + SSIM_FLOORS[0]) * (variances + SSIM_FLOORS[1])
    return float(alike[where].mean())


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """Return how much two maps share: rank correlation, signed (signs of random networks mean nothing) or of sizes."""
    return max(abs(rank_correlation(one, other)), rank_correlation(np.abs(one), np.abs(other)))


def labels(occluded: np.ndarray, of_permuted: np.ndarray | None) -> Check:
    """Check that the map needs the labels: that heads fitted to permuted ones rank parcels otherwise.

    Parameters
    ----------
    occluded : (parcels,) array
        By occlusion, for which many heads cost no more than one.
    of_permuted : (parcels, heads) array, or None
        The same of heads for permuted labels; `None` if the model keeps none.
    """
    name = "permuted labels"
    if of_permuted is None or not of_permuted.shape[1]:
        words = "the model keeps no heads that were fitted to permuted labels, as a probe that --save-as keeps does"
        return Check(name, None, words, {})
    vary = of_permuted.T[np.ptp(of_permuted, axis=0) > 0]  # a head that was calibrated to nothing tells nothing
    if not np.ptp(occluded):
        return Check(name, None, "replacing parcels moves the output nowhere", {})
    if len(vary) < FEWEST_HEADS:
        words = (
            f"{len(vary)} of {of_permuted.shape[1]} heads for permuted labels say anything; {FEWEST_HEADS} are needed"
        )
        return Check(name, None, words, {})
    alike = float(np.median([abs(rank_correlation(occluded, other)) for other in vary]))
    words = (
        f"maps by occlusion of {len(vary)} heads that were fitted to permuted labels share a rank correlation of {alike:.2f} with "
        f"this one's (median; {MOST_OF_ANY_LABEL} at most is asked for)"
    )
    return Check(name, alike <= MOST_OF_ANY_LABEL, words, {"rho": alike})


def deletion(
    output: Output, clip: Tensor, baseline: Tensor, numbers: Tensor, orders: dict[str, np.ndarray], seed: int
) -> Check:
    """Check that replacing the parcels that the map ranks first changes the output more than other orders do.

    Parameters
    ----------
    numbers : (X, Y, Z) int tensor
        Of parcels, from 1.
    orders : dict
        Name -> what parcels are ranked by, those first that should move the output most; the map's own order first.
    """
    n = int(numbers.max())
    rng = np.random.default_rng(seed)
    with torch.inference_mode():
        whole, nothing = (float(output(x[None, None])) for x in (clip, baseline))

        def area(order: np.ndarray) -> float:
            """Return what the output loses by replacing, and gains by inserting, the first parcels of an order, on average."""
            moved = []
            for fraction in FRACTIONS:
                chosen = torch.from_numpy(order[: max(1, round(fraction * n))] + 1).to(numbers)
                where = torch.isin(numbers, chosen)
                deleted, inserted = replaced(clip, baseline, where), replaced(baseline, clip, where)
                moved += [whole - float(output(deleted[None, None])), float(output(inserted[None, None])) - nothing]
            return float(np.mean(moved))

        scores = {name: area(np.argsort(-by, kind="stable")) for name, by in orders.items()}
        by_chance = [area(rng.permutation(n)) for _ in range(N_ORDERS)]
    difference = whole - nothing
    scores = {name: moved / difference if difference else 0.0 for name, moved in scores.items()}
    chance = np.array(by_chance) / difference if difference else np.zeros(N_ORDERS)
    own, *others = scores.items()
    best = max([("a random order", float(chance.max())), *others], key=lambda pair: pair[1])
    words = f"replacing and inserting parcels in the map's order moves {own[1]:.0%} of the output, {best[0]} {best[1]:.0%} at most"
    words += "" if own[1] > best[1] else ": no better than anatomy or chance"
    return Check("deletion and insertion", bool(own[1] > best[1]), words, {**scores, "random": float(chance.mean())})


def random_like(network: NeuroSTORM, seed: int) -> NeuroSTORM:
    """Return a network of the same configuration with random weights, head included."""
    made = new_network(lambda: NeuroSTORM(network.config), seed)
    return made.to(next(network.parameters()).device).requires_grad_(False).eval()


def cascade(network: NeuroSTORM, seed: int) -> dict[str, NeuroSTORM]:
    """Return networks with ever more random weights: the head, then also the last stage, ..., then also the patches."""
    random = random_like(network, seed)
    current, found = copy.deepcopy(network), {}

    def take(name: str, *parts: tuple[torch.nn.Module | None, torch.nn.Module | None]) -> None:
        for ours, theirs in parts:
            if ours is not None and theirs is not None:
                ours.load_state_dict(theirs.state_dict())
        found[name] = copy.deepcopy(current).requires_grad_(False).eval()

    take("head", (current.output_head, random.output_head))
    for i in reversed(range(len(network.config.depths))):
        layers, embeds = (
            (current.model.layers[i], random.model.layers[i]),
            (current.model.pos_embeds[i], random.model.pos_embeds[i]),
        )
        take(f"and stage {i + 1}", layers, embeds)
    take("and patches", (current.model.patch_embed, random.model.patch_embed))
    return found


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's correlation; 0 if one of them does not vary."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)

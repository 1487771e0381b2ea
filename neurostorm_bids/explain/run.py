"""Explain what a model predicts of a run: from its windows to a map, parcels and checks. Read this first."""

from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from neurostorm_bids.encode.encoded import EncodedRun
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.explain import checks
from neurostorm_bids.explain.baseline import Baseline
from neurostorm_bids.explain.checks import Check
from neurostorm_bids.explain.gradients import Attribution, integrated_gradients
from neurostorm_bids.explain.occlusion import occlude
from neurostorm_bids.explain.target import Target, target_of
from neurostorm_bids.model import backend
from neurostorm_bids.model.hyper_parameters import TEST
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.network import NeuroSTORM
from neurostorm_bids.resample.parcels import Parcels
from neurostorm_bids.runtime.progress import Progress
from neurostorm_bids.settings.explaining import OWN_MEAN
from neurostorm_bids.settings.explaining import Attribution as Options

N_RANDOM = 3  # networks with random weights


@dataclass(frozen=True)
class Explanation:
    """Where in the brain what a model predicts of a run comes from.

    Attributes
    ----------
    encoded : EncodedRun
    target : Target
    baseline : Baseline
        What the run is compared with.
    parcels : Parcels
    starts : (windows,) int array
        First frames of the windows that were explained.
    of_clips : list of Attribution
        Of each window, without their values.
    volume, of_random : (voxels,) float32 arrays
        The map, and that of the same network with random weights: sums over frames, spread evenly over the brain voxels of a patch; the
        mean over windows. 0 outside the brain.
    of_windows : (windows, parcels) array
    course : (parcels, T) array
        Over the frames of a window, mean over windows.
    occluded, random_parcels : (parcels,) arrays
        By occlusion, and of the network with random weights.
    checks : list of Check
    """

    encoded: EncodedRun
    target: Target
    baseline: Baseline
    parcels: Parcels
    starts: np.ndarray
    of_clips: list[Attribution]
    volume: np.ndarray
    of_random: np.ndarray
    of_windows: np.ndarray
    course: np.ndarray
    occluded: np.ndarray
    random_parcels: np.ndarray
    checks: list[Check] = field(default_factory=list)

    @property
    def may_be_drawn(self) -> bool:
        """Whether two halves of the windows tell the same; where that is not known, it is not drawn either."""
        split = next(check for check in self.checks if check.name == checks.SPLIT_HALF)
        return split.passed is True

    @property
    def share_outside(self) -> float:
        """Share of what the map holds, by size, that lies in no parcel."""
        whole = np.abs(self.volume).sum(dtype=np.float64)
        outside = np.abs(self.volume[self.parcels.numbers == 0]).sum(dtype=np.float64)
        return float(outside / whole) if whole else 0.0


def explain(
    encoded: EncodedRun, options: Options, parcels: Parcels, baseline: Baseline, seed: int, progress: Progress
) -> Explanation:
    """Explain what a model predicts of a run.

    Parameters
    ----------
    seed : int
        Of random weights and orders.

    Raises
    ------
    NeurostormError
        If the model has no head, is fed something else than the run, or all windows are censored.
    """
    model, gridded = encoded.model, encoded.gridded
    check_model(model, options)
    target = target_of(model, encoded.prediction.value if encoded.prediction else "", options.attribution_class)
    starts = _chosen(encoded.windows.starts[~encoded.censored], options.attribution_windows)
    numbers = torch.from_numpy(parcels.numbers.reshape(gridded.grid.shape)).to(model.device)
    patches = _patches(gridded.grid.shape, gridded.brain, model.network)
    output = partial(target.of, model.network)
    advance = progress.step(f"explaining {target.name} in {len(starts)} windows, from {baseline.name}", "window")
    maps: list[np.ndarray] = []
    of_windows: list[np.ndarray] = []
    courses: list[np.ndarray] = []
    of_clips: list[Attribution] = []
    first_map = np.empty(0)
    first: tuple[Tensor, Tensor] | None = None  # one window is in memory at a time, beside the one that is checked
    for i, pair in enumerate(baseline.clips(encoded, starts)):
        found = integrated_gradients(output, *pair)
        first, first_map = (first, first_map) if first else (pair, patches.sums(found.over_time))
        maps.append(patches(found.over_time))
        of_windows.append(parcels.sums(found.over_time.ravel()))
        courses.append(parcels.sums(found.values.reshape(-1, found.values.shape[3])))
        of_clips.append(replace(found, values=np.empty(0)))
        advance(i + 1, len(starts))
    assert first is not None
    advance = progress.step(f"occluding {len(parcels)} parcels", "parcel")
    fallen = occlude(partial(_of_all_heads, model, target), *first, numbers, advance)
    randomised, by_chance, others = _random_maps(model.network, target, first, of_clips[0].nodes, seed, progress)
    occluded, of_labels = fallen[:, 0], checks.labels(fallen[:, 0], fallen[:, 1:])
    sums = {name: patches.sums(values) for name, values in randomised.items()}
    by_map = of_windows[0] * np.sign(of_clips[0].difference)
    made = [
        checks.completeness([each.error for each in of_clips]),
        checks.split_half(np.stack(of_windows), starts, encoded.windows.length),
        checks.agreement(of_windows[0], occluded),
        of_labels,
        checks.tested(model.hyper_parameters.get(TEST)),
        *([] if baseline.name == OWN_MEAN else [checks.beyond_the_mean_image(of_labels)]),
        checks.randomisation(sums, first_map, [patches.sums(each) for each in others], patches.image),
        checks.deletion(output, *first, numbers, _orders(by_map, first[0], parcels), seed),
    ]
    return Explanation(
        encoded,
        target,
        baseline,
        parcels,
        starts,
        of_clips,
        np.mean(maps, axis=0).astype(np.float32),
        patches(by_chance).astype(np.float32),
        np.stack(of_windows),
        np.mean(courses, axis=0),
        occluded,
        parcels.sums(by_chance.ravel()),
        made,
    )


def check_model(model: Model, options: Options) -> None:
    """Check that what a model says can be explained.

    Raises
    ------
    NeurostormError
        If it is not fed the run itself, has no head, or no such class.
    """
    if model.control:
        raise NeurostormError(f"--attribution: {model.name} is not fed the run itself; explain the model without @")
    target_of(model, "", options.attribution_class)


def _chosen(starts: np.ndarray, n: int) -> np.ndarray:
    """Return some of the windows, evenly spaced."""
    if not len(starts):
        raise NeurostormError("--attribution: all windows are censored for head motion; give a larger --fd-threshold")
    return np.asarray(starts[np.unique(np.linspace(0, len(starts) - 1, n).round().astype(int))])


@dataclass(frozen=True)
class _Patches:
    """The patches that a network sees of a grid.

    Gradients carry the grid of patches; a patch is the smallest place that the network knows of.

    Attributes
    ----------
    of_voxels : (voxels,) int array
        Number of each voxel's patch.
    brain : (n,) int array
        Brain voxels.
    shape : tuple of 3 int
        (D, H, W), patches along each axis.
    """

    of_voxels: np.ndarray
    brain: np.ndarray
    shape: tuple[int, ...]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return what the patches that hold brain hold together, (X, Y, Z) -> (patches,)."""
        return np.bincount(self.of_voxels, weights=values.ravel())[self._with_brain]

    def image(self, sums: np.ndarray) -> np.ndarray:
        """Return sums in their places, (patches,) -> (D, H, W); NaN where there is no brain."""
        image = np.full(int(np.prod(self.shape)), np.nan)
        image[self._with_brain] = sums
        return image.reshape(self.shape)

    @cached_property
    def _with_brain(self) -> np.ndarray:
        return np.unique(self.of_voxels[self.brain])

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Spread values over the brain voxels of each patch, (X, Y, Z) -> (voxels,)."""
        of_brain = self.of_voxels[self.brain]
        total = np.bincount(self.of_voxels, weights=values.ravel())
        counts = np.bincount(of_brain, minlength=len(total))
        spread = np.zeros(values.size)
        spread[self.brain] = (total / np.maximum(counts, 1))[of_brain]
        return spread


def _patches(shape: tuple[int, int, int], brain: np.ndarray, network: NeuroSTORM) -> _Patches:
    """Return the patches of a network in a grid of this shape."""
    config = network.config
    edges = [p * n // size for p, n, size in zip(config.patch_size[:3], shape, config.img_size[:3], strict=True)]
    index = [np.arange(n) // edge for n, edge in zip(shape, edges, strict=True)]
    in_patches = tuple(int(each[-1]) + 1 for each in index)
    numbers = np.ravel_multi_index(np.meshgrid(*index, indexing="ij"), in_patches)
    return _Patches(np.asarray(numbers).ravel(), brain, in_patches)


def _of_all_heads(model: Model, target: Target, clips: Tensor) -> Tensor:
    """Return what the head says of clips, and then what heads for permuted labels say, (B, 1 + heads)."""
    network = model.network
    assert network.output_head is not None
    embeddings = backend.embed(network, clips)
    heads = [] if model.permuted_heads is None else list(model.permuted_heads.to(embeddings))
    of_one = replace(target, members=1)
    return torch.stack([target(network.output_head(embeddings)), *(of_one(embeddings @ w.T) for w in heads)], dim=1)


def _random_maps(
    network: NeuroSTORM,
    target: Target,
    clip: tuple[Tensor, Tensor],
    nodes: int,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, np.ndarray], np.ndarray, list[np.ndarray]]:
    """Return the maps of networks with ever more random weights, the last of these, and those of more random ones, (X, Y, Z) each."""

    networks = list(checks.cascade(network, seed).items())
    networks += [("", checks.random_like(network, seed + i)) for i in range(1, N_RANDOM)]
    advance, found = progress.step("trying random weights", "network"), []
    for i, (_, other) in enumerate(networks, 1):
        found.append(integrated_gradients(partial(target.of, other), *clip, nodes=(nodes,)).over_time)
        advance(i, len(networks))
    maps = {name: values for (name, _), values in zip(networks, found, strict=True) if name}
    return maps, list(maps.values())[-1], found[len(maps) :]


def _orders(by_map: np.ndarray, clip: Tensor, parcels: Parcels) -> dict[str, np.ndarray]:
    """Return what parcels are ranked by: the map; how strong the mean image's edges are; how bright it is."""
    image = clip.mean(dim=3).cpu().numpy()
    edges = np.sqrt(sum(np.square(step) for step in np.gradient(image)))
    counts = parcels.sums(np.ones(image.size))
    return {
        "the map": by_map,
        "the order of edges": parcels.sums(edges.ravel()) / counts,
        "the order of brightness": parcels.sums(image.ravel()) / counts,
    }


def red_words(explanation: Explanation) -> list[str]:
    """Return what is to be said in red above a map: the checks that it failed."""
    return [f"{check.name}: {check.words}" for check in explanation.checks if check.passed is False]

"""Phantoms of many people, each with an anatomy and a connectivity of its own: what the demo model is trained on.

Nobody's data. Anatomy: the template, so smooth that a network of twelve channels can draw it, with a smooth field of gain of
the person's own. Networks: nodes a few millimetres away from where the others have them, of the person's own strength, and
courses that go together as they do in this person. Their fluctuations are far stronger and quicker than in people: a very
small network cannot learn what people's look like. A drift, linear in space, changes the whole image as slowly as heads and
scanners do.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter

from neurostorm_bids.demo.phantom import AFFINE, NETWORKS, SHAPE, Anatomy

SMOOTHING = 6.0  # mm, standard deviation, of the anatomy
MARGIN, EDGE = (
    4,
    0.05,
)  # voxels that the brain is made smaller by before; of the largest signal, below which there is none
CONTRAST = 0.3  # of the template's, between tissues
GAIN, WIDTH = 0.05, 24.0  # standard deviation of the field of gain, of the signal; its width, mm
DRIFT = 0.03  # standard deviation of the drift along each axis, of the signal
JITTER = 6.0  # mm, standard deviation of where nodes are
NODE = 22.0  # mm, standard deviation of a node's blob
FLUCTUATION, NOISE = 0.7, 0.02  # of the signal
FLUCTUATES, DRIFTS = (0.05, 0.4), (0.01, 0.03)  # Hz
REPETITION_TIME = 0.8  # s, the model's own: nothing is lost between
COUPLED = (
    "default",
    "frontoparietal",
)  # networks that go together in half of the people, and against each other in the others
MM = np.abs(np.diag(AFFINE)[:3])  # of a voxel


@dataclass(frozen=True)
class Person:
    """A phantom of one person.

    Attributes
    ----------
    mask : (X, Y, Z) bool array
    epi : (voxels,) array
        Mean signal in the mask.
    networks : (networks, voxels) array
        Strength of each network.
    coupling : (networks, networks) array
        What the courses of networks are mixed with.
    axes : (3, voxels) array
        Where voxels are, standardised.
    """

    mask: np.ndarray
    epi: np.ndarray
    networks: np.ndarray
    coupling: np.ndarray
    axes: np.ndarray


def person(brain: Anatomy, seed: int, coupled: bool) -> Person:
    """Make a person.

    Parameters
    ----------
    brain : Anatomy
        Of the template.
    coupled : bool
        Whether the networks of `COUPLED` go together; otherwise they oppose each other.
    """
    rng = np.random.default_rng(seed)
    inner = binary_erosion(brain.mask, iterations=MARGIN)  # so that the smooth edge ends about where the brain does
    flat = brain.epi[inner].mean() + CONTRAST * (brain.epi - brain.epi[inner].mean())
    smooth = gaussian_filter((flat * inner).astype(np.float32), SMOOTHING / MM)
    mask = smooth > EDGE * smooth.max()
    gain = gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), WIDTH / MM)
    inside = np.argwhere(mask).astype(np.float32) * np.diag(AFFINE)[:3].astype(np.float32) + AFFINE[:3, 3].astype(
        np.float32
    )
    networks = []
    for nodes in NETWORKS.values():
        moved = np.array(nodes) + JITTER * rng.standard_normal((len(nodes), 3))
        squared = np.min([((inside - node.astype(np.float32)) ** 2).sum(axis=1) for node in moved], axis=0)
        networks.append(np.exp(-squared / (2 * NODE**2)) * np.float32(rng.uniform(0.5, 1.5)))
    coupling = np.eye(len(networks)) + 0.4 * rng.standard_normal((len(networks),) * 2)
    one, other = (list(NETWORKS).index(name) for name in COUPLED)
    coupling[other] = (0.8 if coupled else -0.8) * coupling[one] + 0.6 * coupling[other]
    axes = (inside - inside.mean(axis=0)) / inside.std(axis=0)
    return Person(mask, smooth[mask] * (1 + GAIN * gain[mask] / gain.std()), np.stack(networks), coupling, axes.T)


def run_of(who: Person, seed: int, n_volumes: int, fluctuation: float = FLUCTUATION) -> np.ndarray:
    """One run of a person, int16, (X, Y, Z, n_volumes); fluctuations have this standard deviation, of the signal."""
    rng = np.random.default_rng(seed)
    courses = who.coupling @ np.stack([_course(rng, n_volumes, FLUCTUATES) for _ in who.networks])
    courses /= courses.std(axis=1, keepdims=True)
    drift = np.stack([_course(rng, n_volumes, DRIFTS) for _ in who.axes])
    change = NOISE * rng.standard_normal((len(who.epi), n_volumes), dtype=np.float32)
    change += who.networks.T @ (fluctuation * courses).astype(np.float32)
    change += who.axes.T @ (DRIFT * drift).astype(np.float32)
    data = np.zeros((*SHAPE, n_volumes), dtype=np.int16)
    data[who.mask] = np.clip(np.round(who.epi[:, None] * (1 + change)), 1, None).astype(np.int16)
    return data


def _course(rng: np.random.Generator, n_volumes: int, band: tuple[float, float]) -> np.ndarray:
    """A random time course between two frequencies (Hz) with unit standard deviation, (n_volumes,)."""
    spectrum = np.fft.rfft(rng.standard_normal(4 * n_volumes))
    frequency = np.fft.rfftfreq(4 * n_volumes, REPETITION_TIME)
    spectrum[(frequency < band[0]) | (frequency > band[1])] = 0
    course = np.fft.irfft(spectrum)[:n_volumes]
    return np.asarray((course - course.mean()) / course.std())

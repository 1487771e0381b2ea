"""Phantoms of many people, each with an anatomy and a connectivity of its own: what the demo model is trained on.

Nobody's data. Anatomy: the template, so smooth that a network of twelve channels can draw it, with a little gain of the
person's own. Networks: nodes a few millimetres away from where the others have them, of the person's own strength, and
courses that go together as they do in this person. Their fluctuations are ten times as strong as in people. A drift, in
smooth fields of the run's own, changes the whole image as slowly as heads and scanners do.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from neurostorm_bids.demo.phantom import AFFINE, NETWORKS, SHAPE, Anatomy, slow_fluctuation

SMOOTHING = 6.0  # mm, standard deviation, of the anatomy
EDGE = 0.05  # of the largest signal, below which there is no brain
GAIN, DRIFT, WIDTH = 0.03, 0.06, 24.0  # of the signal: standard deviation of the fields; their width, mm
JITTER = 6.0  # mm, standard deviation of where nodes are
NODE = 14.0  # mm, standard deviation of a node's blob
FLUCTUATION, NOISE = 0.25, 0.02  # of the signal
FASTEST, SLOW = 0.2, 0.03  # Hz, of fluctuations and of drift
REPETITION_TIME = 0.8  # s, the model's own: nothing is lost between


MM = np.abs(np.diag(AFFINE)[:3])  # of a voxel
N_DRIFTS = 2


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
    """

    mask: np.ndarray
    epi: np.ndarray
    networks: np.ndarray
    coupling: np.ndarray


def person(brain: Anatomy, seed: int, coupled: bool) -> Person:
    """Make a person.

    Parameters
    ----------
    brain : Anatomy
        Of the template.
    coupled : bool
        Whether the default and the frontoparietal network go together; in the others, they oppose each other.
    """
    rng = np.random.RandomState(seed)
    smooth = gaussian_filter(brain.epi.astype(float), SMOOTHING / MM)
    mask = smooth > EDGE * smooth.max()
    epi = smooth[mask] * (1 + GAIN * _field(rng)[mask])
    world = np.indices(SHAPE).reshape(3, -1).T @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    inside = world[mask.ravel()]
    networks = []
    for nodes in NETWORKS.values():
        moved = np.array(nodes) + JITTER * rng.standard_normal((len(nodes), 3))
        squared = np.min([((inside - node) ** 2).sum(axis=1) for node in moved], axis=0)
        networks.append(np.exp(-squared / (2 * NODE**2)) * rng.uniform(0.6, 1.4))
    coupling = np.eye(len(networks)) + 0.4 * rng.standard_normal((len(networks),) * 2)
    names = list(NETWORKS)
    default, control = names.index("default"), names.index("frontoparietal")
    coupling[control] = (0.8 if coupled else -0.8) * coupling[default] + 0.6 * coupling[control]
    return Person(mask, epi, np.stack(networks), coupling)


def run_of(who: Person, seed: int, n_volumes: int) -> np.ndarray:
    """One run of a person, int16, (X, Y, Z, n_volumes)."""
    rng = np.random.RandomState(seed)
    courses = who.coupling @ np.stack(
        [slow_fluctuation(rng, n_volumes, REPETITION_TIME, FASTEST) for _ in who.networks]
    )
    courses /= courses.std(axis=1, keepdims=True)
    change = FLUCTUATION * who.networks.T @ courses
    for _ in range(N_DRIFTS):
        course = slow_fluctuation(rng, n_volumes, REPETITION_TIME, SLOW)
        change += DRIFT * np.outer(_field(rng)[who.mask], course)
    change += NOISE * rng.standard_normal(change.shape)
    data = np.zeros((*SHAPE, n_volumes), dtype=np.int16)
    data[who.mask] = np.round(who.epi[:, None] * (1 + change)).astype(np.int16)
    return data


def _field(rng: np.random.RandomState) -> np.ndarray:
    """Return a smooth random field of standard deviation 1, (X, Y, Z)."""
    field = gaussian_filter(rng.standard_normal(SHAPE), WIDTH / MM)
    return np.asarray(field / field.std())

"""Whom a model was trained on: hashes of people, which travel with its weights, so that tests on them can be told.

A hash is of the data set's name and the subject's label: who has both can tell whether a person was among them, and no
more.
"""

import hashlib
from collections.abc import Iterable

from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.model.model import Model

PEOPLE = "people"  # hyper-parameter of a fine-tuned model
SEEN = "SeenInTraining"  # in sidecars; left out where it is not known
SEEN_COLUMN = "seen_in_training"  # in tables


def hash_of(dataset: Dataset, subject: str) -> str:
    """Return the hash of a person.

    Parameters
    ----------
    subject : str
        Label, without sub-.
    """
    return hash_of_label(dataset.name, subject)


def hash_of_label(dataset: str, subject: str) -> str:
    """Return the hash of a person, by the name of the data set and the label."""
    return hashlib.sha256(f"{dataset}\n{subject}".encode()).hexdigest()[:16]


def people_of(model: Model) -> frozenset[str]:
    """Return the hashes of those that a model was trained on; empty where that is not known."""
    known = model.hyper_parameters.get(PEOPLE)
    return frozenset(map(str, known)) if isinstance(known, list) else frozenset()


def was_seen(model: Model, dataset: Dataset, subject: str) -> bool | None:
    """Whether a model was trained on a person; `None` where it does not say whom it was trained on."""
    people = people_of(model)
    return hash_of(dataset, subject) in people if people else None


def with_those_before(model: Model, dataset: Dataset, subjects: Iterable[str]) -> list[str]:
    """Return the hashes of people, and of those that the model they are trained on had seen before, sorted."""
    return sorted(people_of(model) | {hash_of(dataset, subject) for subject in subjects})

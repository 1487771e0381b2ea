"""What the classical way rests on: the weights of a ridge regression on the connectome, summed over each parcel's connections."""

import numpy as np
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.baselines import CONNECTOME, connectome_of, store_of, written_connectomes
from neurostorm_bids.group.cohort import weighted_means
from neurostorm_bids.group.study import Study
from neurostorm_bids.resample.parcels import Parcels

PENALTIES = np.logspace(-2, 5, 15)


def strength_of_parcels(study: Study, parcels: Parcels) -> np.ndarray | str:
    """Return how much a regression of the target on the connectome rests on each parcel, (parcels,); or why it can't be told."""
    target = study.target()
    if target is None:
        return f"with --target, the map is compared with the weights of a regression on the {CONNECTOME}"
    try:
        labels = study.labels(target)
    except NeurostormError as error:
        return f"not compared with the {CONNECTOME}: {error}"
    stores = [store_of(study.settings.work, study.cohort, int(row)) for row in labels.rows]
    if missing := sum(store is None for store in stores):
        written = written_connectomes(study.cohort, labels.rows, parcels.name)
        if written is None or written.shape[1] != len(parcels) * (len(parcels) - 1) // 2:
            return (
                f"not compared with the {CONNECTOME}: {missing} of {len(stores)} runs have no gridded run; the participant level keeps them "
                "with --save-grid, or the connectomes of the maps' atlas with --timeseries"
            )
        values = written
    else:  # a parcel that a run does not cover is connected with nothing
        gridded = [connectome_of(store, parcels.numbers) for store in stores if store is not None]
        values = np.nan_to_num(np.stack(gridded))
    members = labels.members_among_rows
    samples = weighted_means(values, members, study.cohort.runs["windows"].to_numpy(float)[labels.rows])
    model = make_pipeline(StandardScaler(), (RidgeClassifierCV if labels.classes else RidgeCV)(PENALTIES))
    weights = np.abs(np.atleast_2d(model.fit(samples, labels.y)[-1].coef_)).sum(axis=0)
    strength = np.zeros((len(parcels), len(parcels)))
    strength[np.tril_indices(len(parcels), -1)] = weights
    return np.asarray((strength + strength.T).sum(axis=1))

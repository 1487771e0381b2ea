"""Take what sites shift and stretch out of features, by ComBat, as learnt in the training folds.

Johnson, Li and Rabinovic (2007), https://doi.org/10.1093/biostatistics/kxj037; Fortin et al. (2018),
https://doi.org/10.1016/j.neuroimage.2017.11.024, whose library fits it.
"""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
from neuroCombat import neuroCombat
from sklearn.impute import SimpleImputer

from neurostorm_bids.group.confounds import Confounds

SITE = "site"
FEWEST = 4  # samples of a site in a training fold: of fewer its spread cannot be told


@dataclass(frozen=True)
class ComBat:
    """Harmonisation of features over sites; what covariates explain is kept.

    Attributes
    ----------
    sites : (samples,) int array
        The site of each sample, as 0, 1, ...
    kept : Confounds
        What differs between sites and is not theirs, such as age and sex.
    """

    sites: np.ndarray
    kept: Confounds

    def only(self, which: np.ndarray) -> "ComBat":
        """Return that of some samples."""
        return ComBat(self.sites[which], self.kept.only(which))

    def applied(self, features: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of two parts of the samples, harmonised as learnt from the first.

        Parameters
        ----------
        features : (samples, features) array
            NaN becomes the mean of the first part.
        train, test : (samples,) bool arrays

        Raises
        ------
        ValueError
            If a site of the second part is not in the first: of a site never seen nothing is known to take out.
        """
        if unseen := set(self.sites[test]) - set(self.sites[train]):
            raise ValueError(f"site {min(unseen)} is not among those that the harmonisation is learnt from")
        imputer = SimpleImputer(keep_empty_features=True).fit(features[train])
        known = self.kept.columns_for(train, test)
        x = imputer.transform(features[train])
        varies = np.ptp(x, axis=0) > 0
        found = _fit(x[:, varies], self.sites[train], known[0])
        parts = []
        for which, columns in zip((train, test), known, strict=True):
            part = imputer.transform(features[which])
            part[:, varies] = found.applied(part[:, varies], self.sites[which], columns)
            parts.append(part)
        return parts[0], parts[1]


@dataclass(frozen=True)
class _Fitted:
    """What ComBat has learnt: means, what covariates explain, and each site's shift and scale."""

    mean: np.ndarray
    slopes: np.ndarray
    spread: np.ndarray
    sites: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    center: np.ndarray

    def applied(self, x: np.ndarray, sites: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return harmonised features, (samples, features)."""
        expected = self.mean + (known - self.center) @ self.slopes
        rows = np.searchsorted(self.sites, sites)
        standard = (x - expected) / self.spread
        return np.asarray((standard - self.shift[rows]) / self.scale[rows] * self.spread + expected)


def _fit(x: np.ndarray, sites: np.ndarray, known: np.ndarray) -> _Fitted:
    """Fit ComBat to (samples, features)."""
    center = known.mean(axis=0)
    names = [f"covariate{i}" for i in range(known.shape[1])]
    table = pd.DataFrame(known - center, columns=names).assign(**{SITE: sites})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        found = neuroCombat(x.T, table, SITE, continuous_cols=names)["estimates"]
    # what covariates explain is given for the samples it was fitted to; it is linear, so that this solves for it exactly
    slopes = np.linalg.lstsq(known - center, found["mod.mean"].T, rcond=None)[0] if names else np.zeros((0, x.shape[1]))
    return _Fitted(
        mean=found["stand.mean"][:, 0],
        slopes=slopes,
        spread=np.sqrt(found["var.pooled"][:, 0]),
        sites=np.unique(sites),
        shift=found["gamma.star"],
        scale=np.sqrt(found["delta.star"]),
        center=center,
    )

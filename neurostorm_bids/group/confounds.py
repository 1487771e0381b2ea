"""What is already known of each sample (covariates, head motion), as columns that a linear model is fitted to.

All that is learnt about them (missing values, knots, categories) is learnt in the training folds. Knows no files and no
tables.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler

KINDS = ("linear", "log", "spline", "categorical")
N_KNOTS = 4  # of a cubic spline, at quantiles
SMALLEST = 1e-3  # what a logarithm is taken of is at least this: 1 µm of head motion


@dataclass(frozen=True)
class Confounds:
    """Covariates and head motion.

    Attributes
    ----------
    values : (samples, n) array
        Numbers; categories as 0, 1, ...; NaN where unknown.
    kinds : tuple of str
        How each column enters: one of `KINDS`.
    """

    values: np.ndarray
    kinds: tuple[str, ...]

    @classmethod
    def none(cls, n_samples: int) -> "Confounds":
        """Return no confounds."""
        return cls(np.empty((n_samples, 0)), ())

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def complete(self) -> np.ndarray:
        """Of which samples all are known, (samples,) bool."""
        return np.asarray(~np.isnan(self.values).any(axis=1))

    def only(self, which: np.ndarray) -> "Confounds":
        """Return those of some samples."""
        return Confounds(self.values[which], self.kinds)

    def and_also(self, other: "Confounds") -> "Confounds":
        """Return these and others side by side."""
        return Confounds(np.column_stack([self.values, other.values]), self.kinds + other.kinds)

    def that_vary(self) -> "Confounds":
        """Return the columns with at least two known values that differ."""
        known = [column[~np.isnan(column)] for column in self.values.T]
        which = [i for i, column in enumerate(known) if len(column) > 1 and np.ptp(column) > 0]
        return Confounds(self.values[:, which], tuple(self.kinds[i] for i in which))

    def columns_for(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of a linear model for two parts of the samples, as learnt from the first.

        Parameters
        ----------
        train, test : (samples,) bool or int arrays
            Which samples.
        """
        if not len(self):
            return np.empty((len(self.values[train]), 0)), np.empty((len(self.values[test]), 0))
        steps = [(str(i), _STEPS[kind](), [i]) for i, kind in enumerate(self.kinds)]
        expander = ColumnTransformer(steps, sparse_threshold=0)
        known = np.asarray(expander.fit_transform(self.values[train]), float)
        with warnings.catch_warnings():  # a category that is not among them is none of those that are
            warnings.filterwarnings("ignore", "Found unknown categories")
            return known, np.asarray(expander.transform(self.values[test]), float)


def _log(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(values, SMALLEST)))


def _linear() -> Pipeline:
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())


def _of_log() -> Pipeline:
    return make_pipeline(FunctionTransformer(_log), _linear())


def _spline() -> Pipeline:
    knots = SplineTransformer(N_KNOTS, knots="quantile", extrapolation="linear", include_bias=False)
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), knots)


def _categorical() -> Pipeline:
    indicators = OneHotEncoder(drop="first", handle_unknown="ignore", sparse_output=False)
    return make_pipeline(SimpleImputer(strategy="most_frequent", keep_empty_features=True), indicators)


_STEPS = {"linear": _linear, "log": _of_log, "spline": _spline, "categorical": _categorical}

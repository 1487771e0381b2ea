"""Read the maps of --attribution of a cohort, which have to be of one kind."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.names import map_beside, parcels_beside, sidecar_of
from neurostorm_bids.derivatives.run import is_of
from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.study import LOG, Study, counted
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.nifti import READ_ERRORS, open_image
from neurostorm_bids.runtime.json_files import read_json
from neurostorm_bids.settings.explaining import BASELINES, GROUP_MEAN, OWN_MEAN

VALUES = ("attribution", "attribution_random_weights")  # columns of a table of parcels


@dataclass(frozen=True)
class RunMap:
    """The map of one run.

    Attributes
    ----------
    person : str
    image : Path
    values, random : (parcels,) arrays
        The latter of random weights.
    checks : dict
        Name of a check -> whether it passed; `None`: it could not be made.
    outside : float
        Share of the map that lies in no parcel.
    added : dict
        Onset of a window -> what the run adds to the baseline's output.
    others : tuple of str
        People whose mean images are the baseline.
    """

    person: str
    image: Path
    values: np.ndarray
    random: np.ndarray
    checks: dict[str, bool | None]
    outside: float
    added: dict[float, float]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Maps:
    """The maps of a cohort.

    Attributes
    ----------
    runs : list of RunMap
    names : list of str
        Of the parcels.
    voxels : list of int
        How many they have.
    raised : str or None
        The class that what raises the output speaks for.
    facts : dict
        What all maps have in common: output, baseline, atlas, weights.
    grid : Grid
    """

    runs: list[RunMap]
    names: list[str]
    voxels: list[int]
    raised: str | None
    facts: dict[str, str]
    grid: Grid

    @cached_property
    def people(self) -> list[str]:
        """Sorted."""
        return sorted({run.person for run in self.runs})

    @cached_property
    def values(self) -> np.ndarray:
        """Means over a person's runs, (people, parcels)."""
        return self._over_runs([run.values for run in self.runs])

    @cached_property
    def random(self) -> np.ndarray:
        """The same of random weights."""
        return self._over_runs([run.random for run in self.runs])

    @cached_property
    def volume(self) -> np.ndarray:
        """Mean over people, (X, Y, Z)."""
        return self.weighted(np.full(len(self.people), 1 / len(self.people)))

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """Return the sum of people's maps with these weights, (X, Y, Z); one map at a time is in memory."""
        total, of = np.zeros(self.grid.shape), dict(zip(self.people, weights, strict=True))
        for run in self.runs:
            if of[run.person]:
                total += of[run.person] / self._n_of[run.person] * _volume(run.image, self.grid)
        return total

    def of_voxels(self) -> np.ndarray:
        """Return everybody's mean map, (people, voxels) float32."""
        found = np.zeros((len(self.people), int(np.prod(self.grid.shape))), np.float32)
        place = {person: i for i, person in enumerate(self.people)}
        for run in self.runs:
            found[place[run.person]] += _volume(run.image, self.grid).ravel() / self._n_of[run.person]
        return found

    @cached_property
    def _n_of(self) -> Counter[str]:
        """How many runs a person has."""
        return Counter(run.person for run in self.runs)

    def _over_runs(self, rows: list[np.ndarray]) -> np.ndarray:
        means = pd.DataFrame(np.stack(rows)).groupby([run.person for run in self.runs]).mean()
        return means.loc[self.people].to_numpy()


def read_all_maps(study: Study, grid: Grid) -> dict[str, Maps]:
    """Read the maps of all runs of the cohort: baseline -> maps.

    Raises
    ------
    NeurostormError
        If there are none, of one person alone, or of several kinds.
    """
    all_maps = {baseline: maps for baseline in BASELINES if (maps := _read_maps(study, grid, baseline))}
    if not all_maps:
        raise NeurostormError(f"no run of model '{study.cohort.label}' has a map; {_how(study)}")
    found = {baseline: maps for baseline, maps in all_maps.items() if len(maps.people) > 1}
    if not found:
        raise NeurostormError("one person is no group; the report of the participant level has this person's map")
    for baseline in all_maps.keys() - found.keys():
        LOG.warning("maps from %s are left out: one person alone has one", baseline)
    return found


def _how(study: Study) -> str:
    return f"run the participant level with --model {study.model} --attribution"


def _read_maps(study: Study, grid: Grid, baseline: str) -> Maps | None:
    """Read the maps that compare runs with a baseline; `None` if there are none."""
    runs: list[RunMap] = []
    facts: dict[str, str] = {}
    raised, first, n_old = None, pd.DataFrame(), 0
    for path, subject in zip(study.cohort.files, study.cohort.runs[SUBJECT], strict=True):
        sidecar_path = map_beside(path, baseline, ".json")
        if not sidecar_path.is_file():
            continue
        sidecar = read_json(sidecar_path)
        if not is_of(sidecar, read_json(sidecar_of(path))):
            n_old += 1
            continue
        run, of_run, table = _of_run(str(subject), sidecar_path, sidecar)
        if facts and of_run != facts:
            other = next(key for key in facts if facts[key] != of_run[key])
            raise NeurostormError(
                f"{sidecar_path} is of another kind than the maps before it ({other}: {of_run[other]}, not {facts[other]}); make all maps "
                "with the same options" + (" (--attribution-class)" if other == "Output" else "")
            )
        if not first.empty and first["name"].tolist() != table["name"].tolist():
            raise NeurostormError(
                f"{sidecar_path} has other parcels than the maps before it, of an atlas of the same name"
            )
        facts, first, raised = of_run, table, sidecar["Explained"].get("Class")
        runs.append(run)
    if n_old:
        LOG.warning(
            "%s from %s left out, as the run was embedded with other settings since: %s",
            counted(n_old, "map"),
            baseline,
            _how(study),
        )
    if not runs:
        return None
    if missing := len(study.cohort.files) - len(runs) - n_old:
        LOG.warning("%s without a map from %s: %s", counted(missing, "run"), baseline, _how(study))
    return Maps(runs, first["name"].tolist(), first["voxels"].tolist(), raised, facts, grid)


def _of_run(person: str, path: Path, sidecar: dict[str, Any]) -> tuple[RunMap, dict[str, str], pd.DataFrame]:
    """Return the map of a run, what kind it is, and its table of parcels."""
    try:
        facts = {
            "Output": f"{sidecar['Explained']['Output']} ({sidecar['Explained']['Unit']})",
            "Baseline": str(sidecar["Baseline"]),
            "Atlas": str(sidecar["Atlas"]),
            "Weights": str(sidecar["Model"]["WeightsSHA256"]),
        }
        table = read_table(parcels_beside(path, facts["Atlas"]))[["name", "voxels", *VALUES]]
        run = RunMap(
            person,
            path.with_name(path.name.removesuffix(".json") + ".nii.gz"),
            table[VALUES[0]].to_numpy(float),
            table[VALUES[1]].to_numpy(float),
            {str(check["Name"]): check["Passed"] for check in sidecar["Checks"]},
            float(sidecar["ShareOutsideParcels"]),
            {float(window["Onset"]): float(window["Output"] - window["OfBaseline"]) for window in sidecar["Windows"]},
            tuple(sidecar["BaselinePeople"] or ()),
        )
        if not all(np.isfinite(values).all() for values in (run.values, run.random)):
            raise ValueError("its table holds values that are no numbers")
        return run, facts, table.assign(name=table["name"].astype(str))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NeurostormError(f"{path} is damaged ({error}); run the participant level again with --force") from None


def _volume(path: Path, grid: Grid) -> np.ndarray:
    image, _ = open_image(path)
    try:
        values = np.asarray(image.dataobj, dtype=np.float32)
    except READ_ERRORS as error:
        raise NeurostormError(f"{path} is damaged or cut short ({error}); run the participant level again") from None
    if values.shape != grid.shape:
        raise NeurostormError(f"{path} is not in the grid '{grid.name}'; run the participant level again with --force")
    return values


def anatomy_or_function(maps: dict[str, Maps]) -> str | None:
    """Return what people's outputs differ in: their mean images, or what changes over time; `None` without both maps.

    From other people's mean image to the run's own, then to the run: the two steps sum to the whole way.
    """
    if not {OWN_MEAN, GROUP_MEAN} <= maps.keys():
        return None
    of_image = {run.image.name.partition("_stat-")[0]: run for run in maps[GROUP_MEAN].runs}
    steps: dict[str, list[tuple[float, float]]] = {}
    for run in maps[OWN_MEAN].runs:
        other = of_image.get(run.image.name.partition("_stat-")[0])
        if other is not None and run.added.keys() == other.added.keys():
            function = float(np.mean(list(run.added.values())))
            steps.setdefault(run.person, []).append((float(np.mean(list(other.added.values()))) - function, function))
    if len(steps) < 2:
        return None
    of_people = np.array([np.mean(pairs, axis=0) for pairs in steps.values()])
    (anatomy, function), whole = of_people.std(axis=0, ddof=1), of_people.sum(axis=1).std(ddof=1)
    return (
        f"Anatomy or function? What a run adds to the output of other people's mean image varies over {len(steps)} people with a standard "
        f"deviation of {whole:.3g}: its own mean image (anatomy, and whatever else stands still) with {anatomy:.3g}, what changes over time "
        f"with {function:.3g}."
    )

"""The runs that a model is pretrained on, of one data set or several, and the people who are held out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.names import GRIDDED, GriddedOutputs
from neurostorm_bids.derivatives.seen import hash_of_label
from neurostorm_bids.derivatives.store_index import StoreIndex, index_of, only_grid
from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.exclusions import which_stay
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.find.selection import filters_of, wants
from neurostorm_bids.group.labelled_runs import resample_all
from neurostorm_bids.group.study import LOG, Study, counted, word
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.train.pretrain_data import HeldOut, PretrainingWindows, Views

FEWEST_PEOPLE = 4
OTHERS = "pretrain-on"  # folder of the stores of other data sets in the work folder


@dataclass(frozen=True)
class Windows:
    """The runs that take part, and the people who are held out.

    Attributes
    ----------
    index : StoreIndex
        A store per run.
    runs : DataFrame
        Of the runs: run_name, dataset (its number), subject (label), person (its number), hash, part.
    datasets : list of str
        Their names.
    problems : list of Problem
    """

    index: StoreIndex
    runs: pd.DataFrame
    datasets: list[str]
    problems: list[Problem]

    @property
    def held_out(self) -> np.ndarray:
        """Whether a run is of somebody who is held out, (runs,) bool."""
        return np.asarray(self.runs["part"] == "validation")

    def part(self, held_out: bool, length: int, views: Views, seed: int, exponent: float = 1.0) -> PretrainingWindows:
        """Return the windows of one part of the people."""
        which = np.flatnonzero(self.held_out == held_out)
        people, datasets = (self.runs[name].to_numpy()[which] for name in ("person", "dataset"))
        return PretrainingWindows(
            self.index.keep(which),
            people,
            length,
            views,
            seed,
            shifted=not held_out,
            datasets=datasets,
            exponent=exponent,
        )

    @property
    def stamp(self) -> list[list[str]]:
        """What is trained on, by which a training that is gone on with is known: name and size of every store, and its scale."""
        names = [Path(path.decode()).name for path in self.index.paths]
        return [list(map(str, row)) for row in zip(names, self.index.size, self.index.scale, strict=True)]

    def n_people(self, held_out: bool) -> int:
        """Return the number of people of one part."""
        return int(self.runs.loc[self.held_out == held_out, "person"].nunique())

    def some_held_out(self, length: int, views: Views, seed: int, most: int) -> HeldOut:
        """Return some windows of each of those who are held out."""
        return HeldOut(self.part(True, length, views, seed), most, seed)


def windows_of(study: Study, grid: Grid, n_frames: int, file: Path, seen: frozenset[str]) -> Windows:
    """Find the runs of all data sets, resample those that no earlier call has kept, and hold people out.

    Parameters
    ----------
    n_frames : int
        That a run has to have.
    file : Path
        Where the index of the stores is kept.
    seen : frozenset of str
        Hashes of the people that the model was trained on before: the others are held out first.

    Raises
    ------
    NeurostormError
        If a data set is not there, there are too few people, or runs do not go together.
    """
    folders = [study.settings.bids_dir, *study.settings.pretraining.pretrain_on]
    if len(set(folders)) < len(folders):
        raise NeurostormError("--pretrain-on: a data set is given twice; give each once")
    found, problems, names = [], [], []
    for number, folder in enumerate(folders):
        if number and (stores := kept_stores(folder, grid, study)):
            names.append(folder.resolve().name)
            found.append(_of_stores(stores).assign(dataset=number))
            continue
        one = _study_of(study, folder) if number else study
        table, more = _resampled(one, grid, n_frames)
        names.append(one.dataset.name)
        found.append(table.assign(dataset=number))
        problems += more
    runs = pd.concat(found, ignore_index=True)
    if not len(runs):
        for problem in problems:
            LOG.error("%s", problem)
        raise NeurostormError(
            f"no run of {', '.join(names)} can be used{'; each has its problem above' if problems else ': there is none that was asked for'}"
        )
    index, more = index_of([Path(path) for path in runs["path"]], file)
    kept = runs["path"].isin([path.decode() for path in index.paths]).to_numpy()
    runs = runs[kept].reset_index(drop=True)
    long = index.n_frames >= n_frames
    short = [Problem(f"fewer frames than {n_frames}, which are needed", run=name) for name in runs["run_name"][~long]]
    problems += more + [problem for problem in short if problem.run not in {other.run for other in problems}]
    for problem in problems:
        LOG.error("%s", problem)
    index, runs = index.keep(np.flatnonzero(long)), runs[long].reset_index(drop=True)
    of = [name or names[number] for name, number in zip(index.dataset, runs["dataset"], strict=True)]
    runs["hash"] = [hash_of_label(name, subject) for name, subject in zip(of, runs["subject"], strict=True)]
    if len(runs):
        only_grid(index)
    settings = study.settings
    runs = _split(runs, settings.pretraining.held_out, settings.conduct.random_seed, seen)
    return Windows(index, runs, names, problems)


def kept_stores(folder: Path, grid: Grid, study: Study) -> list[Path]:
    """Return the stores in a folder that --save-grid kept, of tasks, sessions and runs that are asked for.

    Parameters
    ----------
    folder : Path
        A work folder, or the one of stores in it.
    """
    within = folder if folder.name == GRIDDED else folder / GRIDDED
    selection = replace(study.settings.selection, participant_label=())  # labels are of the people of BIDS_DIR
    filters = filters_of(selection)
    there = sorted(within.glob(f"sub-*/**/*_space-{grid.template}_res-2_desc-*_bold.npy")) if within.is_dir() else []
    wanted = [path for path in there if wants(selection, filters, path.name.partition("_space-")[0])]
    stay = which_stay(selection, [path.name.partition("_space-")[0] for path in wanted])
    return [path for path, stays in zip(wanted, stay, strict=True) if stays]


def _study_of(study: Study, folder: Path) -> Study:
    """Return the study of another data set, whose stores are kept apart from the others'."""
    settings = replace(study.settings, bids_dir=folder)
    dataset = find_dataset(folder, {}, settings.selection.input_type)
    work = settings.work / OTHERS / word(str(folder))
    of_bids_dir: dict[str, Any] = {"derivatives": (), "participant_label": (), "bids_database_dir": None}
    return replace(study, dataset=dataset, settings=settings.replacing(work_dir=work, **of_bids_dir))


def _resampled(study: Study, grid: Grid, n_frames: int) -> tuple[pd.DataFrame, list[Problem]]:
    """Find the runs of a data set and make their stores."""
    selection = study.settings.selection
    runs, problems = find_runs(
        study.dataset, selection, selection.bids_database_dir, raw=study.settings.resampling.of_raw
    )
    problems += resample_all(runs, grid, n_frames, study)
    failed = {problem.run for problem in problems}
    rows = [
        {
            "path": str(study.settings.work / GriddedOutputs(run, grid).int8),
            "run_name": run.name,
            "subject": run.subject,
        }
        for run in runs
        if run.name not in failed
    ]
    return pd.DataFrame(rows, columns=["path", "run_name", "subject"]), problems


def _of_stores(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the runs of stores that are there; what is known of them is their names."""
    runs = [path.name.partition("_space-")[0] for path in paths]
    subjects = [run.partition("_")[0].removeprefix("sub-") for run in runs]
    return pd.DataFrame({"path": [str(path) for path in paths], "run_name": runs, "subject": subjects})


def _split(runs: pd.DataFrame, share: float, seed: int, seen: frozenset[str]) -> pd.DataFrame:
    """Number the people, and hold some of each data set out; who is in two data sets is one person, of the first.

    Raises
    ------
    NeurostormError
        If there are too few.
    """
    people = runs.sort_values(["dataset", "subject"], kind="stable").drop_duplicates("hash", ignore_index=True)
    person = pd.Index(people["hash"]).get_indexer(runs["hash"])
    if len(people) < FEWEST_PEOPLE:
        raise NeurostormError(
            f"{counted(len(people), 'person')} with runs that can be used: at least {FEWEST_PEOPLE} are needed, some to test on"
        )
    rng, aside = np.random.default_rng(seed), set()
    of, is_seen = people["dataset"].to_numpy(), people["hash"].isin(seen).to_numpy()
    for dataset in np.unique(of):
        theirs = rng.permutation(np.flatnonzero(of == dataset))
        theirs = theirs[np.argsort(is_seen[theirs], kind="stable")]
        least = 2 if len(np.unique(of)) == 1 else 1
        aside |= set(theirs[: max(least, round(share * len(theirs))) if len(theirs) > 1 else 0].tolist())
    held = np.isin(person, list(aside))
    return runs.assign(person=person, part=np.where(held, "validation", "train"))

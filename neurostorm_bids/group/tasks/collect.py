"""One table of all runs, and a page that shows the cohort: a map of it, outliers, head motion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.derivatives.sidecars import PRIVACY, software_versions
from neurostorm_bids.derivatives.tables import channels_named
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.cohort import IDENTITY, QUALITY, Cohort
from neurostorm_bids.group.evaluation import Design, Evaluation, evaluate
from neurostorm_bids.group.figures import maps_figure
from neurostorm_bids.group.folds import make_folds
from neurostorm_bids.group.predictions import predicted_columns, predictions_of_runs
from neurostorm_bids.group.study import Study, some
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.resample.normalisation import SD_OF_MAD
from neurostorm_bids.runtime.atomic import replacing
from neurostorm_bids.runtime.json_files import write_json

MAX_MAPS = 6  # columns that colour a map
MAX_LEVELS = 10  # of text that colours a map
N_COMPONENTS = 10
OUTLIER = 5.0  # robust standard deviations from the middle
MIN_FOR_A_MAP = 3  # runs
MIN_FOR_MOTION = 10  # subjects, for the relation with head motion
MOST_FOR_MOTION = 5000  # more would not change it
ROWS_AT_A_TIME = 1000  # written; the text of all runs at once would take several times the memory


def run(study: Study) -> list[GroupResult]:
    """Collect the runs of one model."""
    cohort, table = study.cohort, study.table
    overview = overview_of(cohort, study.settings.conduct.random_seed)
    missing = study.missing_subjects(cohort)
    name = f"group_desc-{cohort.label}"
    about: dict[str, Any] = {
        **_columns(table, cohort),
        "Description": "NeuroSTORM embeddings, one row per run; mean over its windows",
        "Model": cohort.label,
        "Privacy": PRIVACY,
        "SubjectsWithoutResults": missing,
        "Notes": cohort.notes,
        "Sources": study.sources(),
    }
    predicted = predictions_of_runs(study)
    n = f"{len(table)} runs of {table[SUBJECT].nunique()} subjects"
    maps = {"principal components": overview.scores} | ({"UMAP": overview.umap} if overview.umap is not None else {})
    result = GroupResult(
        name=name,
        title="Group",
        answer=n,
        sections=_sections(study, overview, missing, f"{name}_embeddings"),
        about=about,
        page="group",
        tables={} if predicted is None else {"_predictions": predicted},
        columns={} if predicted is None else {"_predictions": predicted_columns(predicted)},
        figures={"_map": maps_figure(table, maps, overview.explained, columns_to_show(table))},
        write_more=lambda out_dir: write_collection(out_dir, cohort, table, about),
    )
    return [result]


@dataclass(frozen=True)
class Overview:
    """What the page shows of a cohort.

    Attributes
    ----------
    scores : (runs, 2) array
        First principal components of the standardised embeddings.
    explained : (2,) array
        Share of the variance.
    umap : (runs, 2) array or None
        `None` without umap-learn, or with few runs.
    distance : (runs,) array
        From the middle, in robust standard deviations.
    motion : Evaluation or None
        How well the embedding predicts mean framewise displacement in cross-validation.
    """

    scores: np.ndarray
    explained: np.ndarray
    umap: np.ndarray | None
    distance: np.ndarray
    motion: Evaluation | None

    def outliers(self, names: pd.Series) -> list[str]:
        """Return the runs far from all others, the farthest first."""
        order = np.argsort(-self.distance)
        return [f"{names.iloc[i]} ({self.distance[i]:.1f})" for i in order if self.distance[i] > OUTLIER]


def overview_of(cohort: Cohort, seed: int) -> Overview:
    """Map a cohort, find outliers, and relate the embedding to head motion."""
    if len(cohort.embeddings) < MIN_FOR_A_MAP:
        nowhere = np.zeros((len(cohort.embeddings), 2))
        return Overview(nowhere, np.zeros(2), None, nowhere[:, 0], None)
    values = StandardScaler().fit_transform(cohort.embeddings)
    n = min(N_COMPONENTS, *values.shape)
    pca = PCA(n, random_state=seed).fit(values)
    scores = pca.transform(values)
    middle = np.median(scores, axis=0)
    spread = SD_OF_MAD * np.median(np.abs(scores - middle), axis=0)
    distance = np.sqrt((((scores - middle) / np.where(spread > 0, spread, np.inf)) ** 2).mean(axis=1))
    two = np.pad(scores[:, :2], ((0, 0), (0, max(0, 2 - scores.shape[1]))))
    explained = np.pad(pca.explained_variance_ratio_[:2], (0, max(0, 2 - n)))
    return Overview(two, explained, _umap(values, seed), distance, _motion(cohort, seed))


def _motion(cohort: Cohort, seed: int) -> Evaluation | None:
    """Return how well the embedding predicts head motion, in some of very many subjects; `None` if too few are known."""
    fd, subjects = cohort.runs["mean_fd"].to_numpy(float), cohort.runs[SUBJECT].to_numpy(str)
    known = ~np.isnan(fd)
    names = np.unique(subjects[known])
    if len(names) < MIN_FOR_MOTION or not np.std(fd[known]) > 0:
        return None
    if len(names) > MOST_FOR_MOTION:
        known &= np.isin(subjects, np.random.RandomState(seed).choice(names, MOST_FOR_MOTION, replace=False))
    folds = make_folds(fd[known], subjects[known], False, seed)
    return evaluate(cohort.embeddings[known], Design(fd[known], subjects[known], folds, False, seed))


def write_collection(out_dir: Path, cohort: Cohort, table: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write the table of runs with their embeddings, as TSV and Parquet, and the sidecar."""
    from fastparquet import write as write_parquet

    stem = out_dir / f"group_desc-{cohort.label}_embeddings"
    names = channels_named(cohort.embeddings.shape[1])
    with replacing(stem.with_suffix(".tsv")) as temporary:
        for start in range(0, len(table), ROWS_AT_A_TIME):
            rows = slice(start, start + ROWS_AT_A_TIME)
            part = table.iloc[rows].reset_index(drop=True)
            block = pd.concat([part, pd.DataFrame(cohort.embeddings[rows], columns=names)], axis=1)
            block.to_csv(temporary, sep="\t", index=False, na_rep="n/a", mode="a", header=start == 0)
    with replacing(stem.with_suffix(".parquet")) as temporary:
        whole = pd.concat([_plain_types(table), pd.DataFrame(cohort.embeddings, columns=names)], axis=1)
        write_parquet(str(temporary), whole, compression="GZIP")
    write_json(stem.with_suffix(".json"), {**about, "SoftwareVersions": software_versions()})


def _columns(table: pd.DataFrame, cohort: Cohort) -> dict[str, dict[str, Any]]:
    """Return what the columns of the table of runs are."""
    entities = {str(name): {"Description": f"Entity {name} of the run"} for name in cohort.runs}
    phenotype = {str(name): {"Description": "Column of the phenotype"} for name in table}
    channels = {
        name: {"Description": f"Channel {i} of the embedding, mean over the run's windows"}
        for i, name in enumerate(channels_named(cohort.embeddings.shape[1]))
    }
    every: dict[str, dict[str, Any]] = {**phenotype, **entities, **IDENTITY, **QUALITY}
    return {**{str(name): every[str(name)] for name in table}, **channels}


def _plain_types(table: pd.DataFrame) -> pd.DataFrame:
    """Return columns of numbers or text, which every reader of Parquet knows."""
    return table.apply(
        lambda c: c if pd.api.types.is_numeric_dtype(c) else c.where(c.isna(), c.astype(str)).astype(object)
    )


def columns_to_show(table: pd.DataFrame) -> list[str]:
    """Return the columns that colour a map: head motion, then those of the phenotype that vary."""
    known = {"run_name", SUBJECT, *QUALITY}
    others = [str(name) for name in table if name not in known]
    varying = [name for name in others if table[name].nunique() > 1 and table[name].notna().mean() > 0.5]
    useful = [n for n in varying if pd.api.types.is_numeric_dtype(table[n]) or table[n].nunique() <= MAX_LEVELS]
    motion = ["mean_fd"] if table["mean_fd"].notna().any() else []
    return [*motion, *useful[: MAX_MAPS - 1]] or ["windows"]


def _sections(study: Study, overview: Overview, missing: list[str], table_name: str) -> list[Section]:
    cohort, table = study.cohort, study.table
    motion = "head motion is known of too few subjects to say"
    if overview.motion is not None:
        r, low, high = overview.motion.metrics["r"]
        motion = (
            f"r = {r:.2f} (95 % interval {low:.2f} to {high:.2f}) between mean framewise displacement and what the "
            "embedding predicts of it, out of fold"
        )
        if (n := len(overview.motion.folds)) < table["mean_fd"].notna().sum():
            motion += f", in {n} runs of {MOST_FOR_MOTION} subjects drawn at random"
    facts = [
        ("Model", cohort.label),
        ("Runs", f"{len(table)} of {table[SUBJECT].nunique()} subjects, in {cohort.template}"),
        ("Subjects without results", some(missing) or "none"),
        ("Table", f"{table_name}.tsv, {table_name}.parquet"),
    ]
    about_map = [
        "Each dot is a run; runs with similar embeddings are near each other. Colours are columns of the phenotype, head "
        "motion first: where a colour forms a cluster, the embedding carries information about it."
    ]
    if overview.umap is None:
        about_map.append("For a map by UMAP too: pip install umap-learn.")
    outliers = some(overview.outliers(table["run_name"]), 20) or "none"
    far = f"Runs more than {OUTLIER:g} robust standard deviations from the middle: {outliers}."
    return [
        Section("Cohort", facts=facts, notes=cohort.notes),
        Section("Map", words=about_map, figures=[("_map", "Maps of the cohort.")]),
        Section("Outliers", words=[far]),
        Section("Head motion", words=[f"How much the embedding tells about head motion: {motion}."]),
    ]


def _umap(values: np.ndarray, seed: int) -> np.ndarray | None:
    try:
        from umap import UMAP
    except ImportError:
        return None
    if len(values) < MIN_FOR_MOTION:
        return None
    return np.asarray(UMAP(n_neighbors=min(15, len(values) - 1), random_state=seed).fit_transform(values))

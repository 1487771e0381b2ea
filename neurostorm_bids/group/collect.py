"""One table of all runs, and a page that shows the cohort: a map of subjects, outliers, and head motion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from neurostorm_bids.derivatives.tables import CHANNEL
from neurostorm_bids.group.cohort import Cohort
from neurostorm_bids.group.evaluation import Evaluation, evaluate, make_folds
from neurostorm_bids.report.figures.drawing import FAINT, INK, SIGNAL, new_figure, plain, save
from neurostorm_bids.runtime.atomic import replacing

MAPS = 6  # columns that colour a map
COMPONENTS = 10
FAR = 5.0  # robust standard deviations beyond which a run is an outlier
FEWEST_FOR_A_MAP = 3  # runs
FEWEST = 10  # runs for a relation with head motion
ABOUT = {
    "run_name": {"Description": "The run, by its entities"},
    "windows": {"Description": "Windows averaged"},
    "censored_windows": {"Description": "Windows left out for head motion"},
    "mean_fd": {"Description": "Mean framewise displacement of the run", "Units": "mm"},
    "max_fd": {"Description": "Largest framewise displacement of the run", "Units": "mm"},
    "brain_voxels": {"Description": "Voxels of the run's brain in the model's grid"},
    "brain_in_template": {"Description": "Share of these that lie in the template's brain"},
    "brain_outside_grid": {"Description": "Share of the brain that lies beyond the grid"},
}


@dataclass(frozen=True)
class Overview:
    """What the page tells of a cohort.

    Attributes
    ----------
    scores : (runs, 2) array
        First principal components of the standardised embeddings.
    explained : (2,) array
    umap : (runs, 2) array or None
        None without umap-learn, or with few runs.
    distance : (runs,) array
        From the middle, in robust standard deviations.
    motion : Evaluation or None
        How well the embedding predicts mean framewise displacement in cross-validation.
    """

    scores: np.ndarray
    explained: np.ndarray
    umap: Optional[np.ndarray]
    distance: np.ndarray
    motion: Optional[Evaluation]

    def outliers(self, names: pd.Series) -> "list[str]":
        """Runs far from all others, the farthest first."""
        order = np.argsort(-self.distance)
        return [f"{names.iloc[i]} ({self.distance[i]:.1f})" for i in order if self.distance[i] > FAR]


def overview_of(cohort: Cohort, seed: int) -> Overview:
    """Map a cohort, find outliers, and relate the embedding to head motion."""
    if len(cohort.embeddings) < FEWEST_FOR_A_MAP:
        nowhere = np.zeros((len(cohort.embeddings), 2))
        return Overview(nowhere, np.zeros(2), None, nowhere[:, 0], None)
    values = StandardScaler().fit_transform(cohort.embeddings)
    n = min(COMPONENTS, *values.shape)
    pca = PCA(n, random_state=seed).fit(values)
    scores = pca.transform(values)
    middle = np.median(scores, axis=0)
    spread = 1.4826 * np.median(np.abs(scores - middle), axis=0)
    distance = np.sqrt((((scores - middle) / np.where(spread > 0, spread, np.inf)) ** 2).mean(axis=1))
    fd = cohort.runs["mean_fd"].to_numpy(float)
    known = ~np.isnan(fd)
    subjects = cohort.runs["participant_id"].to_numpy()
    motion = None
    if len(np.unique(subjects[known])) >= FEWEST and np.std(fd[known]) > 0:
        folds = make_folds(fd[known], subjects[known], False, seed)
        motion = evaluate(cohort.embeddings[known], fd[known], subjects[known], folds, False, seed=seed)
    two = np.pad(scores[:, :2], ((0, 0), (0, max(0, 2 - scores.shape[1]))))
    explained = np.pad(pca.explained_variance_ratio_[:2], (0, max(0, 2 - n)))
    return Overview(two, explained, _umap(values, seed), distance, motion)


def write_collection(out_dir: Path, cohort: Cohort, table: pd.DataFrame) -> "list[Path]":
    """Write the table of runs with their embeddings, as TSV and Parquet.

    Parameters
    ----------
    table : DataFrame
        The runs, joined with the phenotype.
    """
    from fastparquet import write as write_parquet

    names = [f"{CHANNEL}{i:03d}" for i in range(cohort.embeddings.shape[1])]
    paths = [out_dir / f"group_desc-{cohort.label}_embeddings.{end}" for end in ("tsv", "parquet")]
    with replacing(paths[0]) as temporary:
        for start in range(0, len(table), 1000):  # a text of all runs at once would take several times the memory
            rows = slice(start, start + 1000)
            part = table.iloc[rows].reset_index(drop=True)
            block = pd.concat([part, pd.DataFrame(cohort.embeddings[rows], columns=names)], axis=1)
            block.to_csv(temporary, sep="\t", index=False, na_rep="n/a", mode="a", header=start == 0)
    with replacing(paths[1]) as temporary:
        whole = pd.concat([plain_types(table), pd.DataFrame(cohort.embeddings, columns=names)], axis=1)
        write_parquet(str(temporary), whole, compression="GZIP")
    return paths


def plain_types(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of numbers or text, which every reader of Parquet knows."""
    return table.apply(
        lambda c: c if pd.api.types.is_numeric_dtype(c) else c.where(c.isna(), c.astype(str)).astype(object)
    )


def draw_maps(table: pd.DataFrame, overview: Overview, columns: "list[str]", path: Path) -> None:
    """Principal components of the cohort (and UMAP, where it is), once for each column that colours it."""
    maps = [("principal components", overview.scores)] + (
        [("UMAP", overview.umap)] if overview.umap is not None else []
    )
    panels = [(column, *one) for column in columns for one in maps]
    n_rows = (len(panels) + 1) // 2
    figure = new_figure(3.6 * n_rows)
    for i, (column, title, places) in enumerate(panels, start=1):
        ax = figure.add_subplot(n_rows, 2, i)
        _scatter(figure, ax, places, table[column])
        ax.set_title(f"{title}, coloured by {column}", fontsize=9, color=INK)
        if places is overview.scores:
            ax.set_xlabel(f"first component ({overview.explained[0]:.0%})", fontsize=8)
            ax.set_ylabel(f"second ({overview.explained[1]:.0%})", fontsize=8)
        plain(ax)
    figure.tight_layout()
    save(figure, path)


def columns_to_show(table: pd.DataFrame) -> "list[str]":
    """Head motion, then columns of the phenotype that vary."""
    from neurostorm_bids.group.cohort import QUALITY

    known = {"run_name", "participant_id", *QUALITY}
    varying = [
        name for name in table if name not in known and table[name].nunique() > 1 and table[name].notna().mean() > 0.5
    ]
    useful = [n for n in varying if pd.api.types.is_numeric_dtype(table[n]) or table[n].nunique() <= 10]
    return (["mean_fd"] if table["mean_fd"].notna().any() else []) + useful[: MAPS - 1] or ["windows"]


def _scatter(figure, ax, places: np.ndarray, values: pd.Series) -> None:
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > 2:
        known = values.notna().to_numpy()
        ax.scatter(*places[~known].T, s=14, color=FAINT, alpha=0.4)
        dots = ax.scatter(*places[known].T, s=16, c=values[known], cmap="viridis")
        figure.colorbar(dots, ax=ax, shrink=0.8).ax.tick_params(labelsize=7)
        return
    for i, (name, members) in enumerate(sorted(values.astype(str).groupby(values.astype(str)).groups.items())):
        ax.scatter(*places[values.index.get_indexer(members)].T, s=16, label=name, color=f"C{i % 10}" if i else SIGNAL)
    ax.legend(fontsize=7, frameon=False)


def _umap(values: np.ndarray, seed: int) -> Optional[np.ndarray]:
    try:
        from umap import UMAP
    except ImportError:
        return None
    if len(values) < FEWEST:
        return None
    return np.asarray(UMAP(n_neighbors=min(15, len(values) - 1), random_state=seed).fit_transform(values))

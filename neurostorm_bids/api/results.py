"""Read what the participant level wrote, and probe it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from neurostorm_bids.api.options import settings_from
from neurostorm_bids.derivatives.tables import channels_named
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import find_dataset, find_selected
from neurostorm_bids.find.participants import join, read_people, read_phenotype
from neurostorm_bids.group.answers import metrics_table, predictions_table, verdict
from neurostorm_bids.group.cohort import labels_in, read_cohort
from neurostorm_bids.group.prediction_figures import forest_figure
from neurostorm_bids.group.probing import Probe, probe_of
from neurostorm_bids.group.study import Study
from neurostorm_bids.model.names import label_of_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_embeddings(
    out_dir: str | Path,
    model: str | None = None,
    *,
    bids_dir: str | Path | None = None,
    phenotype: str | Path | None = None,
) -> pd.DataFrame:
    """Read the mean embedding of every run in an output folder.

    Parameters
    ----------
    out_dir : path
        Of the participant level.
    model : str, optional
        Name or file of the model; needed where there are results of several.
    bids_dir : path, optional
        Of which the embeddings are: the columns of its participants.tsv and sessions.tsv are put beside.
    phenotype : path, optional
        Table (.tsv or .csv) with participant_id (and session_id) in place of these.

    Returns
    -------
    DataFrame
        A row per run: run_name, participant_id and other entities, quality, phenotype, channel000, channel001, ...

    Raises
    ------
    NeurostormError
        If there are no results, or of several models and none is named.
    """
    out = Path(out_dir).expanduser().resolve()
    cohort = read_cohort(out, label_of_name(model) if model is not None else _only_label(out))
    names = channels_named(cohort.embeddings.shape[1])
    table = cohort.runs
    if bids_dir is not None:
        dataset = find_dataset(Path(bids_dir).expanduser().resolve())
        table = join(table, read_phenotype(dataset, None if phenotype is None else Path(phenotype)).table, names)[0]
    elif phenotype is not None:
        table = join(table, read_people(Path(phenotype)), names)[0]
    return pd.concat([table, pd.DataFrame(cohort.embeddings, columns=list(names))], axis=1)


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Attributes
    ----------
    found : Probe
        Samples, folds and evaluations.
    label : str
        The model's.
    """

    found: Probe
    label: str

    @property
    def verdict(self) -> str:
        """The answer, in a sentence."""
        return verdict(self.found.evaluations, self.found.samples.labels)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row per set of features and metric: value, interval, p-value."""
        return metrics_table(self.found.evaluations, self.label)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row per sample: what was observed, and what models predict that have not seen it."""
        return predictions_table(self.found.samples.labels, self.found.evaluations)

    @property
    def notes(self) -> list[str]:
        """What a reader should know."""
        return self.found.notes

    def plot(self) -> "Figure":
        """Draw every set of features with its interval."""
        return forest_figure(self.found.evaluations)

    def __repr__(self) -> str:
        return f"<probe: {self.verdict}>"


def probe(bids_dir: str | Path, out_dir: str | Path, target: str, model: str = "base", **options: Any) -> ProbeResult:
    """Predict a target from the frozen embeddings, as ``--group-task probe`` does; nothing is written.

    Parameters
    ----------
    bids_dir : path
        Of which the embeddings are.
    out_dir : path
        Where they are.
    target : str
        Column of participants.tsv, or of ``phenotype=FILE``.
    model : str
        Name or file of the model.
    **options
        Those of the command, such as ``covariates=["age"]``, ``group_by="family"``, ``n_permutations=500``.

    Returns
    -------
    ProbeResult
        With ``verdict``, ``metrics``, ``predictions`` and ``plot()``.

    Raises
    ------
    NeurostormError
        If there are no results, or the labels cannot be used.
    """
    named = {"group_task": "probe", "target": target, "model": model}
    if taken := sorted(named.keys() & options.keys()):
        raise NeurostormError(f"{taken[0]} is not an option of probe")
    settings = settings_from(bids_dir, out_dir, "group", {**named, **options})
    study_of = settings.group.target
    if len(study_of) != 1:
        raise NeurostormError(f"probe takes one target, not {len(study_of)}")
    dataset = find_selected(settings.bids_dir, settings.selection)
    study = Study(dataset, read_phenotype(dataset, settings.group.phenotype), settings.encoding.model[0], settings)
    study.refuse_seen()
    return ProbeResult(probe_of(study, study_of[0]), study.cohort.label)


def _only_label(out_dir: Path) -> str:
    """Return the label of the only model with results."""
    labels = labels_in(out_dir)
    if len(labels) != 1:
        there = f"of several models ({', '.join(labels)}); say which" if labels else "of no model"
        raise NeurostormError(f"{out_dir} holds results {there}")
    return labels[0]

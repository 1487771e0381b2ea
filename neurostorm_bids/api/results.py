"""Read what the participant level wrote, and probe it."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from neurostorm_bids.api.options import settings_from
from neurostorm_bids.derivatives.tables import channels_named
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset, find_dataset, find_selected
from neurostorm_bids.find.participants import SUBJECT, join, match_subjects, read_people, read_phenotype
from neurostorm_bids.find.raw_dataset import described_sources
from neurostorm_bids.group.answers import metrics_table, predictions_table, verdict
from neurostorm_bids.group.cohort import labels_in, read_cohort
from neurostorm_bids.group.prediction_figures import forest_figure
from neurostorm_bids.group.probing import Probe, probe_of
from neurostorm_bids.group.study import Study
from neurostorm_bids.model.names import label_of_name
from neurostorm_bids.runtime.json_files import read_json

LOG = logging.getLogger("neurostorm")

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
        Of which the embeddings are: the columns of its participants.tsv and sessions.tsv are put beside. By default the one that
        ``out_dir`` was made from, if that is one, still where it was, and in order.
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

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neurostorm_bids.demo.dataset import write_dataset
    >>> from neurostorm_bids.participant.level import participant_level
    >>> from neurostorm_bids.settings import Settings
    >>> folder = TemporaryDirectory()
    >>> data, out = Path(folder.name) / "data", Path(folder.name) / "out"
    >>> write_dataset(data, n_volumes=20)
    >>> participant_level(Settings.of(data, out, model=("demo",), participant_label=("01",)))  # doctest: +ELLIPSIS
    run ...
    0
    >>> read_embeddings(out)[["participant_id", "task", "windows", "channel000"]].shape
    (1, 4)
    >>> folder.cleanup()
    """
    out = Path(out_dir).expanduser().resolve()
    cohort = read_cohort(out, label_of_name(model) if model is not None else _only_label(out))
    names = channels_named(cohort.embeddings.shape[1])
    table = cohort.runs
    people = _people(out, bids_dir, None if phenotype is None else Path(phenotype).expanduser())
    if people is not None:
        table = join(table, match_subjects(people, table[SUBJECT])[0], names)[0]
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

    Examples
    --------
    Embeddings as the participant level writes them, here made up: one channel goes with age.

    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from neurostorm_bids.runtime.json_files import write_json
    >>> folder = TemporaryDirectory()
    >>> data, out, ages = Path(folder.name) / "data", Path(folder.name) / "out", np.arange(20, 60)
    >>> noise = np.random.default_rng(0).standard_normal((40, 2))
    >>> about = {"Name": "made up", "DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    >>> write_json(data / "dataset_description.json", about)
    >>> people = pd.DataFrame({"participant_id": [f"sub-{age}" for age in ages], "age": ages})
    >>> people.to_csv(data / "participants.tsv", sep="\\t", index=False)
    >>> about = {"SettingsHash": "x", "InputFiles": {}, "Windows": {"Count": 1}, "channel000": {}, "channel001": {}}
    >>> for age, (one, other) in zip(ages, noise):
    ...     stem = f"sub-{age}/func/sub-{age}_task-rest_space-MNI152NLin6Asym_desc-demo_embeddings"
    ...     (data / f"sub-{age}" / "func").mkdir(parents=True)
    ...     write_json(out / f"{stem}.json", about)
    ...     window = {"onset": [0.0], "duration": [16.0], "channel000": [age / 20 + one], "channel001": [other]}
    ...     pd.DataFrame(window).to_csv(out / f"{stem}.tsv", sep="\\t", index=False)
    >>> found = probe(data, out, "age", "demo", n_permutations=99, cv_repeats=1)
    >>> embedding = found.metrics.set_index(["features", "metric"])["value"]["embedding"]
    >>> bool(embedding["r"] > 0.2)
    True
    >>> folder.cleanup()
    """
    named = {"group_task": "probe", "target": target, "model": model}
    if taken := sorted(named.keys() & options.keys()):
        raise NeurostormError(f"{taken[0]} is not an option of probe")
    settings = settings_from(bids_dir, out_dir, "group", {**named, **options})
    if len(settings.encoding.model) != 1:
        raise NeurostormError(f"probe takes one model, not {len(settings.encoding.model)}")
    study_of = settings.group.target
    if len(study_of) != 1:
        raise NeurostormError(f"probe takes one target, not {len(study_of)}")
    dataset = find_selected(settings.bids_dir, settings.selection)
    study = Study(dataset, read_phenotype(dataset, settings.group.phenotype), settings.encoding.model[0], settings)
    study.refuse_seen()
    return ProbeResult(probe_of(study, study_of[0]), study.cohort.label)


def _people(out_dir: Path, bids_dir: str | Path | None, phenotype: Path | None) -> pd.DataFrame | None:
    """Return the phenotype; `None` if there is no data set to take it from."""
    if bids_dir is not None:
        return read_phenotype(find_dataset(Path(bids_dir).expanduser().resolve()), phenotype).table
    if phenotype is not None:
        return read_people(phenotype)
    try:  # nobody asked for it: what is wrong with it is told, and costs nothing
        dataset = _source_of(out_dir)
        return None if dataset is None else read_phenotype(dataset, None).table
    except NeurostormError as error:
        LOG.warning("%s: results without phenotype: %s", out_dir, error)
        return None


def _source_of(out_dir: Path) -> Dataset | None:
    """Return the data set that an output folder names as its source; `None` if it names several, or it is not there any more."""
    description = read_json(out_dir / "dataset_description.json")
    raw = next(iter(described_sources(out_dir, {"DatasetLinks": description.get("DatasetLinks")})), None)
    sources = set(described_sources(out_dir, {"SourceDatasets": description.get("SourceDatasets")})) - {raw}
    if len(sources) != 1 or not (source := sources.pop()).is_dir():
        return None
    dataset = find_dataset(source)
    return replace(dataset, raw=raw, raw_is="found") if dataset.raw is None and raw and raw.is_dir() else dataset


def _only_label(out_dir: Path) -> str:
    """Return the label of the only model with results."""
    labels = labels_in(out_dir)
    if len(labels) != 1:
        there = f"of several models ({', '.join(labels)}); say which" if labels else "of no model"
        raise NeurostormError(f"{out_dir} holds results {there}")
    return labels[0]

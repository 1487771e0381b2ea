"""Names of output files, all relative to the output folder unless said otherwise."""

from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.find.run import Run
from neurostorm_bids.resample.grid import Grid

TRAINING_FOLDER = "neurostorm-training"  # of checkpoints, in the work folder
BEGUN = "begun.json"  # in the folder of a training, once it has begun
GRIDDED = "neurostorm-grids"  # folder of the int8 stores in the work folder
LOGS = "logs"


@dataclass(frozen=True)
class RunOutputs:
    """The tables of one run and one model.

    Attributes
    ----------
    run : Run
    space : str
        The grid's template.
    label : str
        The model's.
    """

    run: Run
    space: str
    label: str

    def _file(self, suffix: str) -> Path:
        return self.run.folder / f"{self.run.name}_space-{self.space}_desc-{self.label}_{suffix}"

    @property
    def embeddings(self) -> Path:
        """One row per window."""
        return self._file("embeddings.tsv")

    @property
    def data_fit(self) -> Path:
        """How the run compares with the data of the model."""
        return self._file("datafit.json")

    def part(self, level: str, stage: int) -> Path:
        """More of each window than one vector: ``level`` is frame or token."""
        return self.run.folder / f"{self.run.name}_space-{self.space}_desc-{self.label}_stage-{stage}_{level}s.npz"

    @property
    def predictions(self) -> Path:
        """One row."""
        return self._file("predictions.tsv")


def attribution_to(baseline: str) -> str:
    """Return the value of ``stat-`` of a map that compares a run with a baseline.

    >>> attribution_to("own-mean")
    'attributionOwnMean'
    """
    return "attribution" + "".join(word.capitalize() for word in baseline.split("-"))


@dataclass(frozen=True)
class AttributionOutputs:
    """Where in the brain a prediction of one run and one model comes from.

    Attributes
    ----------
    run : Run
    space : str
        The grid's template.
    label : str
        The model's.
    baseline : str
        What the run is compared with.
    atlas : str
        Of the parcels.
    """

    run: Run
    space: str
    label: str
    baseline: str
    atlas: str

    def _file(self, seg: str, ending: str) -> Path:
        stat = attribution_to(self.baseline)
        return self.run.folder / f"{self.run.name}_space-{self.space}{seg}_desc-{self.label}_stat-{stat}_{ending}"

    @property
    def map(self) -> Path:
        """One value for each voxel of the grid."""
        return self._file("", "statmap.nii.gz")

    @property
    def parcels(self) -> Path:
        """One row for each parcel."""
        return self._file(f"_seg-{self.atlas}", "statmap.tsv")

    @property
    def course(self) -> Path:
        """One row for each frame of a window."""
        return self._file(f"_seg-{self.atlas}", "timeseries.tsv")


def map_beside(embeddings: Path, baseline: str, ending: str) -> Path:
    """Return the map, or its sidecar, beside a table of embeddings or its sidecar.

    >>> map_beside(Path("sub-1_desc-sex_embeddings.json"), "own-mean", ".nii.gz").name
    'sub-1_desc-sex_stat-attributionOwnMean_statmap.nii.gz'
    """
    stem = embeddings.name.rpartition("_embeddings.")[0]
    return embeddings.with_name(f"{stem}_stat-{attribution_to(baseline)}_statmap{ending}")


def tokens_beside(embeddings: Path, stage: int | None = None) -> list[Path]:
    """Return the tokens beside a table of embeddings, of one stage or of all that are there, the last one first."""
    stem = embeddings.name.rpartition("_embeddings.")[0]
    return sorted(embeddings.parent.glob(f"{stem}_stage-{'?' if stage is None else stage}_tokens.npz"), reverse=True)


def data_fit_beside(embeddings: Path) -> Path:
    """Return how a run compares with the data of a model, beside a table of embeddings or its sidecar."""
    return embeddings.with_name(f"{embeddings.name.rpartition('_embeddings.')[0]}_datafit.json")


def parcels_beside(sidecar: Path, atlas: str) -> Path:
    """Return the table of parcels beside a map's sidecar."""
    return sidecar.with_name(sidecar.name.replace("_desc-", f"_seg-{atlas}_desc-").replace(".json", ".tsv"))


@dataclass(frozen=True)
class ParcelOutputs:
    """The series of an atlas' parcels in one run, and what follows from them.

    Attributes
    ----------
    run : Run
    space : str
        The grid's template.
    atlas : str
    """

    run: Run
    space: str
    atlas: str

    def _file(self, stat: str, suffix: str) -> Path:
        return self.run.folder / f"{self.run.name}_space-{self.space}_seg-{self.atlas}_stat-{stat}_{suffix}.tsv"

    @property
    def series(self) -> Path:
        """One row for each frame, one column for each parcel."""
        return self._file("mean", "timeseries")

    @property
    def connectome(self) -> Path:
        """Correlations, one row and one column for each parcel."""
        return self._file("pearsoncorrelation", "relmat")

    @property
    def coverage(self) -> Path:
        """How much of each parcel is in the run's brain."""
        return self._file("coverage", "bold")


@dataclass(frozen=True)
class FigureOutputs:
    """The figures of one run.

    Attributes
    ----------
    run : Run
    space : str
        The grid's template.
    """

    run: Run
    space: str

    def _file(self, desc: str) -> Path:
        return figure_folder(self.run.subject) / f"{self.run.name}_space-{self.space}_desc-{desc}_bold.png"

    @property
    def alignment(self) -> Path:
        """The mean of the gridded run over the template."""
        return self._file("alignment")

    @property
    def outside(self) -> Path:
        """What lies outside the grid."""
        return self._file("outside")

    @property
    def fieldmap(self) -> Path:
        """What the correction of distortion changes."""
        return self._file("fieldmap")

    def attribution(self, label: str, baseline: str) -> Path:
        """Where in the brain a model's prediction comes from."""
        stat = attribution_to(baseline)
        return self._file(f"{label}{stat[0].upper()}{stat[1:]}")

    def carpet(self, label: str) -> Path:
        """Signal and head motion, with the windows of a model."""
        return self._file(f"{label}Carpet")

    def trajectory(self, label: str) -> Path:
        """How the embedding of a model changes over the run."""
        return self._file(f"{label}Trajectory")


@dataclass(frozen=True)
class GriddedOutputs:
    """The files of one gridded run.

    Attributes
    ----------
    run : Run
    grid : Grid
    """

    run: Run
    grid: Grid

    @property
    def _stem(self) -> str:
        label = "".join(part.title() if i else part for i, part in enumerate(self.grid.name.split("-")))
        return f"{self.run.name}_space-{self.grid.template}_res-2_desc-{label}_bold"

    @property
    def nifti(self) -> Path:
        """The run as the model sees it."""
        return self.run.folder / f"{self._stem}.nii.gz"

    @property
    def int8(self) -> Path:
        """The store that training reads, relative to the work folder."""
        return Path(GRIDDED) / self.run.folder / f"{self._stem}.npy"


def figure_folder(subject: str) -> Path:
    """Return the folder of a subject's figures."""
    return Path(f"sub-{subject}") / "figures"


def subject_embeddings(subject: str, space: str, label: str) -> Path:
    """Return the subject's table, one row per run."""
    return Path(f"sub-{subject}") / f"sub-{subject}_space-{space}_desc-{label}_embeddings.tsv"


def sidecar_of(table: Path) -> Path:
    """Return the JSON beside a file."""
    return table.with_name(table.name.removesuffix(".gz").rsplit(".", 1)[0] + ".json")


def run_tables(subject_folder: Path, pattern: str) -> list[Path]:
    """Return the files of a subject's runs whose names match a pattern, sorted.

    Parameters
    ----------
    subject_folder : Path
        OUT_DIR/sub-X.
    pattern : str
        Such as ``*_embeddings.json``.
    """
    return sorted([*subject_folder.glob(f"func/{pattern}"), *subject_folder.glob(f"ses-*/func/{pattern}")])


def folders_of(out_dir: Path, run: Run | None = None, subject: str | None = None) -> tuple[Path, ...]:
    """Return the folders of an output folder that are written to for a run, for a subject, or for neither."""
    if run is None and subject is None:
        return out_dir / LOGS, out_dir / ".locks"
    home = out_dir / f"sub-{run.subject if run else subject}"
    folders = (home, home / "figures", home / "log")
    return folders if run is None else (*folders, out_dir / run.folder.parent, out_dir / run.folder)

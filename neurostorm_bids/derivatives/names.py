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
    def predictions(self) -> Path:
        """One row."""
        return self._file("predictions.tsv")


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

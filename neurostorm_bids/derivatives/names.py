"""Names of our output files."""

from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.find.runs import Run
from neurostorm_bids.resample.grid import Grid


@dataclass(frozen=True)
class RunOutputs:
    """The files of one run and one model, relative to the output folder."""

    run: Run
    space: str
    label: str  # of the model

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
    """The figures of one run, relative to the output folder."""

    run: Run
    space: str

    def _file(self, desc: str) -> Path:
        return Path(f"sub-{self.run.subject}") / "figures" / f"{self.run.name}_space-{self.space}_desc-{desc}_bold.png"

    @property
    def mosaic(self) -> Path:
        """The placed mean and the template."""
        return self._file("placed")

    @property
    def crop(self) -> Path:
        """What lies beyond the grid."""
        return self._file("beyond")

    def carpet(self, label: str) -> Path:
        """Signal and head motion, with a model's windows."""
        return self._file(f"{label}Carpet")

    def course(self, label: str) -> Path:
        """How a model's embedding moves."""
        return self._file(f"{label}Course")


def crash_file(run: str) -> str:
    """Name of the account of a run's failure."""
    return f"crash-{run}.txt"


GRIDS = "neurostorm-grids"  # folder of the int8 stores in the work folder


@dataclass(frozen=True)
class GridOutputs:
    """The files of one placed run."""

    run: Run
    grid: Grid

    @property
    def _stem(self) -> str:
        label = "".join(part.title() if i else part for i, part in enumerate(self.grid.name.split("-")))
        return f"{self.run.name}_space-{self.grid.template}_res-2_desc-{label}_bold"

    @property
    def nifti(self) -> Path:
        """Relative to the output folder."""
        return self.run.folder / f"{self._stem}.nii.gz"

    @property
    def int8(self) -> Path:
        """Relative to the work folder."""
        return Path(GRIDS) / self.run.folder / f"{self._stem}.npy"


def subject_embeddings(subject: str, space: str, label: str) -> Path:
    """The subject's table, one row per run, relative to the output folder."""
    return Path(f"sub-{subject}") / f"sub-{subject}_space-{space}_desc-{label}_embeddings.tsv"


def sidecar_of(table: Path) -> Path:
    """The JSON beside a file."""
    return table.with_name(table.name.removesuffix(".gz").rsplit(".", 1)[0] + ".json")

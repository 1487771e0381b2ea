"""Names of our output files."""

from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.find.runs import Run


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


def subject_embeddings(subject: str, space: str, label: str) -> Path:
    """The subject's table, one row per run, relative to the output folder."""
    return Path(f"sub-{subject}") / f"sub-{subject}_space-{space}_desc-{label}_embeddings.tsv"


def sidecar_of(table: Path) -> Path:
    """The JSON beside a table."""
    return table.with_suffix(".json")

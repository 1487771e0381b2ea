"""An output folder as the participant level leaves it, with embeddings that a test makes up."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

N_CHANNELS = 12


@dataclass
class Fabricated:
    """A data set and an output folder with results.

    Attributes
    ----------
    data, out : Path
    """

    data: Path
    out: Path

    @classmethod
    def at(cls, folder: Path) -> "Fabricated":
        """Make an empty pair of folders."""
        data, out = folder / "fmriprep", folder / "out"
        for path, name in ((data, "fMRIPrep"), (out, "NeuroSTORM")):
            path.mkdir(parents=True, exist_ok=True)
            about = {
                "Name": "made up",
                "BIDSVersion": "1.10.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": name}],
            }
            (path / "dataset_description.json").write_text(json.dumps(about))
        return cls(data, out)

    def run(self, name: str, embedding: np.ndarray, fd: float = 0.2, label: str = "base", **sidecar: object) -> Path:
        """Write the table of a run's windows, two of them about an embedding; returns its path."""
        entities = dict(part.split("-", 1) for part in name.split("_"))
        session = f"ses-{entities['ses']}" if "ses" in entities else ""
        folder = self.out / f"sub-{entities['sub']}" / session / "func"
        folder.mkdir(parents=True, exist_ok=True)
        (self.data / f"sub-{entities['sub']}" / session / "func").mkdir(parents=True, exist_ok=True)
        stem = folder / f"{name}_space-MNI152NLin6Asym_res-2_desc-{label}"
        channels = [f"channel{i:03d}" for i in range(len(embedding))]
        windows = pd.DataFrame(np.stack([embedding - 0.5, embedding + 0.5]), columns=channels)
        windows.insert(0, "window", [1, 2])
        windows.to_csv(f"{stem}_embeddings.tsv", sep="\t", index=False)
        about = {
            "SettingsHash": "abc",
            "Windows": {"Count": 2},
            "FramewiseDisplacement": {"Mean": fd, "Max": 3 * fd},
            **{key: {} for key in channels},
            **sidecar,
        }
        Path(f"{stem}_embeddings.json").write_text(json.dumps(about))
        return stem

    def prediction(self, stem: Path, target: str, value: object, **probabilities: float) -> None:
        """Write what a head predicts of a run."""
        row = {"target": target, "value": value, **{f"probability_{k}": v for k, v in probabilities.items()}}
        pd.DataFrame([row]).to_csv(f"{stem}_predictions.tsv", sep="\t", index=False)

    def phenotype(self, rows: pd.DataFrame, **levels: dict[str, str]) -> None:
        """Write participants.tsv and its sidecar."""
        rows.to_csv(self.data / "participants.tsv", sep="\t", index=False, na_rep="n/a")
        (self.data / "participants.json").write_text(json.dumps({k: {"Levels": v} for k, v in levels.items()}))

    def results(self, name: str) -> pd.DataFrame:
        """Read a table of the group level."""
        return pd.read_csv(self.out / name, sep="\t", na_values=["n/a"], keep_default_na=False)

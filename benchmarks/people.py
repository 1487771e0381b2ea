"""Does the contrastive objective learn to tell people apart? Phantoms of people, a third of them held out; about 10 minutes.

Phantoms differ in anatomy, in where their networks are and in how these go together; each drifts in its own way in every run.
"""

import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.measure import print_table
from neurostorm_bids.demo.cohort import write_people
from neurostorm_bids.derivatives.names import TRAINING_FOLDER
from neurostorm_bids.group.level import group_level
from neurostorm_bids.runtime.json_files import read_json
from neurostorm_bids.settings import WORK, Settings

N_PEOPLE, N_VOLUMES = 120, 100
TRAINING = {
    "start_from": "demo",
    "objective": "contrastive",
    "contrast": "instance",
    "batch_size": 12,
    "learning_rate": 1e-3,
    "steps": 100,
    "validate_every": 50,
    "held_out": 0.34,
    "validation_windows": 160,
    "augmentation": "none",
}


def run() -> None:
    """Train, and print how often the window nearest to a window is of the same person."""
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "phantoms", Path(folder) / "out"
        write_people(data, N_PEOPLE, N_VOLUMES)
        settings = Settings.of(data, out, "group", group_task="pretrain", save_as="people", **TRAINING)
        assert group_level(settings) == 0
        history = pd.read_csv(out / WORK / TRAINING_FOLDER / "people" / "history.tsv", sep="\t")
        random = read_json(next(out.glob("group_desc-people_pretrain*.json")))["RandomWeights"]
    looks = [("random weights", random), *((f"after {int(row['step'])} steps", row) for _, row in history.iterrows())]
    rows = [
        (
            name,
            *(
                f"{100 * float('nan' if row[key] is None else row[key]):.0f} %"
                for key in ("rank1", "rank1_low", "rank1_high")
            ),
            f"{row['effective_rank']:.1f}",
        )
        for name, row in looks
    ]
    print_table(
        "Windows of 41 phantoms that were not trained on: the nearest one is of the same phantom",
        ("", "Rank-1", "95 % from", "to", "effective rank"),
        rows,
    )

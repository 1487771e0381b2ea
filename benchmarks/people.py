"""Do the two objectives together learn to reconstruct, and to tell people apart? Phantoms of people, a third of them held out; ten minutes.

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
FIRST = 200  # the demo model was trained on phantoms of smaller numbers
TRAINING = {
    "start_from": "demo",
    "objective": "mae+contrastive",
    "contrast": "instance",
    "contrastive_weight": 0.05,
    "batch_size": 12,
    "learning_rate": 1e-3,
    "steps": 75,
    "validate_every": 25,
    "held_out": 0.34,
    "validation_windows": 160,
    "augmentation": "none",
}
SKILLS = ("validation_skill_over_mean_image", "validation_skill_over_time")


def run() -> None:
    """Train, and print how well hidden patches are reconstructed, and how often the window nearest to a window is of the same person."""
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "phantoms", Path(folder) / "out"
        write_people(data, N_PEOPLE, N_VOLUMES, first=FIRST)
        settings = Settings.of(data, out, "group", group_task="pretrain", save_as="people", **TRAINING)
        group_level(settings)  # status 1 where a phantom looks scaled voxel by voxel, and is left out
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
            *(f"{row[key]:.2f}" if key in row else "" for key in SKILLS),
        )
        for name, row in looks
    ]
    print_table(
        "Windows of 41 phantoms that were not trained on: the nearest one is of the same phantom",
        ("", "Rank-1", "95 % from", "to", "effective rank", "skill over the mean image", "over a line in time"),
        rows,
    )
    print(f"\n{history['seconds'].sum() / 60:.1f} minutes, looks at people who are held out included")

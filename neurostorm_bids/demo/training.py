"""``python -m neurostorm_bids.demo.training FOLDER``: train the demo model on phantoms, and put it into the package.

Everything is made anew, with the commands that a lab has: phantoms of many people, laid out as fMRIPrep does; a small network
pretrained on them; a head on it that tells whether two networks go together. The same seeds give the same data, and the same
weights on the same machine.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from neurostorm_bids.demo.cohort import write_people
from neurostorm_bids.derivatives.models import MODELS
from neurostorm_bids.derivatives.names import BEGUN, TRAINING_FOLDER
from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.model.checkpoint import Checkpoint, read_checkpoint, write_safetensors
from neurostorm_bids.model.load import read_whole
from neurostorm_bids.model.registry import DEMO_CARD, DEMO_FILE
from neurostorm_bids.runtime.atomic import replacing, write_text
from neurostorm_bids.settings import WORK, Settings

N_PEOPLE, N_VOLUMES = 80, 100
PARTS = ("train",) * 6 + ("validation",) * 2 + ("test",) * 2  # of every ten people, for the head
PRETRAINING: dict[str, Any] = {
    "size": ("narrow", "img_size=48"),
    "batch_size": 4,
    "learning_rate": 4e-3,
    "steps": 800,
    "validate_every": 80,
    "held_out": 0.25,
    "validation_windows": 40,
    "augmentation": "none",
    "ema": 0.99,
}
HEAD: dict[str, Any] = {"target": ("coupling",), "tuning": "linear", "epochs": 60, "allow_seen": True}
NOT_KEPT = ("backbone", "tuning", "gridding")  # of what the file of a tuned model says


def train(folder: Path) -> Path:
    """Pretrain the network and train its head; returns the folder of the outputs."""
    from neurostorm_bids.group.level import group_level

    data, out = folder / "phantoms", folder / "neurostorm"
    rows = [f"sub-{i:03d}\t{PARTS[i // 2 % len(PARTS)]}" for i in range(N_PEOPLE)]
    write_text(folder / "split.tsv", "\n".join(["participant_id\tsplit", *rows, ""]))
    begun = (out / WORK / TRAINING_FOLDER / "demo" / BEGUN).exists()
    once = {"resume": True} if begun else {"force": True}
    on_it = {"model": (str(out / MODELS / "demo"),), "split": folder / "split.tsv", "force": True}
    for task, name, values in (("pretrain", "demo", PRETRAINING | once), ("finetune", "head", HEAD | on_it)):
        status = group_level(Settings.of(data, out, "group", group_task=task, save_as=name, **values))
        if status:
            sys.exit(status)
    return out


def put_into_package(out: Path, file: Path = DEMO_FILE, card: Path = DEMO_CARD) -> None:
    """Write the weights, in half precision, and the card.

    Parameters
    ----------
    out : Path
        Where the models are.
    """
    whole = read_whole(out / MODELS / "head")[0]
    pretrained = read_checkpoint(out / MODELS / "demo" / "model.safetensors").tensors
    kept = {name: w for name, w in pretrained.items() if name.startswith("model.")} | whole.tensors
    about = {name: value for name, value in whole.hyper_parameters.items() if name not in NOT_KEPT}
    with replacing(file) as temporary:
        half = {name: tensor.to(torch.float16) for name, tensor in kept.items()}
        write_safetensors(Checkpoint(file, half, about), temporary)
    of_head = read_table(out / "group_desc-head_finetune_metrics.tsv")
    text = (out / MODELS / "demo" / "README.md").read_text(encoding="utf-8")
    note = (
        "**A very small model trained on phantoms: for demonstration.** It has seen nobody's data, and what it says of people "
        "means nothing. `make demo-model` makes it anew.\n"
    )
    first, _, rest = text.replace(f"OUT_DIR/{MODELS}/demo", "demo").partition("\n\n")
    head = [
        "## Its head",
        "Tells whether the default and the frontoparietal network of a phantom go together or against each other (linear, "
        "trained on 60 % of the phantoms). On those that the head has not seen, though the encoder has seen most of them:",
        "\n".join(f"- {row['metric']}: {row['value']:.2f}" for _, row in of_head.iterrows()),
    ]
    write_text(card, "\n\n".join([first, note.strip(), rest.strip(), *head, ""]))


def main() -> None:
    """Make the demo model in a folder, and put it into the package."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-model").resolve()
    write_people(folder / "phantoms", N_PEOPLE, N_VOLUMES)
    put_into_package(train(folder))
    print(f"{DEMO_FILE}: {DEMO_FILE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

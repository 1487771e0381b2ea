"""The options of pretraining."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from neurostorm_bids.runtime.options import option


@dataclass(frozen=True)
class Pretraining:
    """How a model learns without labels."""

    title: ClassVar[str] = "Pretraining"

    start_from: str | None = option(
        None,
        "Model to go on from: a name, a file or a folder; its decoder too, where it has one.",
        shown_default="nothing: from the beginning",
        flags=("--from",),
        metavar="NAME|FILE",
    )
    size: tuple[str, ...] = option(
        ("base",),
        "Of a network from the beginning: base, large, or NAME=VALUE of embed_dim, depths (2,2,6,2), sequence_length, img_size.",
        metavar="SIZE|NAME=VALUE...",
    )
    objective: str = option(
        "mae",
        "mae: hidden tokens are reconstructed; contrastive: clips of a run are told from others; or both.",
        choices=("mae", "contrastive", "mae+contrastive"),
    )
    contrast: str = option(
        "both",
        "instance: runs from other runs; local: times of a run from each other.",
        choices=("instance", "local", "both"),
    )
    contrastive_weight: float = option(1.0, "Of the contrastive loss beside that of the reconstruction.", least=0.0)
    hidden: str = option(
        "window",
        "What is hidden as a whole. random: single tokens; window: 4-D windows; window-tube, token-tube: the same places in all "
        "frames, or in as many as a window has; atlas: regions of a --parcellation.",
        choices=("random", "window", "window-tube", "token-tube", "atlas"),
    )
    parcellation: Path | None = option(
        None, "Image of labels in the space of the model's grid, for --hidden atlas.", must_exist=True, metavar="FILE"
    )
    mask_ratio: float = option(0.5, "Share that is hidden.", least=0.0, above=True, most=0.99)
    redundancy_dropout: bool = option(False, "Drop tokens at random that their neighbours could stand for (STRD).")

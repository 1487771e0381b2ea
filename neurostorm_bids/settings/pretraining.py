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
        (),
        "Of a network from the beginning: base, large, or NAME=VALUE of embed_dim, depths (2,2,6,2), sequence_length, img_size.",
        shown_default="base; with --from, that of the model",
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
    pretrain_on: tuple[Path, ...] = option(
        (),
        "Other data sets to train on too: output folders of fMRIPrep, or work folders with runs that --save-grid kept.",
        metavar="DIR...",
    )
    mixing: float = option(
        1.0,
        "Of several data sets, each is seen in proportion to its number of windows to this power. 1: every window once, as "
        "published; 0: all data sets the same.",
        least=0.0,
        most=1.0,
    )
    steps: int | None = option(
        None,
        "Steps in all; a few more, where stretches of --validate-every do not fit.",
        shown_default="--epochs passes over all windows",
        least=1,
        most=10**9,
    )
    validate_every: int | None = option(
        None,
        "Steps, at most, after which it is looked at whether held-out people are reconstructed better.",
        shown_default="a pass over all windows, at most 1,000 steps",
        least=1,
        most=10**9,
    )
    held_out: float = option(
        0.1,
        "Share of the people of each data set who are not trained on, but looked at.",
        least=0.0,
        above=True,
        most=0.9,
    )
    validation_windows: int = option(
        512, "Windows of held-out people to look at, two or more of each.", least=2, most=10**6
    )
    effective_batch: int | None = option(
        None, "Windows in a step of all processes; --accumulate follows from it.", least=1, most=10**7
    )
    ema: float = option(
        0.0,
        "Keep the moving average of the weights, of which a step leaves this share, such as 0.999.",
        least=0.0,
        most=0.99999,
    )
    activation_checkpointing: str = option(
        "auto",
        "Compute blocks again for their gradients instead of keeping them: about half the memory, a quarter slower. auto: on a CPU, "
        "where they would take more than 2 GB.",
        choices=("auto", "on", "off"),
    )
    cache_gb: float | None = option(
        None,
        "Copy runs to this machine's own disk as they are read, up to this size.",
        least=0.0,
        above=True,
        metavar="GB",
    )
    cache_dir: Path | None = option(None, "Where to.", shown_default="the folder for temporary files", metavar="DIR")
    redundancy_dropout: bool = option(False, "Drop tokens at random that their neighbours could stand for (STRD).")

"""The options of the group level."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from neurostorm_bids.runtime.options import option


@dataclass(frozen=True)
class GroupAnalysis:
    """What the group level does."""

    title: ClassVar[str] = "Group level"

    group_task: str = option(
        "collect",
        "What to do; see below.",
        choices="neurostorm_bids.group.task:task_names",
    )
    phenotype: Path | None = option(
        None,
        "Table (.tsv or .csv) with participant_id.",
        shown_default="participants.tsv, sessions.tsv",
        must_exist=True,
    )
    target: str | None = option(None, "What to predict: a column of that table.", metavar="COLUMN")
    target_type: str = option(
        "auto",
        "auto: text, and numbers with two values, are classes.",
        choices=("auto", "regression", "classification"),
    )
    group_by: str | None = option(
        None,
        "Column whose groups (families, sites) stay on one side of every fold.",
        metavar="COLUMN",
        shown_default="subjects",
    )
    covariates: tuple[str, ...] = option(
        (), "Regressed out of the features, inside the training folds.", metavar="COLUMN..."
    )
    exchange: str = option(
        "auto",
        "What permutations keep. between: whole subjects (or groups) of the same size change places; within: subjects of a "
        "group, or the sessions of a subject, do; auto: subjects between, families both, sites within.",
        choices=("auto", "within", "between"),
    )
    n_permutations: int = option(200, "Permutations of the labels, for the p-value.", least=0, most=100000)


@dataclass(frozen=True)
class Training:
    """How a model is fine-tuned."""

    title: ClassVar[str] = "Fine-tuning"

    tuning: str = option(
        "linear",
        "What is trained beside a new head; the README explains each.",
        choices=("linear", "prompt", "layernorm", "prompt-layernorm", "lora", "full"),
    )
    save_as: str | None = option(
        None,
        "Name in OUT_DIR/models.",
        shown_default="model-target-tuning",
        metavar="NAME",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
        pattern_help="a name of at most 100 letters, digits, '-', '_' and '.'",
    )
    split: Path | None = option(
        None,
        "Table with participant_id and split (train, validation, test).",
        shown_default="cross-validation",
        must_exist=True,
    )
    epochs: int = option(30, "Epochs at most.", least=1, most=10**6)
    patience: int = option(
        5,
        "Epochs without a smaller loss on the validation subjects after which training stops. They count from half of "
        "--epochs on: before, the learning rate is still high, and has yet to fall.",
        least=1,
    )
    windows_per_sample: int | None = option(
        None,
        "Windows that are drawn of each subject (or session, where it has a value of its own) in an epoch, so that each "
        "counts the same, however long its runs are.",
        shown_default="what the median one has, at most 8",
        least=1,
        most=10**6,
    )
    accumulate: int = option(
        1, "Batches in a step: the same as a larger --batch-size, in less memory.", least=1, most=10**6
    )
    learning_rate: float | None = option(
        None,
        "Largest learning rate of what is trained beside the head (of the head with linear); taken as it is. The default "
        "grows with the square root of the windows in a step. Published: full with 5e-5, constant, 8 windows a step.",
        shown_default="1e-2 to 1e-4, by what is trained",
        least=0.0,
        above=True,
    )
    prompt_length: int = option(50, "Tokens before every window.", least=1, most=4096)
    lora_rank: int = option(8, "Rank of the low-rank additions.", least=1, most=4096)
    lora_alpha: float | None = option(
        None,
        "The low-rank additions are multiplied with this over --lora-rank.",
        shown_default="the rank",
        least=0.0,
        most=1e6,
        above=True,
    )
    no_augmentation: bool = option(False, "Do not rotate, scale, smooth and add noise to the training windows.")
    devices: int = option(1, "GPUs, or processes on CPUs, that train together on a node.", least=1)
    nodes: int = option(1, "Nodes that train together (srun, torchrun).", least=1)
    resume: bool = option(False, "Go on with a training that was stopped.")

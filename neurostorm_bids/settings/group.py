"""The options of the group level."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from neurostorm_bids.runtime.options import option

WITH_TARGET = ("probe", "decode", "finetune", "associations", "evaluate", "normative")  # tasks that predict something


@dataclass(frozen=True)
class GroupAnalysis:
    """What the group level does."""

    title: ClassVar[str] = "Group level"

    group_task: str = option(
        "collect",
        "What to do; see below.",
        choices="neurostorm_bids.group.task:task_names",
        metavar="TASK",
    )
    phenotype: Path | None = option(
        None,
        "Table (.tsv or .csv) with participant_id.",
        shown_default="participants.tsv, sessions.tsv",
        must_exist=True,
    )
    target: tuple[str, ...] = option(
        (),
        "What to predict: columns of that table.",
        metavar="COLUMN...",
        tasks=(*WITH_TARGET, "pretrain", "attribution"),
    )
    target_type: str = option(
        "auto",
        "auto: text, and numbers with two values, are classes.",
        choices=("auto", "regression", "classification"),
        tasks=(*WITH_TARGET, "pretrain", "attribution"),
    )
    group_by: str | None = option(
        None,
        "Column whose groups (families, sites) stay on one side of every fold.",
        metavar="COLUMN",
        shown_default="subjects",
        tasks=(*WITH_TARGET, "attribution"),
    )
    covariates: tuple[str, ...] = option(
        (),
        "What is known already: the question is what the embedding adds. Learnt in the training folds; as a line, or as "
        "COLUMN:spline, :log, :categorical.",
        metavar="COLUMN...",
        tasks=("probe", "normative", "associations"),
    )
    samples: str = option(
        "auto",
        "What has one label: subject (the mean over its runs) or session. auto: sessions where the label differs between "
        "them.",
        choices=("auto", "subject", "session"),
        tasks=(*WITH_TARGET, "attribution"),
    )
    leave_out: str | None = option(
        None,
        "Column (of sites) whose values are left out in turn: each is tested on a model of the others.",
        metavar="COLUMN",
        tasks=("probe",),
    )
    harmonise: str | None = option(
        None,
        "Column of sites whose shift and scale ComBat takes out of the embedding, as learnt in the training folds; what "
        "the covariates explain is kept.",
        metavar="COLUMN",
        tasks=("probe",),
    )
    pooling: str = option(
        "mean",
        "attention: beside the mean over all places, also predict from the tokens of each (--embedding-level token), those places counting more "
        "that do so better in inner folds.",
        choices=("mean", "attention"),
        tasks=("probe",),
    )
    cv_repeats: int | None = option(
        None,
        "How often the folds are drawn anew.",
        shown_default="10; 3 above 1,000 and 1 above 10,000 samples",
        least=1,
        most=1000,
        tasks=("probe", "associations"),
    )
    delta: bool = option(
        False,
        "Of each person, the predicted minus the true value, corrected for the mean that predictions fall back to (brain "
        "age).",
        tasks=("probe",),
    )
    reference_group: str | None = option(
        None,
        "Whom people are compared with in --group-task normative: those with this value, such as group=control.",
        metavar="COLUMN=VALUE",
        shown_default="everybody else",
        tasks=("normative",),
    )
    allow_seen: bool = option(
        False,
        "Use people that the model was trained on all the same.",
        tasks=("probe", "evaluate", "finetune", "attribution"),
    )
    exchange: str = option(
        "auto",
        "What permutations keep. between: whole subjects (or groups) of the same size change places; within: subjects of a "
        "group, or the sessions of a subject, do; auto: subjects between, families both, sites within.",
        choices=("auto", "within", "between"),
        tasks=("probe", "finetune", "evaluate", "associations", "attribution"),
    )
    attribution_voxels: bool = option(
        False, "Test voxels of maps too, not parcels alone; minutes for many people.", tasks=("attribution",)
    )
    n_permutations: int = option(
        200,
        "Permutations of the labels (of attribution: flips of signs), for the p-value.",
        least=0,
        most=100000,
        tasks=("probe", "finetune", "evaluate", "associations", "attribution"),
    )


@dataclass(frozen=True)
class Training:
    """How a model is fine-tuned."""

    title: ClassVar[str] = "Fine-tuning"

    tuning: str = option(
        "linear",
        "What is trained beside a new head; docs/howto/finetuning.md explains each.",
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
    augmentation: str = option(
        "published",
        "How training windows are disturbed. published: rotated, scaled, one noise image for all frames, smoothed, as in the "
        "published pretraining; per-frame: noise of its own in every frame; none.",
        choices=("published", "per-frame", "none"),
    )
    devices: int = option(1, "GPUs, or processes on CPUs, that train together on a node.", least=1)
    nodes: int = option(1, "Nodes that train together (srun, torchrun).", least=1)
    resume: bool = option(False, "Go on with a training that was stopped, from its last step that was saved.")
    checkpoint_minutes: float = option(
        30.0, "Time between saved steps, beside those at the end of epochs.", least=0.0, above=True
    )
    max_hours: float | None = option(
        None,
        "Save and stop after this time, with exit status 75; --resume goes on. So it does on SIGUSR1, with which Slurm warns.",
        least=0.0,
        above=True,
    )
    logger: str = option(
        "none",
        "Write every step's numbers beside the checkpoints, as a table (csv) or for TensorBoard, if it is installed.",
        choices=("none", "csv", "tensorboard"),
    )

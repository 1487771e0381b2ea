"""The options of a participant-level call: which runs, which models, how each step is done."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from neurostorm_bids.runtime.options import option
from neurostorm_bids.runtime.process import processors

LARGEST_SEED = 2**31 - 1  # SimpleITK and scikit-learn take no larger ones
FSL_SPACE, FMRIPREP_SPACE = STANDARD_SPACES = ("MNI152NLin6Asym", "MNI152NLin2009cAsym")
OF_MODEL = ("denoise", "interpolation", "target_tr")  # options that a fine-tuned model brings with it
BOLD_SPACE = "bold"  # the BOLD series' own space, whose files have no space- entity
RAW_SPACE = "raw"  # the raw series, to which transforms lead


@dataclass(frozen=True)
class Selection:
    """Which runs; labels have no prefix (``01``, not ``sub-01``), and empty means all."""

    title: ClassVar[str] = "Which runs"

    participant_label: tuple[str, ...] = option(
        (),
        "Subjects, with or without sub-; @FILE, or a .tsv with participant_id, for a list.",
        prefix="sub-",
        column="participant_id",
        metavar="LABEL...",
    )
    session_label: tuple[str, ...] = option(
        (), "Sessions, with or without ses-.", prefix="ses-", metavar="LABEL...", flags=("--session-id",), changes="run"
    )
    task_id: tuple[str, ...] = option(
        (), "Tasks, with or without task-.", prefix="task-", metavar="LABEL...", flags=("-t",), changes="run"
    )
    run_label: tuple[str, ...] = option(
        (), "Runs, with or without run-; 1 and 01 are the same.", prefix="run-", metavar="LABEL...", changes="run"
    )
    bids_filter_file: Path | None = option(
        None,
        'JSON file with pybids entities for {"bold": {...}}; null: the entity is absent, "*": it has any value.',
        must_exist=True,
    )
    derivatives: tuple[tuple[str, Path], ...] = option(
        (),
        "Where the preprocessed data are, if not in BIDS_DIR: fmriprep=PATH (or nibabies, hcp, ukb); raw=PATH: the raw data "
        "set, for what fMRIPrep --level minimal left.",
        flags=("-d",),
        metavar="NAME=PATH",
        changes="run",
    )
    input_type: str = option(
        "auto",
        "What wrote the data. hcp: the HCP pipelines (<subject>/MNINonLinear/Results); ukb: UK Biobank's bulk fields 20227 "
        "and 20249, unpacked; auto: told from what is there.",
        choices=("auto", "fmriprep", "nibabies", "hcp", "ukb"),
        changes="run",
    )
    series: str | None = option(
        None,
        "Series of hcp and ukb. preproc: before denoising; clean: ICA-FIX denoised.",
        choices=("preproc", "clean"),
        shown_default="preproc; for the resting state of ukb clean",
        changes="run",
    )
    exclude: Path | None = option(
        None,
        "Table (.tsv or .csv) of who takes no part: run_name, or participant_id (and session_id), and reason. --group-task qc "
        "writes one.",
        must_exist=True,
        metavar="FILE",
        changes="run",
    )
    bids_database_dir: Path | None = option(
        None, "Keep pybids' index of the data set in this folder and reuse it.", is_folder=True
    )

    @property
    def takes_all_runs(self) -> bool:
        """Whether all runs of the chosen subjects are wanted."""
        return not (self.session_label or self.task_id or self.run_label or self.bids_filter_file or self.exclude)


FRAME, TOKEN = "frame", "token"
LEVELS = ("run", "window", FRAME, TOKEN)


@dataclass(frozen=True)
class Encoding:
    """Which models, and how runs are encoded."""

    title: ClassVar[str] = "Model"

    model: tuple[str, ...] = option(
        ("base",),
        "A name from 'neurostorm-model list', a .ckpt or .safetensors file, or the folder of a fine-tuned model.",
        metavar="NAME|FILE...",
        changes="run",
    )
    label_mean: float | None = option(
        None, "Mean of the labels in training, for a regression model that does not hold it.", changes="run"
    )
    label_std: float | None = option(None, "Standard deviation of the labels in training.", changes="run")
    window_stride: int | None = option(
        None,
        "Frames from one window to the next.",
        shown_default="the model's length",
        least=1,
        most=10**6,
        changes="numbers",
    )
    precision: str = option(
        "fp32",
        "bf16, fp16 (GPU only): matrix products in half precision, faster where the device supports it; runs whose "
        "embedding it would change are encoded in fp32.",
        choices=("fp32", "bf16", "fp16"),
        changes="numbers",
    )
    embedding_level: tuple[str, ...] = option(
        ("run", "window"),
        "What is kept. Tables of runs and windows are written always; frame: also a vector for each frame of a window; token: one for each place "
        "and frame. Both as compressed arrays (.npz).",
        choices=LEVELS,
        metavar="|".join(LEVELS) + "...",
        changes="run",
    )
    stage: int | None = option(
        None,
        "Stage of the network that frames and tokens are taken from; in the first one tokens are patches, and in each later one they have twice the edge.",
        shown_default="the last, whose mean the embedding is",
        least=1,
        most=9,
        changes="run",
    )
    batch_size: int | None = option(
        None, "Windows to process at a time.", shown_default="what fits; in trainings 4, of heads alone 256", least=1
    )


@dataclass(frozen=True)
class Resampling:
    """How runs are brought into the model's grid.

    Attributes
    ----------
    explicit : frozenset of str
        Which options of `OF_MODEL` were given, with whatever value.
    adopted : frozenset of str
        Which of them were taken from a fine-tuned model.
    """

    title: ClassVar[str] = "Into the model's grid"

    grid: str = option(
        "auto",
        "Grid to resample runs to. auto: the one the model was trained in; as-fmriprep: fMRIPrep's "
        "MNI152NLin2009cAsym, as in the published code.",
        choices=("auto", "fsl", "as-fmriprep"),
        changes="run",
    )
    input_space: str | None = option(
        None,
        "Space of the BOLD files to take; bold: those without space-; raw: the raw series, by fMRIPrep's transforms in one "
        "interpolation.",
        choices=(*STANDARD_SPACES, "T1w", BOLD_SPACE, RAW_SPACE),
        shown_default="the one with the fewest steps; raw if there is no other",
        changes="run",
    )
    template_warp: str = option(
        "auto",
        "TemplateFlow's warp between the two MNI152 templates. auto: fetch it if it is missing, and go another way "
        "or fail without it; require: it must be there; skip: do without, at the price of a misfit of a few mm.",
        choices=("auto", "require", "skip"),
        changes="run",
    )
    interpolation: str = option(
        "linear", "linear: as published; cubic: B-spline.", choices=("linear", "cubic"), changes="gridded"
    )
    register: str | None = option(
        None,
        "Where no transform leads to a run: register its T1w or mean BOLD image to the template.",
        choices=("affine",),
        changes="gridded",
    )
    slice_timing: str = option(
        "auto",
        "Of raw series: shift slices in time to one moment. auto: unless the sidecar has no SliceTiming or fMRIPrep left it "
        "out.",
        choices=("auto", "on", "off"),
        changes="gridded",
    )
    slice_time_ref: float | None = option(
        None,
        "That moment, from the first (0) to the last (1) slice of a volume.",
        shown_default="fMRIPrep's, else 0.5",
        least=0.0,
        most=1.0,
        metavar="FRACTION",
        changes="gridded",
    )
    jacobian: str = option(
        "auto",
        "Of raw series: scale intensities by how far the field stretches them. auto: as fMRIPrep, for fieldmaps from images "
        "of opposite phase encoding.",
        choices=("auto", "on", "off"),
        changes="gridded",
    )
    fallback_total_readout_time: str | None = option(
        None,
        "Of raw series, s, where no sidecar tells; estimated: take the sidecar's EstimatedTotalReadoutTime or "
        "EstimatedEffectiveEchoSpacing.",
        pattern=r"estimated|\d*\.?\d+",
        pattern_help="seconds, such as 0.05, or estimated",
        metavar="SECONDS|estimated",
        changes="gridded",
    )
    target_tr: float | None = option(
        0.8,
        "Repetition time to resample to; native: leave it.",
        word_for_none="native",
        least=0.05,
        most=30.0,
        metavar="SECONDS|native",
        changes="gridded",
    )
    repetition_time: float | None = option(
        None,
        "Repetition time, where sidecar and header lack it or are wrong.",
        least=0.0,
        above=True,
        metavar="SECONDS",
        changes="gridded",
    )
    dummy_scans: int | None = option(
        None,
        "Volumes to drop at the start; auto: those that fMRIPrep flagged, or of raw series would flag.",
        word_for_none="auto",
        least=0,
        metavar="auto|N",
        changes="gridded",
    )
    denoise: str | None = option(
        None,
        "Regress out the confounds of this strategy of nilearn, high-pass included (motion: 24 parameters of head motion alone); "
        "none: as published. A fine-tuned model brings its own, and its --target-tr and --interpolation, unless they are given.",
        choices=("motion", "simple", "scrubbing", "compcor"),
        word_for_none="none",
        changes="gridded",
    )
    mask: str = option(
        "run",
        "Brain mask of a run that has none, nor its subject. template: the template's brain; run: such a run fails.",
        choices=("run", "template"),
        changes="gridded",
    )
    orientation: str | None = option(
        None,
        "How voxels are stored, where no header says it: RAS, LAS, ...",
        pattern="[RLAPSI]{3}",
        pattern_help="three of the letters R, L, A, P, S and I, such as RAS",
        metavar="AXES",
        changes="gridded",
    )
    mean_from: str | None = option(
        None,
        "Mean image that is added to a series without its mean; {run}, {sub}, {task} and the like in it are the run's.",
        metavar="FILE",
        changes="gridded",
    )
    save_grid: bool = option(
        False, "Keep the resampled runs: NIfTI in OUT_DIR, int8 in the work folder.", changes="run"
    )
    explicit: frozenset[str] = field(default=frozenset(), compare=False)
    adopted: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def of_raw(self) -> bool:
        """Whether raw series are asked for."""
        return self.input_space == RAW_SPACE

    def is_given(self, name: str) -> bool:
        """Whether the user gave an option of `OF_MODEL`, so that no model changes it."""
        if name in self.adopted:
            return False
        return name in self.explicit or getattr(self, name) != getattr(Resampling, name)


@dataclass(frozen=True)
class Censoring:
    """Which windows are left out of means for head motion."""

    title: ClassVar[str] = "Head motion"

    fd_threshold: float | None = option(
        None,
        "Framewise displacement above which a volume counts as high motion.",
        least=0.0,
        above=True,
        metavar="MM",
        changes="numbers",
    )
    max_censored: float = option(
        0.5,
        "Windows with a larger share of such volumes are left out of the run's mean.",
        least=0.0,
        most=1.0,
        metavar="FRACTION",
        changes="numbers",
    )


@dataclass(frozen=True)
class Conditions:
    """Which windows, by what the person did."""

    title: ClassVar[str] = "Conditions"

    conditions: tuple[str, ...] = option(
        (),
        "Only windows that lie in events of these trial_types, at least by half; from the raw data set's events.tsv.",
        metavar="NAME...",
        changes="numbers",
    )
    lag: float = option(
        5.0,
        "From an event to its response; events count this much later.",
        least=0.0,
        most=60.0,
        metavar="SECONDS",
        changes="numbers",
    )
    window_per_trial: bool = option(
        False, "One window for each of these events, its middle on the event's, the lag later.", changes="numbers"
    )


@dataclass(frozen=True)
class Parcellation:
    """The classical way beside the model."""

    title: ClassVar[str] = "Parcels"

    timeseries: tuple[str, ...] = option(
        (),
        "Write the mean series of an atlas' parcels in the resampled run, and their correlations. A file in the space of the "
        "model's grid (.nii.gz; a .tsv of the same name may hold index and name), or TemplateFlow's, such as "
        "Schaefer2018_100Parcels7Networks.",
        metavar="ATLAS...",
        changes="run",
    )


@dataclass(frozen=True)
class Resources:
    """What the work may use of the machine, and how it goes."""

    title: ClassVar[str] = "Resources"

    device: str = option("auto", "auto: a GPU if there is one.", choices=("auto", "cpu", "cuda"))
    nprocs: int = option(1, "Runs to process at a time.", flags=("--nthreads", "--n-cpus"), least=1)
    omp_nthreads: int | None = option(
        None, "Threads of one process.", shown_default="processors / nprocs", least=1, most=1024
    )
    mem_mb: int | None = option(None, "Memory to stay within, MB of 10^6 bytes.", least=1, metavar="MB")
    work_dir: Path | None = option(
        None,
        "Folder for resampled runs and checkpoints of trainings.",
        flags=("-w",),
        shown_default="OUT_DIR/work",
        is_folder=True,
    )
    clean_workdir: bool = option(False, "Remove resampled runs that earlier calls left in the work folder.")

    @property
    def threads(self) -> int:
        """Threads that one process may use."""
        asked = str(self.omp_nthreads or os.environ.get("OMP_NUM_THREADS", ""))
        if asked.isascii() and asked.isdecimal() and int(asked):
            return int(asked)
        return max(1, processors() // self.nprocs)


@dataclass(frozen=True)
class Conduct:
    """What is written, and what happens when something goes wrong."""

    title: ClassVar[str] = "How to run"

    dry_run: bool = option(False, "Say what would be read of each run, how, and how long it would take; write nothing.")
    boilerplate_only: bool = option(False, "Write the methods text (logs/CITATION.*) and nothing else.")
    md_only_boilerplate: bool = option(False, "The same, as Markdown only.")
    reports_only: bool = option(False, "Write the reports again from the results that are there.")
    force: bool = option(False, "Redo finished runs.")
    stop_on_first_crash: bool = option(False, "Stop at the first run that fails.")
    random_seed: int = option(0, "Seed of all random numbers.", least=0, most=LARGEST_SEED)
    verbose: int = option(0, "Print debug messages too.", flags=("-v",))
    quiet: bool = option(False, "Print warnings, errors and the summary alone.", flags=("-q",))

"""All settings of one call, in one place."""

import hashlib
import json
import os
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Optional

from neurostorm_bids import __version__
from neurostorm_bids.runtime.files import MODEL_FILE

# Settings that change a placed run, beside the grid; and those that change the numbers, beside grid, model and task
PLACING = ("target_tr", "repetition_time", "dummy_scans", "interpolation", "register", "denoise")
DECIDING = (*PLACING, "window_stride", "fd_threshold", "max_censored", "precision")
WORK = "work"  # folder in the output folder
AS_WORDS = {"target_tr": "native", "dummy_scans": "auto"}  # what None is called on the command line


@dataclass(frozen=True)
class Settings:
    """What the user asked for; the fields are the options of ``neurostorm``, described by ``neurostorm --help``.

    Labels have no prefix (``01``, not ``sub-01``); empty tuples mean all.
    """

    bids_dir: Path
    out_dir: Path
    analysis_level: str = "participant"

    participant_label: tuple = ()
    session_label: tuple = ()
    task_id: tuple = ()
    run_label: tuple = ()
    bids_filter_file: Optional[Path] = None
    bids_database_dir: Optional[Path] = None
    derivatives: tuple = ()  # of (name, path)

    model: tuple = ("base",)
    label_mean: Optional[float] = None
    label_std: Optional[float] = None
    window_stride: Optional[int] = None  # frames; None: the model's length

    grid: str = "auto"
    input_space: Optional[str] = None  # None: the one with the fewest steps to the grid
    template_warp: str = "auto"
    interpolation: str = "linear"
    register: Optional[str] = None  # "affine", or None for not at all
    denoise: Optional[str] = None  # nilearn's strategy
    save_grid: bool = False
    target_tr: Optional[float] = 0.8  # s; None: the run's own
    repetition_time: Optional[float] = None  # s; None: sidecar, then header
    dummy_scans: Optional[int] = None  # None: from the confounds

    fd_threshold: Optional[float] = None  # mm; None: no window is censored
    max_censored: float = 0.5  # share of a window's frames

    device: str = "auto"
    precision: str = "fp32"
    batch_size: Optional[int] = None  # windows; None: chosen for device and memory
    nprocs: int = 1
    omp_nthreads: Optional[int] = None  # None: OMP_NUM_THREADS, or the processors divided by nprocs
    mem_mb: Optional[int] = None  # MB; None: no limit
    work_dir: Optional[Path] = None
    clean_workdir: bool = False

    group_task: str = "collect"
    phenotype: Optional[Path] = None  # None: participants.tsv and sessions.tsv
    target: Optional[str] = None  # a column
    target_type: str = "auto"
    group_by: Optional[str] = None  # a column; None: subjects are kept together
    covariates: tuple = ()
    n_permutations: int = 200

    tuning: str = "linear"
    save_as: Optional[str] = None  # None: named after model, target and tuning
    split: Optional[Path] = None  # None: cross-validation
    epochs: int = 30
    patience: int = 5
    learning_rate: Optional[float] = None  # None: what suits the tuning
    prompt_length: int = 50  # tokens
    lora_rank: int = 8
    no_augmentation: bool = False
    devices: int = 1
    nodes: int = 1
    resume: bool = False

    boilerplate_only: bool = False
    md_only_boilerplate: bool = False
    reports_only: bool = False
    stop_on_first_crash: bool = False
    force: bool = False
    random_seed: int = 0
    verbose: int = 0

    @property
    def deciding(self) -> dict:
        """The settings that change the numbers."""
        return {name: getattr(self, name) for name in DECIDING}

    @property
    def asked(self) -> dict:
        """What decides which results a subject has in the end: which runs, which models, and how."""
        names = ("bids_dir", "derivatives", "model", "label_mean", "label_std", "grid", "input_space", "template_warp")
        names += ("session_label", "task_id", "run_label", "save_grid")
        files = [path for name in self.model for path in (Path(name), Path(name, MODEL_FILE)) if path.is_file()]
        files += [self.bids_filter_file] if self.bids_filter_file and self.bids_filter_file.is_file() else []
        return {
            "version": __version__,
            "files": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files],
            **{name: getattr(self, name) for name in names},
            **self.deciding,
        }

    def as_command(self) -> str:
        """The call, as one types it."""
        return shlex.join(self.as_words())

    def as_words(self) -> "list[str]":
        """The call: the command, its arguments, and the options that differ from the defaults."""
        words = ["neurostorm", str(self.bids_dir), str(self.out_dir), self.analysis_level]
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            if value == field.default:
                continue
            words.append(f"--{field.name.replace('_', '-')}")
            if field.name == "derivatives":
                value = tuple(f"{name}={path}" for name, path in value)
            if field.name == "verbose":
                words += words.pop() and ["-" + "v" * value]
            elif value is not True:
                value = AS_WORDS[field.name] if value is None else value
                words += [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
        return words

    def as_toml(self) -> str:
        """All settings as a file for --config-file; folders and level, which are arguments, as comments."""
        lines = [f"# neurostorm {json.dumps(str(self.bids_dir))} {json.dumps(str(self.out_dir))} {self.analysis_level}"]
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            value = AS_WORDS.get(field.name) if value is None else value
            if value is None or value == ():
                continue
            if field.name == "derivatives":
                value = [f"{name}={path}" for name, path in value]
            value = [*value] if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            # a JSON string, number, truth value or list of these is the same in TOML
            lines.append(f"{field.name} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines) + "\n"

    @property
    def work(self) -> Path:
        """The work folder: the one given, or one in the output folder."""
        return self.work_dir or self.out_dir / WORK

    @property
    def threads(self) -> int:
        """Threads that one process may use."""
        asked = self.omp_nthreads or os.environ.get("OMP_NUM_THREADS", "")
        return (
            int(asked)
            if str(asked).isascii() and str(asked).isdecimal() and int(asked)
            else max(1, processors() // self.nprocs)
        )


def digest(content: dict) -> str:
    """A short digest that is equal for equal settings."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def processors() -> int:
    """Processors that this process may use, as the scheduler set them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""``neurostorm``: the BIDS App."""

import re
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

import click

from neurostorm_bids import __version__
from neurostorm_bids.command.options import BidsCommand, Several
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.transforms import BOLD_SPACE, STANDARD_SPACES
from neurostorm_bids.runtime.signals import Stopped
from neurostorm_bids.runtime.toml import parse_toml
from neurostorm_bids.settings import Settings

GROUPS = {
    "Which runs": [
        "participant_label",
        "session_label",
        "task_id",
        "run_label",
        "bids_filter_file",
        "derivatives",
        "bids_database_dir",
    ],
    "Model": ["model", "label_mean", "label_std", "window_stride"],
    "Into the model's grid": [
        "grid",
        "input_space",
        "template_warp",
        "interpolation",
        "register",
        "target_tr",
        "repetition_time",
        "dummy_scans",
        "denoise",
        "save_grid",
    ],
    "Head motion": ["fd_threshold", "max_censored"],
    "Resources": ["device", "precision", "batch_size", "nprocs", "omp_nthreads", "mem_mb", "work_dir", "clean_workdir"],
    "Group level": [
        "group_task",
        "phenotype",
        "target",
        "target_type",
        "group_by",
        "covariates",
        "n_permutations",
    ],
    "Fine-tuning": [
        "tuning",
        "save_as",
        "split",
        "epochs",
        "patience",
        "learning_rate",
        "prompt_length",
        "lora_rank",
        "no_augmentation",
        "devices",
        "nodes",
        "resume",
    ],
    "What is written": ["boilerplate_only", "md_only_boilerplate", "reports_only"],
    "How to run": ["force", "stop_on_first_crash", "random_seed", "config_file", "verbose", "version", "help"],
}
A_FOLDER = click.Path(file_okay=False, path_type=Path)
A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def without_prefix(prefix: str):
    """A callback that takes ``sub-01`` and ``01`` alike."""

    def callback(_ctx, _param, values):
        return tuple(str(value).removeprefix(prefix) for value in values)

    return callback


def name_and_path(_ctx, _param, values):
    """Read NAME=PATH."""
    pairs = []
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise click.BadParameter(f"'{value}' is not NAME=PATH, such as fmriprep=/data/fmriprep")
        pairs.append((name, Path(path).expanduser().resolve()))
    return tuple(pairs)


def auto_or_count(_ctx, _param, value):
    """Read "auto" or a whole number."""
    if str(value) == "auto":
        return None
    if not (str(value).isascii() and str(value).isdecimal()):
        raise click.BadParameter(f"'{value}' is neither auto nor a whole number")
    return int(value)


def target(_ctx, _param, value):
    """Read seconds or "native"."""
    from neurostorm_bids.resample.timing import parse_target

    try:
        return parse_target(value)
    except NeurostormError as error:
        raise click.BadParameter(str(error)) from None


def read_config(ctx, _param, path):
    """Take defaults from a TOML file; what is given on the command line goes before."""
    if path is None:
        return
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path} is not readable TOML ({error})") from None
    values = {key.replace("-", "_"): value for key, value in content.items()}
    known = {name for names in GROUPS.values() for name in names} - {"config_file", "version", "help"}
    if unknown := sorted(values.keys() - known):
        raise click.BadParameter(f"{path}: unknown key {unknown[0]}; keys are the options' names, such as task-id")
    several = {param.name for param in ctx.command.params if isinstance(param, Several)}
    if isinstance(values.get("derivatives"), dict):
        values["derivatives"] = [f"{name}={folder}" for name, folder in values["derivatives"].items()]
    for name in several & values.keys():
        values[name] = values[name] if isinstance(values[name], list) else [values[name]]
    for param in ctx.command.params:
        if param.name in values and not _fits(param, values[param.name]):
            raise click.BadParameter(f"{path}: {param.name} cannot be {values[param.name]!r}")
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _fits(param, value) -> bool:
    """Whether a value of a TOML file is of a type that an option takes."""
    if isinstance(param, Several):
        return bool(value) and all(type(item) in (str, int) for item in value)
    if param.is_flag:
        return type(value) is bool
    if isinstance(param.type, (click.IntRange, click.types.IntParamType)) or param.count:
        return type(value) is int
    if isinstance(param.type, (click.FloatRange, click.types.FloatParamType)):
        return type(value) in (int, float)
    return type(value) is str or (param.name in ("target_tr", "dummy_scans") and type(value) in (int, float))


def finite(_ctx, _param, value):
    """Refuse NaN and infinity, which are numbers to click."""
    if value is not None and not abs(value) < 1e30:
        raise click.BadParameter(f"{value} is not a number to work with")
    return value


def model_name(_ctx, _param, value):
    """Refuse names that are no folder's."""
    if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise click.BadParameter(f"'{value}' is not a name of at most 100 letters, digits, '-', '_' and '.'")
    return value


@click.command(
    cls=BidsCommand,
    groups=GROUPS,
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.argument("bids_dir", type=A_FOLDER)
@click.argument("out_dir", type=A_FOLDER)
@click.argument("analysis_level", type=click.Choice(["participant", "group"]))
@click.option(
    "--participant-label",
    cls=Several,
    metavar="LABEL...",
    callback=without_prefix("sub-"),
    help="Subjects, with or without sub-.",
)
@click.option(
    "--session-label",
    "--session-id",
    "session_label",
    cls=Several,
    metavar="LABEL...",
    callback=without_prefix("ses-"),
    help="Sessions, with or without ses-.",
)
@click.option(
    "-t",
    "--task-id",
    cls=Several,
    metavar="LABEL...",
    callback=without_prefix("task-"),
    help="Tasks, with or without task-.",
)
@click.option(
    "--run-label", cls=Several, metavar="LABEL...", callback=without_prefix("run-"), help="Runs, with or without run-."
)
@click.option(
    "--bids-filter-file",
    type=A_FILE,
    help='JSON file with pybids entities for {"bold": {...}}; null: absent, "*": any.',
)
@click.option(
    "--bids-database-dir", type=A_FOLDER, help="Keep pybids' index of the data set in this folder and use it again."
)
@click.option(
    "-d",
    "--derivatives",
    cls=Several,
    metavar="NAME=PATH",
    callback=name_and_path,
    help="Where fMRIPrep's output is, if not in BIDS_DIR: fmriprep=PATH.",
)
@click.option(
    "--model",
    cls=Several,
    metavar="NAME|FILE...",
    default=("base",),
    show_default=True,
    help="A name of 'neurostorm-model list', or a .ckpt or .safetensors file.",
)
@click.option(
    "--label-mean",
    type=float,
    callback=finite,
    help="Mean of the labels in training, for a regression model that does not hold it.",
)
@click.option("--label-std", type=float, callback=finite, help="Standard deviation of the labels in training.")
@click.option(
    "--window-stride",
    type=click.IntRange(min=1, max=10**6),
    help="Frames from one window to the next.  [default: the model's length]",
)
@click.option(
    "--grid",
    type=click.Choice(["auto", "fsl", "as-fmriprep"]),
    default="auto",
    show_default=True,
    help="Grid to place runs in; auto: the one the model was trained in; as-fmriprep: fMRIPrep's MNI152NLin2009cAsym, as published.",
)
@click.option(
    "--input-space",
    type=click.Choice([*STANDARD_SPACES, "T1w", BOLD_SPACE]),
    help="Space of the BOLD files to take; bold: without space-.  [default: the one with the fewest steps]",
)
@click.option(
    "--template-warp",
    type=click.Choice(["auto", "require", "skip"]),
    default="auto",
    show_default=True,
    help="TemplateFlow's warp between the two MNI152 templates. auto: fetch it if it is not there, and take another "
    "way or fail without it; require: it must be there; skip: a misfit of a few mm.",
)
@click.option(
    "--interpolation",
    type=click.Choice(["linear", "cubic"]),
    default="linear",
    show_default=True,
    help="linear: as published; cubic: B-spline.",
)
@click.option(
    "--register",
    type=click.Choice(["affine"]),
    help="Where no transform leads to a run: register its T1w or mean BOLD to the template.",
)
@click.option(
    "--denoise",
    type=click.Choice(["simple", "scrubbing", "compcor"]),
    help="Regress out the confounds of this strategy of nilearn, high-pass included.  [default: none, as published]",
)
@click.option("--save-grid", is_flag=True, help="Keep placed runs: NIfTI in OUT_DIR, int8 in the work folder.")
@click.option(
    "--fd-threshold",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    metavar="MM",
    help="Framewise displacement above which a frame counts as high motion.",
)
@click.option(
    "--max-censored",
    type=click.FloatRange(min=0, max=1),
    callback=finite,
    default=0.5,
    show_default=True,
    metavar="FRACTION",
    help="Windows with a larger share of such frames are left out of the run's mean.",
)
@click.option(
    "--target-tr",
    metavar="SECONDS|native",
    default="0.8",
    show_default=True,
    callback=target,
    help="Repetition time to resample to; native: leave it.",
)
@click.option(
    "--repetition-time",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    metavar="SECONDS",
    help="Repetition time, where sidecar and header lack it or are wrong.",
)
@click.option(
    "--dummy-scans",
    metavar="auto|N",
    default="auto",
    show_default=True,
    callback=auto_or_count,
    help="Volumes to drop at the start; auto: those fMRIPrep flagged.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: a GPU if there is one.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="bf16, fp16 (GPU only): matrix products in half precision, quicker where the device has it; runs that it "
    "would change are encoded in fp32.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Windows to encode at a time.  [default: chosen]")
@click.option(
    "--nprocs",
    "--nthreads",
    "--n-cpus",
    "nprocs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs to process at a time.",
)
@click.option(
    "--omp-nthreads",
    type=click.IntRange(min=1, max=1024),
    help="Threads of one process.  [default: processors / nprocs]",
)
@click.option("--mem-mb", type=click.IntRange(min=1), metavar="MB", help="Memory to stay within.")
@click.option("-w", "--work-dir", type=A_FOLDER, help="Folder for placed runs.  [default: OUT_DIR/work]")
@click.option("--clean-workdir", is_flag=True, help="Remove what earlier calls left in the work folder.")
@click.option(
    "--group-task",
    type=click.Choice(["collect", "probe", "finetune", "decode", "identify"]),
    default="collect",
    show_default=True,
    help="collect: one table and a map of all runs; probe: predict --target from the embeddings, with baselines; "
    "finetune: train the model for --target; decode: tell tasks or events from single windows; identify: find subjects again over runs or sessions.",
)
@click.option("--phenotype", type=A_FILE, help="Table with participant_id.  [default: participants.tsv, sessions.tsv]")
@click.option("--target", metavar="COLUMN", help="What to predict: a column of that table.")
@click.option(
    "--target-type",
    type=click.Choice(["auto", "regression", "classification"]),
    default="auto",
    show_default=True,
    help="auto: text, and numbers of two values, are classes.",
)
@click.option("--group-by", metavar="COLUMN", help="Keep families or sites together in folds.  [default: subjects]")
@click.option(
    "--covariates", cls=Several, metavar="COLUMN...", help="Regressed out of the features, inside the training folds."
)
@click.option(
    "--n-permutations",
    type=click.IntRange(min=0, max=100000),
    default=200,
    show_default=True,
    help="Permutations of the labels, for the p-value.",
)
@click.option(
    "--tuning",
    type=click.Choice(["linear", "prompt", "layernorm", "prompt-layernorm", "lora", "full"]),
    default="linear",
    show_default=True,
    help="finetune: what is trained beside a new head.",
)
@click.option(
    "--save-as", metavar="NAME", callback=model_name, help="Name in OUT_DIR/models.  [default: model-target-tuning]"
)
@click.option(
    "--split",
    type=A_FILE,
    help="Table with participant_id and split (train, validation, test).  [default: cross-validation]",
)
@click.option("--epochs", type=click.IntRange(min=1, max=10**6), default=30, show_default=True, help="At most.")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Epochs without a smaller loss on the validation subjects after which training stops.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    help="Of what is trained beside the head.  [default: what suits the tuning]",
)
@click.option(
    "--prompt-length",
    type=click.IntRange(min=1, max=4096),
    default=50,
    show_default=True,
    help="Tokens before every window.",
)
@click.option(
    "--lora-rank", type=click.IntRange(min=1, max=4096), default=8, show_default=True, help="Of the additions."
)
@click.option("--no-augmentation", is_flag=True, help="Do not turn, scale, smooth and disturb the training windows.")
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="GPUs, or processes on CPUs, that train together.",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Nodes that train together (srun, torchrun).",
)
@click.option("--resume", is_flag=True, help="Go on with a training that was stopped.")
@click.option("--boilerplate-only", is_flag=True, help="Write the methods text (logs/CITATION.*) and nothing else.")
@click.option("--md-only-boilerplate", is_flag=True, help="The same, as Markdown only.")
@click.option("--reports-only", is_flag=True, help="Write the reports anew from the results that are there.")
@click.option("--force", is_flag=True, help="Do finished runs again.")
@click.option("--stop-on-first-crash", is_flag=True, help="Stop at the first run that fails.")
@click.option(
    "--random-seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of all random numbers.",
)
@click.option(
    "--config-file",
    type=A_FILE,
    is_eager=True,
    expose_value=False,
    callback=read_config,
    help="TOML file with these options as keys.",
)
@click.option("--skip-bids-validation", is_flag=True, expose_value=False, hidden=True, help="Nothing is validated.")
@click.option("-v", "--verbose", count=True, help="Say more.")
@click.version_option(__version__, prog_name="neurostorm")
def main(**options):
    """NeuroSTORM embeddings and predictions for what fMRIPrep wrote.

    BIDS_DIR is fMRIPrep's output folder, or the raw BIDS data set that has it in derivatives/. OUT_DIR gets the
    results, as BIDS derivatives. BIDS_DIR is never written to.
    """
    settings = _settings(options)
    try:
        tempfile.gettempdir()
    except OSError:
        raise click.ClickException(
            "no folder for temporary files can be written to; mount one at /tmp (docker: --tmpfs /tmp) or set TMPDIR"
        ) from None
    try:
        status = _level(settings)(settings)
    except Stopped as stop:
        status = stop.status
    except NeurostormError as error:
        click.echo(f"error: {error}", err=True)
        status = 1
    except Exception as error:
        click.echo(f"error: unexpected {type(error).__name__}: {error} (a bug; run with -v for its origin)", err=True)
        if settings.verbose:
            raise
        status = 1
    sys.exit(status)


def _level(settings: Settings):
    if settings.analysis_level == "group":
        from neurostorm_bids.group.level import group

        return group
    from neurostorm_bids.participant.level import participant

    return participant


def settings_of(words: "list[str]") -> Settings:
    """The settings that a command line means.

    Raises
    ------
    click.ClickException
        If it is not one of neurostorm's.
    """
    with main.make_context("neurostorm", list(words)) as context:
        return _settings(context.params)


def _settings(options: dict) -> Settings:
    options = dict(options)
    for name in ("bids_dir", "out_dir", "bids_database_dir", "work_dir", "phenotype", "split"):
        options[name] = options[name].expanduser().resolve() if options[name] else None
    assert options.keys() == {field.name for field in fields(Settings)}
    return Settings(**options)

"""``neurostorm``: the BIDS App."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from neurostorm_bids import __version__
from neurostorm_bids.command.options import BidsCommand, options_from, read_config
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.templateflow import is_image
from neurostorm_bids.runtime.options import options_of
from neurostorm_bids.runtime.signals import Stopped
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.participant import OF_MODEL

# The groups of options, in the order of the help
GROUPS: list[Any] = [each.default for each in fields(Settings)[3:]]
# What of a group comes in a section of its own after it, so that each fits a screen
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "Into the model's grid": {
        "Time and confounds": ("target_tr", "repetition_time", "dummy_scans", "denoise"),
        "Raw series": ("slice_timing", "slice_time_ref", "jacobian", "fallback_total_readout_time"),
    },
    "Group level": {
        "Statistics of the group level": ("group_by", "leave_out", "harmonise", "cv_repeats", "delta", "allow_seen", "exchange", "n_permutations"),
    },
    "Fine-tuning": {
        "Course of a training": ("epochs", "accumulate", "learning_rate", "augmentation", "devices", "nodes", "resume",
                                 "checkpoint_minutes", "max_hours", "logger"),
    },
    "Pretraining": {
        "Data and steps of a pretraining": ("pretrain_on", "mixing", "steps", "validate_every", "held_out", "validation_windows",
                                            "effective_batch", "ema", "activation_checkpointing", "cache_gb", "cache_dir"),
    },
}  # fmt: skip


def _sections() -> dict[str, list[str]]:
    """Return the options of each section of the help."""
    found = {}
    for group in GROUPS:
        parts = PARTS.get(group.title, {})
        apart = {name for names in parts.values() for name in names}
        found[group.title] = [each.name for each, _ in options_of(type(group)) if each.name not in apart]
        found |= {title: list(names) for title, names in parts.items()}
    return found


SECTIONS = _sections()
SECTIONS[GROUPS[-1].title] += ["config_file", "version", "help"]
MOST_USED = {
    "participant_label": "only these subjects",
    "task_id": "only these tasks",
    "model": "base, demo, a file, a fine-tuned model",
    "derivatives": "fmriprep=PATH, raw=PATH: where data are, if elsewhere",
    "denoise": "regress out confounds first",
    "dry_run": "say what would be done",
    "nprocs": "runs at a time",
    "mem_mb": "memory that may be taken",
    "group_task": "at the group level: what to do",
    "target": "there: what to predict",
}
PATHS = (
    "bids_database_dir",
    "bids_filter_file",
    "exclude",
    "work_dir",
    "phenotype",
    "split",
    "parcellation",
    "attribution_parcels",
    "cache_dir",
)  # made absolute: calls change folders


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all groups to a command."""
    params = [param for group in GROUPS for param in options_from(type(group))]
    function.__click_params__ = [*getattr(function, "__click_params__", []), *reversed(params)]  # type: ignore[attr-defined]
    return function


def _group_tasks() -> dict[str, dict[str, str]]:
    """Return what the tasks of the group level do, for the help."""
    from neurostorm_bids.group.task import describe_tasks

    return {"--group-task": describe_tasks()}


@click.command(
    cls=BidsCommand,
    groups=SECTIONS,
    most_used=MOST_USED,
    notes=_group_tasks,
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.argument("bids_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("analysis_level", type=click.Choice(["participant", "group"]))
@_options
@click.option(
    "--config-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=read_config,
    help="TOML file with these options as keys.",
)
@click.option("--skip-bids-validation", is_flag=True, expose_value=False, hidden=True, help="Nothing is validated.")
@click.version_option(__version__, prog_name="neurostorm")
def main(**options: Any) -> None:
    """NeuroSTORM embeddings and predictions from preprocessed fMRI.

    BIDS_DIR is the output folder of fMRIPrep or NiBabies, or the raw BIDS data set that has it in derivatives/; or a folder
    of subjects of the HCP pipelines or of UK Biobank. OUT_DIR gets the results, as BIDS derivatives. BIDS_DIR is never
    written to.
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
        if settings.conduct.verbose:
            raise
        status = 1
    sys.exit(status)


def _level(settings: Settings) -> Callable[[Settings], int]:
    """Import the level that is asked for."""
    if settings.analysis_level == "group":
        from neurostorm_bids.group.level import group_level

        return group_level
    from neurostorm_bids.participant.level import participant_level

    return participant_level


def settings_of(words: list[str]) -> Settings:
    """Return the settings that a command line means.

    Raises
    ------
    click.ClickException
        If it is not one of neurostorm's.
    """
    with main.make_context("neurostorm", list(words)) as context:
        return _settings(context.params)


def _absolute(model: str) -> str:
    """Return a model's name; of a file or folder that is there, its absolute path."""
    from neurostorm_bids.model.names import model_files, without_variant

    name, at = without_variant(model)
    return f"{Path(name).absolute()}{at}" if model_files([name]) else model


def _settings(options: dict[str, Any]) -> Settings:
    options = dict(options)
    for name in ("bids_dir", "out_dir", *PATHS):
        options[name] = options[name].expanduser().resolve() if options[name] else None
    if options["mean_from"]:
        options["mean_from"] = str(Path(options["mean_from"]).expanduser().absolute())
    options["pretrain_on"] = tuple(Path(folder).expanduser().resolve() for folder in options["pretrain_on"])
    options["model"] = tuple(_absolute(name) for name in options["model"])
    options["timeseries"] = tuple(
        str(Path(name).expanduser().absolute()) if is_image(name) else name for name in options["timeseries"]
    )
    settings, context = Settings.of(**options), click.get_current_context()
    given = {name for name in OF_MODEL if context.get_parameter_source(name) != ParameterSource.DEFAULT}
    return replace(settings, resampling=replace(settings.resampling, explicit=frozenset(given)))

"""Write a fine-tuned model: its weights, its card, its split and its history."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from neurostorm_bids.derivatives.tables import write_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.checkpoint import Checkpoint, write_safetensors
from neurostorm_bids.model.hyper_parameters import NEEDED, REFERENCE, SEVERAL, SINGLE, HyperParameters
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import MODEL_FILE, label_of_name
from neurostorm_bids.model.task import Task
from neurostorm_bids.model.tuned import reference_file
from neurostorm_bids.runtime.atomic import replacing, write_text
from neurostorm_bids.runtime.json_files import plain_number

MODELS = "models"  # in the output folder
CARD = "README.md"
MAKING = "making"  # in a model's folder: the model before its figures are known


def hyper_parameters_of(
    backbone: Model, backbone_name: str, task: Task, tuning: str, grid: str, gridding: dict[str, Any]
) -> HyperParameters:
    """Return what the file of a tuned model says about itself.

    Parameters
    ----------
    backbone_name : str
        What the backbone is found by: a name of the registry, or an absolute path.
    gridding : dict
        The options that its runs were resampled with.
    """
    config = asdict(backbone.network.config)
    names = (*SEVERAL, *SINGLE, *NEEDED)
    return {
        **{name: config[name] for name in names},
        "downstream_task_type": "regression" if task.kind == "regression" else "classification",
        "task_name": task.target,
        "classes": list(task.classes),
        "class_shares": list(task.class_shares),
        **({"members": task.members} if task.members > 1 else {}),
        "label_scaling_method": "standardization",
        "label_mean": task.label_mean,
        "label_std": task.label_std,
        "label_range": task.label_range,
        "dataset_name": task.trained_on,
        "grid": grid,
        "gridding": gridding,
        "tuning": tuning,
        "backbone": None if tuning == "full" else {"name": backbone_name, "sha256": backbone.sha256},
    }


def record_of_test(metrics: dict[str, tuple[float, float, float]], p_value: float) -> dict[str, Any]:
    """Return what the file of a model keeps of its test: the first metric, its value and p-value, `None` where there is none."""
    metric, (value, *_) = next(iter(metrics.items()))
    return {"metric": metric, "value": plain_number(value), "p": plain_number(p_value)}


def write_model(
    folder: Path,
    parts: dict[str, Tensor],
    hyper_parameters: HyperParameters,
    card: str,
    split: pd.DataFrame,
    history: pd.DataFrame,
    *,
    reference: Callable[[Path], dict[str, Any] | None],
) -> None:
    """Write a model's folder; the weights come last, so that a model that loads has its card, and no figures of another.

    Parameters
    ----------
    reference : callable
        Returns what its data are like, of the folder of the model as it will be; `None` if that is not known. It goes where the
        weights go.
    """
    making = folder / MAKING
    shutil.rmtree(making, ignore_errors=True)
    _write_weights(making / folder.name, parts, hyper_parameters)
    figures = reference(making / folder.name)
    shutil.rmtree(making, ignore_errors=True)
    reference_file(folder / MODEL_FILE).unlink(missing_ok=True)  # of a model of this name before
    write_table(folder / "split.tsv", split)
    write_table(folder / "history.tsv", history)
    write_text(folder / CARD, card)
    _write_weights(folder, parts, hyper_parameters if figures is None else {**hyper_parameters, REFERENCE: figures})


def _write_weights(folder: Path, parts: dict[str, Tensor], hyper_parameters: HyperParameters) -> None:
    with replacing(folder / MODEL_FILE) as temporary:
        write_safetensors(Checkpoint(folder / MODEL_FILE, parts, hyper_parameters), temporary)


def check_name_is_free(folder: Path, overwrite: bool) -> None:
    """Refuse to overwrite another model.

    Raises
    ------
    NeurostormError
        If there is one.
    """
    label = label_of_name(folder)
    for other in sorted(folder.parent.glob("*/")):
        if other.name != folder.name and label_of_name(other) == label:
            raise NeurostormError(
                f"{other.name} is there already, and the files of both would be desc-{label}; give another --save-as"
            )
    if (folder / MODEL_FILE).exists() and not overwrite:
        raise NeurostormError(f"{folder} is there already; give another name with --save-as, or --force to replace it")

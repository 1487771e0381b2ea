"""Keep a probe as a model for the participant level: the models of its folds side by side, as one head."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.models import (
    MODELS,
    check_name_is_free,
    hyper_parameters_of,
    record_of_test,
    write_model,
)
from neurostorm_bids.derivatives.names import sidecar_of
from neurostorm_bids.derivatives.seen import PEOPLE, with_those_before
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.heads import fold_heads, permuted_heads
from neurostorm_bids.group.probing import EMBEDDING, Probe
from neurostorm_bids.group.reference_figures import reference_of_tables
from neurostorm_bids.group.study import LOG, Study
from neurostorm_bids.model.hyper_parameters import TEST
from neurostorm_bids.model.names import reference_to
from neurostorm_bids.model.task import Task
from neurostorm_bids.model.tuned import PERMUTED_HEADS
from neurostorm_bids.runtime.boilerplate import filled_in
from neurostorm_bids.runtime.json_files import read_json

HEAD_WEIGHT, HEAD_BIAS = "output_head.head.head.weight", "output_head.head.head.bias"


def check_can_be_kept(study: Study) -> None:
    """Refuse early what --save-as cannot keep.

    Raises
    ------
    NeurostormError
        If the name is taken, several targets are asked for, the embedding is harmonised, or places are weighted.
    """
    settings = study.settings
    if settings.training.save_as is None:
        return
    if len(settings.group.target) != 1:
        raise NeurostormError("--save-as keeps the probe of one --target")
    if settings.group.harmonise:
        raise NeurostormError(
            "--save-as: a harmonised embedding cannot be made of a run of another site; leave out --harmonise"
        )
    if settings.group.pooling != "mean":
        raise NeurostormError("--save-as keeps the probe of the mean over places; leave out --pooling")
    check_name_is_free(settings.out_dir / MODELS / settings.training.save_as, settings.conduct.force)


def exporter_of(found: Probe, study: Study, verdict: str, methods: str) -> Callable[[Path], None] | None:
    """Return what writes the model's folder, if --save-as asks for it."""
    name = study.settings.training.save_as
    if name is None:
        return None

    def write(out_dir: Path) -> None:
        _write(out_dir / MODELS / name, found, study, (verdict, methods))
        LOG.info("the probe is kept as a model: --model %s", out_dir / MODELS / name)

    return write


def _write(folder: Path, found: Probe, study: Study, words: tuple[str, str]) -> None:
    """Write the model's folder."""
    import torch

    from neurostorm_bids.model.load import load_model

    labels, design = found.samples.labels, found.design
    backbone = load_model(study.model, "cpu")
    weights, bias = fold_heads(found.samples.embeddings, design)
    n_models, _n_outputs, n_channels = weights.shape
    parts = {
        HEAD_WEIGHT: torch.from_numpy(weights.reshape(-1, n_channels).astype(np.float32)),
        HEAD_BIAS: torch.from_numpy(bias.reshape(-1).astype(np.float32)),
    }
    if (permuted := permuted_heads(found.samples.embeddings, design)) is not None:
        parts[PERMUTED_HEADS] = torch.from_numpy(permuted.astype(np.float32))
    gridding = _gridding(study)
    task = _task(found, study, n_models)
    about = hyper_parameters_of(backbone, reference_to(study.model), task, "linear", backbone.grid.name, gridding)
    about[PEOPLE] = with_those_before(
        backbone, study.dataset, [name.removeprefix("sub-") for name in labels.names[SUBJECT].unique()]
    )
    tested = found.evaluations[EMBEDDING]
    about[TEST] = record_of_test(tested.metrics, tested.p_value)
    split = labels.names.assign(fold=design.folds[0] + 1)
    history = pd.DataFrame({"fold": range(1, n_models + 1), "value": found.evaluations[EMBEDDING].of_folds[:n_models]})
    card = _card(
        folder.name, found, study, (f"{backbone.name} (SHA-256 {backbone.sha256})", backbone.grid.name, *words)
    )
    reference = partial(reference_of_tables, tables=[study.cohort.files[int(i)] for i in labels.rows])
    write_model(folder, parts, about, card, split, history, reference=reference)


def _gridding(study: Study) -> dict[str, Any]:
    """Return the options that the runs were resampled with, as a sidecar of theirs says."""
    steps = read_json(sidecar_of(study.cohort.files[0])).get("Preprocessing") or {}
    target_tr, denoising = steps.get("TargetRepetitionTime"), steps.get("Denoising") or {}
    return {
        "interpolation": "cubic" if "cubic" in str(steps.get("Interpolation")) else "linear",
        "target_tr": None if target_tr == "native" else target_tr,
        "denoise": str(denoising["Strategy"]).partition(" ")[0] if "Strategy" in denoising else None,
    }


def _task(found: Probe, study: Study, n_models: int) -> Task:
    """Return what the head predicts."""
    labels, name = found.samples.labels, study.dataset.name
    if not labels.classes:
        limits = float(labels.y.min()), float(labels.y.max())
        return Task(
            "regression",
            labels.target,
            label_mean=0.0,
            label_std=1.0,
            label_range=limits,
            trained_on=name,
            members=n_models,
        )
    shares = tuple((np.bincount(labels.y) / len(labels.y)).tolist())
    kind = "binary" if len(labels.classes) == 2 else "multiclass"
    return Task(kind, labels.target, tuple(labels.classes), trained_on=name, class_shares=shares, members=n_models)


def _card(name: str, found: Probe, study: Study, words: tuple[str, str, str, str]) -> str:
    """Return the model card, Markdown."""
    backbone, grid, verdict, methods = words
    return filled_in(
        "probe_card.md",
        name=name,
        version=__version__,
        folder=f"OUT_DIR/{MODELS}/{name}",
        labels=found.samples.labels,
        dataset=study.dataset.name,
        n_models=found.design.n_folds,
        backbone=backbone,
        grid=grid,
        verdict=verdict,
        methods=methods,
        notes=found.notes,
    )

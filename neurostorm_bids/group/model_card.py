"""A fine-tuned model with all that its folder and its page say about it."""

from dataclasses import dataclass

import pandas as pd

from neurostorm_bids import __version__
from neurostorm_bids.derivatives.models import MODELS
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.participants import SUBJECT
from neurostorm_bids.group.training import Trainings
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.boilerplate import filled_in
from neurostorm_bids.settings import Settings
from neurostorm_bids.train.fit import TrainedModel
from neurostorm_bids.train.plan import MAX_WINDOWS


@dataclass(frozen=True)
class TunedModel:
    """What a fine-tuning gave.

    Attributes
    ----------
    trainings : Trainings
    trained : list of TrainedModel
        One for each of its splits; the last one is kept.
    grid : Grid
    dataset : Dataset
    """

    trainings: Trainings
    trained: list[TrainedModel]
    grid: Grid
    dataset: Dataset

    @property
    def kept(self) -> TrainedModel:
        """The training whose model is kept."""
        return self.trained[-1]

    @property
    def how_tested(self) -> str:
        """How it was tested, in words."""
        splits = self.trainings.splits
        tests = [split for split in splits if len(split.test)]
        if len(splits) == 1:
            return (
                f"Tested on the {len(tests[0].test)} samples that --split set aside; the model that is kept did not see "
                "them."
            )
        return (
            f"Tested in {len(tests)}-fold cross-validation on {len(self.trainings.labels.y)} samples, each by a model that "
            "did not see it. The model that is kept was then trained on all of them, and was not tested itself."
        )

    @property
    def counts(self) -> str:
        """Number of samples, and of those of each class."""
        labels = self.trainings.labels
        return f"{len(labels.y)}{f' ({labels.counts})' if labels.counts else ''}"


def model_card(tuned: TunedModel, metrics: pd.DataFrame, verdict: str, notes: list[str], settings: Settings) -> str:
    """Return the model card, Markdown."""
    trainings, kept = tuned.trainings, tuned.kept
    labels, plan, table = trainings.labels, trainings.plan, trainings.labelled.table
    tasks: list[str] = table["task"].iloc[labels.rows].dropna().unique().tolist() if "task" in table else []
    options = settings.in_words(settings.changing("gridded"))
    censoring, threshold = settings.censoring, settings.censoring.fd_threshold
    return filled_in(
        "model_card.md",
        name=trainings.name,
        version=__version__,
        folder=f"OUT_DIR/{MODELS}/{trainings.name}",
        labels=labels,
        dataset=tuned.dataset.name,
        n_subjects=labels.names[SUBJECT].nunique(),
        n_runs=len(labels.rows),
        tasks=sorted(tasks),
        grid=f"{tuned.grid.name} ({tuned.grid.template})",
        gridding=", ".join(
            f"--{name.replace('_', '-')} {value}" for name, value in options.items() if value is not None
        ),
        backbone=f"{trainings.model.name} (SHA-256 {trainings.model.sha256})",
        plan=plan,
        n_tuned=f"{kept.n_tuned:,}",
        n_weights=f"{sum(p.numel() for p in kept.network.parameters()):,}",
        n_frames=trainings.model.n_frames,
        max_windows=MAX_WINDOWS,
        censoring=""
        if threshold is None
        else f"; none with more than {censoring.max_censored:g} of its volumes above {threshold:g} mm",
        shares=", ".join(
            f"{name} {share:.3g}" for name, share in zip(labels.classes, kept.objective.class_shares, strict=True)
        ),
        best_epoch=kept.best_epoch,
        n_validation=len(trainings.splits[-1].validation),
        how=tuned.how_tested,
        verdict=verdict,
        metrics=metrics,
        notes=[f"- {note}" for note in notes],
        whole=plan.tuning == "full",
    )

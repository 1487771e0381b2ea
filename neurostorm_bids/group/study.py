"""What a task of the group level is about: the cohort of one model, and its phenotype."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.seen import SEEN_COLUMN
from neurostorm_bids.derivatives.tables import channels_named
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.exclusions import excluded, which_stay
from neurostorm_bids.find.participants import SUBJECT, Phenotype, join
from neurostorm_bids.find.selection import OF_FILES, filters_of, wants
from neurostorm_bids.group.cohort import Cohort, read_cohort
from neurostorm_bids.group.labels import Labels, labels_of
from neurostorm_bids.model.names import label_of_name
from neurostorm_bids.resample.grid import get_grid
from neurostorm_bids.runtime.json_files import digest
from neurostorm_bids.settings import Settings

LOG = logging.getLogger("neurostorm")


@dataclass(frozen=True)
class Study:
    """One model's results, with what is known of the people.

    Attributes
    ----------
    dataset : Dataset
    phenotype : Phenotype
    model : str
        Name or path of the model.
    settings : Settings
    """

    dataset: Dataset
    phenotype: Phenotype
    model: str
    settings: Settings

    @property
    def template(self) -> str | None:
        """The space that --grid asks for; `None` for any."""
        grid = self.settings.resampling.grid
        return None if grid == "auto" else get_grid(grid).template

    @cached_property
    def cohort(self) -> Cohort:
        """The selected runs with results of the model."""
        out_dir = self.settings.out_dir
        if not out_dir.is_dir():
            raise NeurostormError(f"there is no folder {out_dir}; run the participant level first")
        cohort = self._select(read_cohort(out_dir, label_of_name(self.model), self.template))
        for note in cohort.notes:
            LOG.warning(note)
        if self.missing_subjects(cohort):
            missing = self.missing_subjects(cohort)
            LOG.warning(
                "no results of model '%s' for %s: %s", cohort.label, counted(len(missing), "subject"), some(missing)
            )
        return cohort

    @cached_property
    def table(self) -> pd.DataFrame:
        """The cohort's runs with the columns of the phenotype."""
        table, notes = join(self.cohort.runs, self.phenotype.table, channels_named(self.cohort.embeddings.shape[1]))
        for note in notes:
            LOG.warning(note)
        unknown = sorted(set(self.cohort.runs[SUBJECT]) - set(self.phenotype.table[SUBJECT]))
        if len(self.phenotype.table) and unknown:
            LOG.warning(
                "%s with results not in %s: %s",
                counted(len(unknown), "subject"),
                self.phenotype.files[0],
                some(unknown),
            )
        return table

    def refuse_seen(self) -> None:
        """Refuse people that the model was trained on, unless --allow-seen says otherwise.

        Raises
        ------
        NeurostormError
            With the first of them.
        """
        if (seen := self.seen()) and not self.settings.group.allow_seen:
            raise NeurostormError(
                f"model '{self.cohort.label}' was trained on {counted(len(seen), 'subject')} of these ({some(seen)}): what it tells of "
                "them is not what it tells of others. Leave them out with --participant-label, or add --allow-seen"
            )

    def seen(self) -> list[str]:
        """Return the subjects that the model was trained on, as far as it says."""
        runs = self.cohort.runs
        if SEEN_COLUMN not in runs:
            return []
        return sorted(set(runs.loc[runs[SEEN_COLUMN] == True, SUBJECT]))  # noqa: E712 (unknown is NaN)

    def missing_subjects(self, cohort: Cohort) -> list[str]:
        """Return the subjects of the input that have no results."""
        wanted = self.settings.selection.participant_label or self.dataset.subjects()
        asked = {f"sub-{label}" for label in wanted if excluded(self.settings.selection, f"sub-{label}") is None}
        return sorted(asked - set(cohort.runs[SUBJECT]))

    def target(self) -> str | None:
        """Return the target of a task that takes one.

        Raises
        ------
        NeurostormError
            If several are given.
        """
        targets = self.settings.group.target
        if len(targets) > 1:
            raise NeurostormError(
                f"--group-task {self.settings.group.group_task} takes one --target, not {len(targets)}"
            )
        return targets[0] if targets else None

    def labels(self, target: str) -> Labels:
        """Return the labels of a target.

        Raises
        ------
        NeurostormError
            If a column is missing or unusable, or too few subjects are left.
        """
        options = self.settings.group
        return labels_of(
            self.table, target, options.target_type, options.group_by, of=options.samples, coded=self.phenotype.coded
        )

    def sources(self) -> list[str]:
        """Return the tables that results are made from, as BIDS URIs."""
        return [f"bids::{path.relative_to(self.settings.out_dir).as_posix()}" for path in self.cohort.files]

    def _select(self, cohort: Cohort) -> Cohort:
        """Return the runs that are asked for."""
        selection = self.settings.selection
        filters = filters_of(selection)
        if of_files := sorted(set(filters) & set(OF_FILES)):
            LOG.warning(
                "--bids-filter-file: %s chose the files that were read, and do not select results", ", ".join(of_files)
            )
        wanted = np.array([wants(selection, filters, run) for run in cohort.runs["run_name"]])
        if not wanted.any():
            there = some(sorted(cohort.runs["run_name"]))
            raise NeurostormError(
                f"none of the runs with results of model '{cohort.label}' was asked for; there are: {there}"
            )
        chosen = cohort.keep(wanted)
        if self.settings.group.group_task == "qc":  # which shows who is left out, too
            return chosen
        return chosen.keep(which_stay(selection, chosen.runs["run_name"].tolist()))


def counted(n: int, what: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def some(names: Sequence[object], n: int = 5) -> str:
    """Return the first names of a list, and how many more there are."""
    return ", ".join(map(str, names[:n])) + (f" and {len(names) - n} more" if len(names) > n else "")


def word(text: str) -> str:
    """Return text in letters and digits, for a file's name; what loses something by it gets a digest, to stay another name.

    >>> word("age"), word("my age")
    ('age', 'myage1358')
    """
    plain = re.sub("[^A-Za-z0-9]", "", text)
    return plain if plain == text else f"{plain}{digest({'text': text})[:4]}"

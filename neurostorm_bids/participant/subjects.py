"""What a call leaves of each subject: tables, report, logs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from neurostorm_bids.derivatives.call_logs import (
    log_folder,
    new_call_id,
    requested,
    write_configuration,
    write_crash,
    write_outcome,
)
from neurostorm_bids.derivatives.names import folders_of
from neurostorm_bids.derivatives.subject import collect_subject
from neurostorm_bids.errors import NeurostormError, Problem
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import model_files
from neurostorm_bids.participant.one_run import grid_of
from neurostorm_bids.report.subject import DONE, NOT_PROCESSED, Call, write_report
from neurostorm_bids.runtime.locks import link_leading_out
from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.participant import Selection

LOG = logging.getLogger("neurostorm")


@dataclass
class Subjects:
    """The subjects of a call, and what is known of their runs.

    Attributes
    ----------
    dataset : Dataset
    settings : Settings
    found : list of Run
        Runs that were found.
    runs : list of Run
        Those of them that are processed.
    problems : list of Problem
    outcomes : list of Outcome
    call_id : str
    """

    dataset: Dataset
    settings: Settings
    found: list[Run]
    runs: list[Run]
    problems: list[Problem]
    outcomes: list[Outcome] = field(default_factory=list)
    call_id: str = field(default_factory=new_call_id)

    @classmethod
    def find(cls, dataset: Dataset, settings: Settings) -> "Subjects":
        """Find the selected runs, and leave out those whose results would be written elsewhere by a link.

        Raises
        ------
        NeurostormError
            If there is no run.
        """
        database, raw = settings.selection.bids_database_dir, settings.resampling.of_raw
        found, problems = find_runs(dataset, settings.selection, database, raw=raw)
        runs = []
        links: dict[str, Problem] = {}
        for run in found:
            if text := link_leading_out(settings.out_dir, folders_of(settings.out_dir, run)):
                links[text] = Problem(text, run.subject)
            else:
                runs.append(run)
        subjects = cls(dataset, settings, found, runs, [*problems, *links.values()])
        for problem in subjects.problems:
            LOG.error(str(problem))
        return subjects

    @property
    def failed(self) -> bool:
        """Whether anything that was asked for did not come out."""
        unfinished = len(self.outcomes) < len(self.runs)
        return bool(self.problems) or unfinished or any(outcome.failed for outcome in self.outcomes)

    def report(self, problem: Problem) -> None:
        """Log a problem and remember it."""
        self.problems.append(problem)
        LOG.error(str(problem))

    def labels(self) -> list[str]:
        """Return the labels of all subjects that runs or problems belong to."""
        return sorted({run.subject for run in self.found} | {p.subject for p in self.problems if p.subject})

    def begin_logs(self) -> None:
        """Write the settings into the logs of each subject; subjects whose logs cannot be written are left out."""
        for subject in sorted({run.subject for run in self.runs}):
            try:
                write_configuration(log_folder(self.settings.out_dir, subject, self.call_id), self.settings)
            except NeurostormError as error:
                self.report(Problem(f"sub-{subject}: {error}", subject))
                self.runs = [run for run in self.runs if run.subject != subject]

    def add(self, outcome: Outcome) -> None:
        """Remember what became of a run; say what went wrong with it, and keep the account."""
        self.outcomes.append(outcome)
        if not outcome.problems:
            return
        for problem in outcome.problems:
            LOG.error("%s: %s", outcome.run, problem)
        folder = log_folder(self.settings.out_dir, outcome.subject, self.call_id)
        try:
            LOG.info("  details are in %s", write_crash(folder, outcome))
        except NeurostormError as error:  # a full disk, say: the run's problem was reported, the others go on
            LOG.error("%s: its account cannot be kept: %s", outcome.run, error)

    def write_tables(self, models: Sequence[Model]) -> None:
        """Write the table of each subject and model."""
        for subject in sorted({run.subject for run in self.runs}):
            for model in models:
                failed = {outcome.run for outcome in self.outcomes if outcome.lacks(model.label)}
                try:
                    notes = collect_subject(subject, grid_of(model, self.settings), model, self.settings, failed)
                except Exception as error:  # a damaged table of an earlier call must not hide what this one did
                    LOG.debug("sub-%s", subject, exc_info=True)
                    why = f"{type(error).__name__}: {error}"
                    self.report(Problem(f"sub-{subject}: its table cannot be written ({why})", subject))
                    continue
                for note in notes:
                    LOG.warning(note)

    def write_reports(self, call: Call) -> None:
        """Write the report of each subject."""
        subjects = self.labels()
        everything = self.found if self.settings.selection.takes_all_runs else self._all_runs(subjects)
        for subject in subjects:
            if self._is_linked(subject):
                continue
            problems = [str(problem) for problem in self.problems if problem.subject == subject]
            states = self._states(subject, everything)
            try:
                write_report(self.settings.out_dir, subject, states, problems, call)
            except Exception as error:  # results are written: a report that fails must not hide them
                LOG.debug("sub-%s", subject, exc_info=True)
                why = f"{type(error).__name__}: {error}"
                self.report(Problem(f"sub-{subject}: its report cannot be written ({why})", subject))

    def end_logs(self) -> None:
        """Write into the logs of each subject what became of it; last of all, since it vouches for everything."""
        wanted = requested(self.settings, model_files(self.settings.encoding.model))
        for subject in self.labels():
            if self._is_linked(subject):
                continue
            outcomes = [outcome for outcome in self.outcomes if outcome.subject == subject]
            n_asked = sum(run.subject == subject for run in self.runs)
            complete = 0 < n_asked == len(outcomes) and not any(p.subject == subject for p in self.problems)
            folder = log_folder(self.settings.out_dir, subject, self.call_id)
            try:
                write_outcome(folder, wanted, outcomes, complete)
            except NeurostormError as error:
                LOG.error("sub-%s: %s", subject, error)

    def _is_linked(self, subject: str) -> bool:
        out_dir = self.settings.out_dir
        return link_leading_out(out_dir, folders_of(out_dir, subject=subject)) is not None

    def _all_runs(self, subjects: Sequence[str]) -> list[Run]:
        """Return all runs of these subjects, found at once: each search lists the whole data set."""
        try:
            return find_runs(
                self.dataset, Selection(participant_label=tuple(subjects), series=self.settings.selection.series)
            )[0]
        except NeurostormError:
            return []

    def _states(self, subject: str, everything: Sequence[Run]) -> dict[str, str]:
        """Return the state of every run of a subject, those included that were not asked for."""
        states = {run.name: NOT_PROCESSED for run in everything if run.subject == subject}
        for outcome in self.outcomes:
            if outcome.subject == subject:
                why = "; ".join(outcome.problems)
                # not whether this call or an earlier one did it: the report does not depend on the number of calls
                states[outcome.run] = f"failed: {why}" if outcome.failed else DONE
        return states

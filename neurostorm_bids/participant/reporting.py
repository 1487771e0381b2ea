"""Put methods text and reports together from what the rooms know."""

import logging
import re
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.metadata import number_in, read_sidecar
from neurostorm_bids.find.runs import Run, Selection, find_runs
from neurostorm_bids.model.load import Model
from neurostorm_bids.participant.route import choose_route, grid_of
from neurostorm_bids.report.methods import Way, methods_html, methods_text, write_methods
from neurostorm_bids.report.subject import NOT_PROCESSED, write_report
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.runtime.locks import link_out
from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.settings import Settings

LOG = logging.getLogger("neurostorm")


def write_citations(runs: "list[Run]", dataset: Dataset, models: "list[Model]", settings: Settings) -> str:
    """Write logs/CITATION.*, which tell what is done with these runs; returns the text as HTML."""
    grids = dict.fromkeys(grid_of(model, settings) for model in models)
    ways = [way for run in runs for grid in grids if (way := way_of(run, dataset, grid, settings))]
    text = methods_text(settings, dataset, models, ways)
    write_methods(settings.out_dir, text, settings.md_only_boilerplate)
    return methods_html(text)


def way_of(run: Run, dataset: Dataset, grid: Grid, settings: Settings) -> "Way | None":
    """How a run comes to a grid; `None` if it cannot: the run itself will say why."""
    try:
        route = choose_route(run, dataset, grid, settings)
        seconds = settings.repetition_time
        if seconds is None:
            seconds = number_in(read_sidecar(route.file.sidecar), "RepetitionTime", route.file.sidecar)
    except NeurostormError:
        return None
    return Way(
        grid,
        route.space.name,
        tuple(path.name for path in route.space.transforms),
        registered=route.moving is not None,
        without_warp=any("--template-warp skip" in note for note in route.notes),
        repetition_time=seconds,
    )


def earlier_methods(out_dir: Path) -> str:
    """The methods text that an earlier call wrote, as HTML; empty if there is none."""
    try:
        page = (out_dir / "logs" / "CITATION.html").read_text(encoding="utf-8")
    except OSError:
        return ""
    return page.partition("</h2>")[2].partition("</body>")[0]


def write_reports(
    runs: "list[Run]",
    outcomes: "list[Outcome]",
    problems: "list[str]",
    dataset: Dataset,
    methods: str,
    hashes: "set[str]",
    selection: Selection,
    settings: Settings,
) -> "list[str]":
    """Write the report of every subject; returns what could not be written.

    Parameters
    ----------
    problems : list of str
        Found before the runs were begun, such as files that cannot be used.
    methods : str
        The methods text, HTML.
    hashes : set of str
        Digests of the settings that it tells of; empty if they are not known.
    selection : Selection
        That ``runs`` were found with.
    """
    missed, subjects = [], subjects_of(runs, problems, dataset)
    everything = runs if selection.is_everything else runs_of(subjects, dataset)
    for subject in subjects:
        if link_out(settings.out_dir, subject=subject):
            continue
        of_subject = [problem for problem in problems if concerns(problem, subject)]
        states = states_of(subject, outcomes, everything)
        try:
            write_report(settings.out_dir, subject, states, of_subject, methods, hashes, settings.as_command())
        except Exception as error:  # results are written: a report that fails must not hide them
            LOG.debug("sub-%s", subject, exc_info=True)
            missed.append(f"sub-{subject}: its report cannot be written ({type(error).__name__}: {error})")
            LOG.error(missed[-1])
    return missed


def subjects_of(runs: "list[Run]", problems: "list[str]", dataset: Dataset) -> "list[str]":
    """Subjects that runs are of or problems are about; the data set's subjects are not listed for it, they are many."""
    named = {label for problem in problems for label in re.findall("sub-([A-Za-z0-9+]+)", problem)}
    return sorted({run.subject for run in runs} | {s for s in named if (dataset.path / f"sub-{s}").is_dir()})


def runs_of(subjects: "list[str]", dataset: Dataset) -> "list[Run]":
    """All runs of these subjects, found at once: finding lists the data set's subjects every time."""
    try:
        return find_runs(dataset, Selection(tuple(subjects)))[0]
    except NeurostormError:
        return []


def concerns(problem: str, subject: str) -> bool:
    """Whether a message is about a subject.

    >>> concerns("sub-80_task-rest: only single echoes", "8"), concerns("there is no sub-8", "8")
    (False, True)
    """
    return re.search(rf"sub-{re.escape(subject)}(?![A-Za-z0-9+])", problem) is not None


def states_of(subject: str, outcomes: "list[Outcome]", everything: "list[Run]") -> "dict[str, str]":
    """What became of every run of a subject, those not asked for included."""
    states = {run.name: NOT_PROCESSED for run in everything if run.subject == subject}
    for outcome in outcomes:
        if outcome.subject == subject:
            why = "; ".join(outcome.problems)
            # not whether this call or an earlier one did it: the report does not depend on how often it was called
            states[outcome.run] = f"failed: {why}" if outcome.status == "failed" else "done"
    return states

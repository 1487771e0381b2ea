"""The group level: one task, for each of the models that are asked for."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import find_selected
from neurostorm_bids.find.exclusions import read_exclusions
from neurostorm_bids.find.participants import read_phenotype
from neurostorm_bids.group.output import print_answers, write_results
from neurostorm_bids.group.study import Study
from neurostorm_bids.group.task import GroupResult, find_task
from neurostorm_bids.model.names import AT_FLUCTUATION, AT_MEAN, without_variant
from neurostorm_bids.participant.level import prepare, warn_of_idle_options
from neurostorm_bids.settings import Settings
from neurostorm_bids.train import distributed

LOG = logging.getLogger("neurostorm")
MOST_NAMED = 20  # on a page, of those who are left out


def group_level(settings: Settings) -> int:
    """Run the group level; returns the exit status, 0 only if all that was asked for was done.

    Raises
    ------
    NeurostormError
        If there are no results, or what was asked for cannot be done with them (--dry-run among it).
    """
    if settings.conduct.dry_run:
        raise NeurostormError(
            "--dry-run is of the participant level; the group level reads what is in OUT_DIR, and asks for no scan"
        )
    prepare(settings)()
    warn_of_idle_options(settings)
    dataset = find_selected(settings.bids_dir, settings.selection)
    phenotype = read_phenotype(dataset, settings.group.phenotype)
    for note in phenotype.notes:
        LOG.warning(note)
    run = find_task(settings.group.group_task)
    if settings.group.group_task == "finetune":
        _refuse_controls(settings.encoding.model)
    with distributed.ending_together():
        studies = [Study(dataset, phenotype, name, settings) for name in dict.fromkeys(settings.encoding.model)]
        results: list[GroupResult] = []
        n_failed = 0
        for study in studies:
            try:
                results += run(study)
            except NeurostormError as error:
                if len(studies) == 1:
                    raise
                LOG.error("model %s: %s", study.model, error)  # what the other models give is written all the same
                n_failed += 1
        results = [_with_those_left_out(result, settings) for result in results]
        if results:
            write_results(results, settings)
            print_answers(results, settings.out_dir)
        status = 1 if n_failed or any(result.problems for result in results) else 0
    distributed.exit_all(status)
    return status


def _with_those_left_out(result: GroupResult, settings: Settings) -> GroupResult:
    """Return a result whose page and sidecars say whom --exclude names, and why."""
    file = settings.selection.exclude
    if file is None:
        return result
    reasons = read_exclusions(file)
    named = [f"{name} ({reason})" for name, reason in list(reasons.items())[:MOST_NAMED]]
    more = f" and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else ""
    note = f"left out by {file}: {', '.join(named)}{more}"
    sections = [replace(each, notes=[*each.notes, note]) if i == 0 else each for i, each in enumerate(result.sections)]
    about = {**result.about, "ExcludedBy": {"File": str(file), "Reasons": reasons}}
    return replace(result, sections=sections, about=about)


def _refuse_controls(models: Sequence[str]) -> None:
    """Refuse to tune a model that is fed something else than runs: training would feed it runs."""
    for name in models:
        if without_variant(name)[1] in (AT_MEAN, AT_FLUCTUATION):
            raise NeurostormError(f"{name} is a control input to compare with; give the model itself to finetune")

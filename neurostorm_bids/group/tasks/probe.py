"""Predict --target from the frozen embeddings, in the same folds as what a reviewer asks for."""

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.export import check_can_be_kept
from neurostorm_bids.group.probe_report import result_of, summary_of
from neurostorm_bids.group.probing import probe_of
from neurostorm_bids.group.study import LOG, Study
from neurostorm_bids.group.task import GroupResult


def run(study: Study) -> list[GroupResult]:
    """Probe the embeddings for every target."""
    targets = list(dict.fromkeys(study.settings.group.target))
    if not targets:
        raise NeurostormError("--group-task probe needs --target COLUMN of participants.tsv or of --phenotype FILE")
    study.refuse_seen()
    check_can_be_kept(study)
    probes = []
    for target in targets:
        probes.append(probe_of(study, target))
        for note in probes[-1].notes:
            LOG.warning("%s%s", f"{target}: " if len(targets) > 1 else "", note)
    results = [result_of(each, study) for each in probes]
    return results if len(results) == 1 else [summary_of(probes, study), *results]

"""The tokens of the places of the brain as features, which the mean over them blurs."""

from pathlib import Path

import numpy as np

from neurostorm_bids.derivatives.names import sidecar_of, tokens_beside
from neurostorm_bids.derivatives.part_files import n_places, read_places
from neurostorm_bids.derivatives.run import is_of
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.cohort import weighted_means
from neurostorm_bids.group.labels import Labels
from neurostorm_bids.group.study import Study, counted
from neurostorm_bids.runtime.json_files import read_json

MOST_PLACES = 64  # each is a regression of its own


def features_of_places(study: Study, labels: Labels) -> np.ndarray:
    """Return the mean tokens of each place in the runs of each sample, (samples, places, channels).

    Raises
    ------
    NeurostormError
        If runs have none, of these settings, or places are too many.
    """
    stage, cohort = study.settings.encoding.stage, study.cohort
    found = [_tokens_of(cohort.files[int(row)], stage) for row in labels.rows]
    paths = [path for path in found if path is not None]
    if missing := len(labels.rows) - len(paths):
        raise NeurostormError(
            f"--pooling attention: {counted(missing, 'run')} of {len(labels.rows)} have no tokens of these settings; run the participant "
            "level with --embedding-level token" + ("" if stage is None else f" --stage {stage}")
        )
    if len({path.name.rpartition("_stage-")[2] for path in paths}) > 1:
        raise NeurostormError("--pooling attention: runs have tokens of different stages; give --stage")
    if (n := n_places(paths[0])) > MOST_PLACES:
        raise NeurostormError(
            f"--pooling attention: tokens of this stage have {n} places, more than {MOST_PLACES}; take a later one with --stage"
        )
    of_runs = [read_places(path) for path in paths]
    if len({places.shape for places in of_runs}) > 1:
        raise NeurostormError(
            "--pooling attention: runs have tokens of different shapes; run the participant level again"
        )
    members = labels.members_among_rows
    values = np.stack(of_runs)
    means = weighted_means(
        values.reshape(len(values), -1), members, cohort.runs["windows"].to_numpy(float)[labels.rows]
    )
    return means.reshape(len(members), *values.shape[1:])


def _tokens_of(table: Path, stage: int | None) -> Path | None:
    """Return the tokens beside a table of embeddings that are of the run as it was embedded, of the last stage; `None` without any."""
    of_run = read_json(sidecar_of(table))
    return next((path for path in tokens_beside(table, stage) if is_of(read_json(sidecar_of(path)), of_run)), None)

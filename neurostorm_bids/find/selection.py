"""Which runs are wanted: the labels of the command line and a BIDS filter file, applied to names of runs."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.entities import as_number, entities_of, near_miss
from neurostorm_bids.settings.participant import Selection

# pybids entities that choose between files of one run; a run's results are the same run's, whatever these say
OF_FILES = ("space", "cohort", "res", "resolution", "den", "density", "desc", "suffix", "extension", "datatype")

Filters = dict[str, Any]


def read_filter_file(path: Path) -> Filters:
    """Read the ``bold`` entry of a BIDS filter file; other entries (t1w, ...) are for other apps.

    `null` means that the entity must be absent, ``"*"`` that it must be there with any value.

    Raises
    ------
    NeurostormError
        If the file is unusable.
    """
    from bids.layout import Query

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise NeurostormError(f"--bids-filter-file {path} cannot be read as JSON ({error})") from None
    filters = content.get("bold", {}) if isinstance(content, dict) else None
    if filters == {} and (like := [key for key in content if key.strip().lower() == "bold" and key != "bold"]):
        raise NeurostormError(f'--bids-filter-file {path}: write "bold", not "{like[0]}"')
    if not isinstance(filters, dict):
        raise NeurostormError(f'--bids-filter-file {path}: give an object such as {{"bold": {{"task": "rest"}}}}')
    meaning = {None: Query.NONE, "*": Query.ANY, "Query.NONE": Query.NONE, "Query.ANY": Query.ANY}
    return {
        key: meaning.get(value, value) if value is None or isinstance(value, str) else value
        for key, value in filters.items()
    }


def filters_of(selection: Selection) -> Filters:
    """Return the filters of a selection's filter file; empty if it has none.

    Raises
    ------
    NeurostormError
        If the file is unusable, names an entity that pybids does not know, or chooses what an option chooses too.
    """
    path = selection.bids_filter_file
    if path is None:
        return {}
    filters = read_filter_file(path)
    if "subject" in filters:
        raise NeurostormError(f"--bids-filter-file {path} chooses the subject; give --participant-label instead")
    options = {"session": selection.session_label, "task": selection.task_id, "run": selection.run_label}
    if twice := sorted(key for key in filters if options.get(key)):
        raise NeurostormError(
            f"--bids-filter-file {path} and the command line both choose the {twice[0]}; give one of them"
        )
    if unknown := sorted(set(filters) - _entities()):
        near = get_close_matches(unknown[0], _entities(), 1)
        hint = f"did you mean '{near[0]}'?" if near else "pybids names them task, session, run, space, ..."
        raise NeurostormError(f"--bids-filter-file {path}: there is no entity '{unknown[0]}'; {hint}")
    return filters


def _entities() -> set[str]:
    """Return the names of all entities, as pybids has them."""
    from bids.layout.models import Config

    return {name for config in ("bids", "derivatives") for name in Config.load(config).entities}


def near_misses(selection: Selection, there: Sequence[dict[str, str]]) -> str:
    """Return a question if a session, task or run that was asked for is nearly one that is there.

    Parameters
    ----------
    there : sequence of dict
        The entities of each run.
    """
    asked = (("ses", selection.session_label), ("task", selection.task_id), ("run", selection.run_label))
    hints = (near_miss(key, labels, [each[key] for each in there if key in each]) for key, labels in asked)
    return next((hint for hint in hints if hint), "")


def wants(selection: Selection, filters: Filters, run: str) -> bool:
    """Whether a run is selected, by its name.

    Parameters
    ----------
    filters : dict
        From `filters_of`; entities that choose between the files of one run have no effect here.
    run : str
        Such as sub-01_ses-1_task-rest_run-01.
    """
    entities = entities_of(run)
    labels = {"sub": selection.participant_label, "ses": selection.session_label, "task": selection.task_id}
    if any(wanted and entities.get(key) not in wanted for key, wanted in labels.items()):
        return False
    runs = {as_number(label) for label in selection.run_label}
    if runs and as_number(entities.get("run")) not in runs:
        return False
    of_runs = {key: value for key, value in filters.items() if key not in OF_FILES}
    return not of_runs or _passes(of_runs, run)


def _passes(filters: Filters, run: str) -> bool:
    """Whether a run's name passes filters as pybids would apply them."""
    from bids.layout import Query, parse_file_entities

    found = parse_file_entities(f"/{run}_bold.nii.gz", config=["bids", "derivatives"])
    for key, wanted in filters.items():
        value = found.get(key)
        values = wanted if isinstance(wanted, list) else [wanted]
        accepted = any(
            value is None
            if one in (None, Query.NONE)
            else value is not None and (one is Query.ANY or as_number(str(one)) == as_number(str(value)))
            for one in values
        )
        if not accepted:
            return False
    return True

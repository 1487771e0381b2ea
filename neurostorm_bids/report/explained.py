"""What a report says about where in the brain a prediction comes from, read from what is on disk."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurostorm_bids.derivatives.names import map_beside, parcels_beside
from neurostorm_bids.derivatives.run import is_of
from neurostorm_bids.derivatives.tables import read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.explain.checks import SPLIT_HALF
from neurostorm_bids.runtime.json_files import read_json
from neurostorm_bids.settings.explaining import BASELINES, GROUP_MEAN, OWN_MEAN

MOST_PARCELS = 8  # that are listed
WORDS = {True: "pass", False: "FAIL", None: "open"}


@dataclass(frozen=True)
class ExplainedFacts:
    """What is said of one map.

    Attributes
    ----------
    output : str
        What is explained, with its unit.
    baseline : str
    added : dict
        Onset of a window -> what the run adds to the baseline's output.
    about : str
        Baseline, windows, nodes.
    figure : str or None
        Relative to the report; `None`: no map is drawn.
    not_drawn : str
        Why there is none.
    failed : list of str
        What is said in red above it.
    checks : list of (str, str, str)
        Name, pass or fail, what was found.
    parcels : list of (str, str, str, str)
        Name, attribution, by occlusion, by random weights; the largest first.
    cautions : list of str
    """

    output: str
    baseline: str
    added: dict[float, float]
    about: str
    figure: str | None
    not_drawn: str
    failed: list[str]
    checks: list[tuple[str, str, str]]
    parcels: list[tuple[str, str, str, str]]
    cautions: list[str]


def read_explained(out_dir: Path, embeddings: Path) -> list[ExplainedFacts]:
    """Read the maps beside a table of embeddings, one for each baseline; those that are damaged or of other settings are left out.

    Parameters
    ----------
    embeddings : Path
        The sidecar of the embeddings.
    """
    found = []
    of_run = read_json(embeddings)
    for baseline in BASELINES:
        path = map_beside(embeddings, baseline, ".json")
        sidecar = read_json(path) if path.is_file() else {}
        if not is_of(sidecar, of_run):  # the run was embedded with other settings since
            continue
        with suppress(KeyError, TypeError, ValueError, StopIteration, NeurostormError):
            found.append(_facts(out_dir, path, sidecar))
    return found


def _facts(out_dir: Path, path: Path, sidecar: dict[str, Any]) -> ExplainedFacts:
    explained, windows, checks = sidecar["Explained"], sidecar["Windows"], sidecar["Checks"]
    table = read_table(parcels_beside(path, sidecar["Atlas"]))
    largest = table.reindex(table["attribution"].abs().sort_values(ascending=False).index).head(MOST_PARCELS)
    added = {float(window["Onset"]): float(window["Output"] - window["OfBaseline"]) for window in windows}
    figure = sidecar["Figure"]
    return ExplainedFacts(
        f"{explained['Output']} ({explained['Unit']})",
        sidecar["Baseline"],
        added,
        f"The run adds {np.mean(list(added.values())):+.3g} to the output of its baseline ({sidecar['Baseline']}), mean over {len(windows)} window(s); "
        f"integrated gradients with {max(window['Nodes'] for window in windows)} nodes at most; parcels of {sidecar['Atlas']}, outside of which lie {sidecar['ShareOutsideParcels']:.0%} of the map; "
        "occlusion, random weights, and the checks but for completeness and split halves, are of the first of these windows",
        figure if figure and (out_dir / figure).is_file() else None,
        "its figure is missing; run the participant level again"
        if figure
        else next(check["Words"] for check in checks if check["Name"] == SPLIT_HALF),
        [f"{check['Name']}: {check['Words']}" for check in checks if check["Passed"] is False],
        [(check["Name"], WORDS[check["Passed"]], check["Words"]) for check in checks],
        [
            (
                str(row["name"]),
                f"{row['attribution']:+.3g}",
                f"{row['occlusion']:+.3g}",
                f"{row['attribution_random_weights']:+.3g}",
            )
            for _, row in largest.iterrows()
        ],
        [sidecar["Caution"], sidecar["Privacy"]],
    )


def anatomy_or_function(maps: list[ExplainedFacts]) -> str | None:
    """Return how much of what the run adds to other people's mean image is its own mean image; `None` without both maps.

    From other people's mean image to the run's own, then to the run: the two steps sum to the whole way.
    """
    of = {each.baseline: each for each in maps}
    if not {OWN_MEAN, GROUP_MEAN} <= of.keys():
        return None
    activity, both = of[OWN_MEAN].added, of[GROUP_MEAN].added
    onsets = sorted(activity.keys() & both.keys())
    if of[OWN_MEAN].output != of[GROUP_MEAN].output or not onsets:
        return None
    function, whole = (float(np.mean([added[onset] for onset in onsets])) for added in (activity, both))
    return (
        f"Anatomy or function? The run adds {whole:+.3g} to what the model says of other people's mean image: {whole - function:+.3g} of it is "
        f"the run's own mean image (anatomy, and whatever else stands still), {function:+.3g} is what changes over time."
    )

"""The options of maps of where in the brain a prediction comes from."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from neurostorm_bids.runtime.options import option

OWN_MEAN, GROUP_MEAN, ZERO = BASELINES = ("own-mean", "group-mean", "zero")


@dataclass(frozen=True)
class Attribution:
    """Where in the brain a prediction comes from."""

    title: ClassVar[str] = "Where in the brain"

    attribution: bool = option(
        False,
        "Map where what the model's head predicts of a run comes from, with checks of the map.",
        changes="run",
    )
    attribution_baseline: tuple[str, ...] = option(
        (OWN_MEAN,),
        "What a run is compared with; of several, a map for each. own-mean: its own mean image, for what activity adds; group-mean: the mean image of other "
        "people's runs that --save-grid kept, so that anatomy counts too; zero: the same value everywhere.",
        choices=BASELINES,
        metavar="|".join(BASELINES) + "...",
        changes="run",
    )
    attribution_class: str | None = option(
        None,
        "Of several classes, the one that is explained.",
        shown_default="the one predicted for the run; of two the second",
        metavar="CLASS",
        changes="run",
    )
    attribution_windows: int = option(
        4, "Windows of a run to look at, evenly spaced.", least=1, most=10**4, changes="run"
    )
    attribution_parcels: Path | None = option(
        None,
        "Atlas in the space of the model's grid; a .tsv of the same name may hold index and name.",
        shown_default="TemplateFlow's Schaefer atlas of 100 parcels, else blocks of 24 mm",
        must_exist=True,
        metavar="FILE",
        changes="run",
    )

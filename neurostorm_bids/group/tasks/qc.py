"""Quality of all runs on one page that can be sorted, the worst first, with tick boxes that write a table for --exclude."""

import json
from typing import Any

import pandas as pd

from neurostorm_bids.find.exclusions import read_exclusions
from neurostorm_bids.group.quality import COLUMNS, quality_of, thumbnails
from neurostorm_bids.group.study import Study, counted
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.group.tasks.collect import OUTLIER, overview_of
from neurostorm_bids.report.pages import render_page

MOST_NAMED = 3
DIGITS = 3  # significant ones, on the page


def run(study: Study) -> list[GroupResult]:
    """Make the table of a cohort's runs and its page."""
    cohort = study.cohort
    outlyingness = overview_of(cohort, study.settings.conduct.random_seed).distance
    table = quality_of(cohort, outlyingness)
    worst = table[table["badness"] > OUTLIER]
    named = ", ".join(f"{row.run_name} ({row.because})" for row in worst.head(MOST_NAMED).itertuples())
    answer = (
        f"{counted(len(worst), 'run')} of {len(table)} with a measure more than {OUTLIER:g} robust standard deviations worse than the cohort's "
        "median" + (f", first {named}." if len(worst) else ".")
    )
    name = f"group_desc-{cohort.label}_qc"
    pictures = thumbnails(cohort)
    file = study.settings.selection.exclude
    html = render_page(
        "qc.html",
        rows=_rows(table),
        columns=[(column, about["Description"]) for column, about in COLUMNS.items()],
        pictures=[pictures[str(run)] for run in table["run_name"]],
        known=dict(read_exclusions(file)) if file else {},
        place=name,
    )
    words = [
        answer,
        "Tick the runs that shall take no part, and save exclude.tsv: every command takes it with --exclude. A measure is a reason to look, "
        "not to exclude: decide before you know the results, and report it.",
    ]
    return [
        GroupResult(
            name=name,
            title="Quality of the runs",
            answer=answer,
            sections=[Section("Quality of the runs", words=words, html=html)],
            about={"Description": "Quality of all runs, the worst first", "Sources": study.sources()},
            page=name,
            tables={"": table},
            columns={"": COLUMNS},
        )
    ]


def _rows(table: pd.DataFrame) -> str:
    """Return the table as a JSON list of rows that may stand in a script."""
    plain = [[_plain(value) for value in row] for row in table.itertuples(index=False)]
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.{DIGITS}g}")

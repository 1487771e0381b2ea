"""Write what the tasks of the group level found: tables with sidecars, figures, pages."""

import logging
from collections.abc import Sequence
from pathlib import Path

from neurostorm_bids.derivatives.sidecars import software_versions
from neurostorm_bids.derivatives.tables import write_table
from neurostorm_bids.group.cohort import IDENTITY
from neurostorm_bids.group.task import GroupResult, Section
from neurostorm_bids.report.figures.drawing import to_png
from neurostorm_bids.report.pages import render_page
from neurostorm_bids.runtime.atomic import replacing, sweep, write_text
from neurostorm_bids.runtime.json_files import read_json, write_json
from neurostorm_bids.runtime.locks import hold
from neurostorm_bids.settings import Settings

LOG = logging.getLogger("neurostorm")
FIGURES = Path("group", "figures")
PAGES = Path("group", "pages.json")  # title and answer of every page
INDEX = "group_index.html"


def write_results(results: Sequence[GroupResult], settings: Settings) -> None:
    """Write all results of a call, or what there is of them so far.

    Other calls of the group level wait while files are written; nothing waits while anything is computed.
    """
    out_dir = settings.out_dir
    drawn = [{end: to_png(figure) for end, figure in result.figures.items()} for result in results]
    pages: dict[str, list[GroupResult]] = {}
    for result in results:
        pages.setdefault(result.page, []).append(result)
    with hold(out_dir, "group", wait=-1):
        sweep(out_dir, "group")
        sweep(out_dir / FIGURES, "group")
        for result, figures in zip(results, drawn, strict=True):
            _write_files(result, figures, settings)
        for page, shown in pages.items():
            sections = [section for result in shown for section in _on_page(result, several=len(shown) > 1)]
            title = shown[0].title
            html = render_page("group.html", title=title, sections=sections, command=settings.as_command(), index=INDEX)
            write_text(out_dir / f"{page}.html", html)
        _write_index(pages, settings)


def print_answers(results: Sequence[GroupResult], out_dir: Path) -> None:
    """Print what came out, and where to read on."""
    for result in results:
        print(result.answer)
        if result.shown is not None:
            print(result.shown.to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep=""))
    for page in dict.fromkeys(result.page for result in results):
        print(f"Open {out_dir / f'{page}.html'}")
    print(f"Results are in {out_dir}")


def _write_index(pages: dict[str, list[GroupResult]], settings: Settings) -> None:
    """Write the page that leads to the pages of all calls, each with its answer."""
    out_dir = settings.out_dir
    known = read_json(out_dir / PAGES)
    for page, results in pages.items():
        known[f"{page}.html"] = [results[0].title, " ".join(result.answer for result in results)]
    there = sorted(path.name for path in out_dir.glob("group*.html") if path.name != INDEX)
    known = {name: said if _is_entry(said := known.get(name)) else [name, "see the page"] for name in there}
    write_json(out_dir / PAGES, known)
    section = Section(
        "All results",
        links=[(name, f"{title} ({name.removesuffix('.html')})", answer) for name, (title, answer) in known.items()],
    )
    html = render_page("group.html", title="All results", sections=[section], command=settings.as_command(), index="")
    write_text(out_dir / INDEX, html)


def _is_entry(said: object) -> bool:
    """Whether this is what is kept of a page, and not a damaged file's."""
    return isinstance(said, list) and len(said) == 2 and all(isinstance(text, str) for text in said)


def _write_files(result: GroupResult, figures: dict[str, bytes], settings: Settings) -> None:
    """Write tables, their sidecars, and figures."""
    out_dir = settings.out_dir
    provenance = {
        **result.about,
        "RandomSeed": settings.conduct.random_seed,
        "Command": settings.as_command(),
        "SoftwareVersions": software_versions(),
    }
    for end, table in result.tables.items():
        write_table(out_dir / f"{result.name}{end}.tsv", table)
        known = {name: about for name, about in IDENTITY.items() if name in table}
        columns = {**known, **result.columns.get(end, {})}
        write_json(out_dir / f"{result.name}{end}.json", {**columns, **provenance})
    for end, content in figures.items():
        with replacing(out_dir / FIGURES / f"{result.name}{end}.png") as temporary:
            temporary.write_bytes(content)
    if result.write_more is not None:
        result.write_more(out_dir)


def _on_page(result: GroupResult, several: bool) -> list[Section]:
    """Return a result's sections with paths in place of figures' keys and, among several, with its name."""
    return [
        Section(
            f"{section.title} ({result.name})" if several else section.title,
            section.words,
            section.facts,
            section.table,
            [((FIGURES / f"{result.name}{end}.png").as_posix(), caption) for end, caption in section.figures],
            section.notes,
            section.links,
            section.html,
            section.alarms,
        )
        for section in result.sections
    ]

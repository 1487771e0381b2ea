"""``neurostorm-demo``: a small data set and the demo model."""

import sys
from pathlib import Path

import click

from neurostorm_bids.errors import NeurostormError

N_VOLUMES = 60  # of each run of a cohort


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"))
@click.option("--only-data", is_flag=True, help="Make the data set and do not run on it.")
@click.option(
    "--people",
    type=click.IntRange(2, 499),
    help="Make a cohort of so many phantoms instead, for the group level; nothing is run.",
)
@click.option(
    "--first",
    type=click.IntRange(0, 9000),
    default=500,
    show_default=True,
    help="Number of the first one of these; the same numbers are the same phantoms. The demo model was trained on 0 to 79.",
)
def main(folder: Path, only_data: bool, people: int | None, first: int) -> None:
    """Make a demo data set in FOLDER (default: demo) and run neurostorm on it with the embedded demo model.

    The data are a phantom, laid out as fMRIPrep 25.2 lays out its derivatives. The model is very small and was trained
    on other phantoms: it shows what the outputs look like and nothing else.
    """
    if people:
        from neurostorm_bids.demo.cohort import MILD, write_people

        try:
            write_people(folder, people, N_VOLUMES, first=first, fluctuation=MILD)
        except NeurostormError as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"Data set: {folder.resolve()}, a run of {N_VOLUMES} volumes for each of {people} phantoms")
        return
    from neurostorm_bids.demo.dataset import write_dataset
    from neurostorm_bids.participant.level import participant_level
    from neurostorm_bids.settings import Settings

    folder = folder.resolve()
    data, results = folder / "fmriprep", folder / "neurostorm"
    if not (data / "dataset_description.json").exists():
        write_dataset(data, say=click.echo)
    if only_data:
        click.echo(f"Data set: {data}")
        return
    click.echo(f"\n$ neurostorm {data} {results} participant --model demo\n")
    status = participant_level(Settings.of(data, results, model=("demo",)))
    click.echo("\nThe tables:")
    for path in sorted(results.rglob("*.tsv")):
        click.echo(f"  {path.relative_to(results)}\n      {_content(path)}")
    click.echo(
        "Each has a .json beside it: columns, model, grid, every step. A very small model trained on phantoms: for "
        "demonstration."
    )
    for path in sorted(results.glob("sub-*.html")):
        click.echo(f"Open the report in a browser: {path}")
    sys.exit(status)


def _content(path: Path) -> str:
    from neurostorm_bids.derivatives.tables import channels_of, read_table

    table = read_table(path)
    if path.name.endswith("_predictions.tsv"):
        row = table.iloc[0]
        return f"prediction: {row['target']} = {row['value']} ({row['windows']} windows)"
    rows = "one row per window" if "window" in table else "one row per run, then their mean"
    return f"embeddings: {rows}; {len(table)} rows, {channels_of(table).shape[1]} channels"

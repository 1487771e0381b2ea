"""``neurostorm-model``: list, inspect, fetch and convert models."""

from pathlib import Path

import click

from neurostorm_bids.command.options import OneLineErrors
from neurostorm_bids.errors import NeurostormError


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """List, inspect, fetch and convert models; fetch templates."""


@main.command("list")
def list_models() -> None:
    """List the models that have a name."""
    from neurostorm_bids.model.registry import DEMO, DEMONSTRATION, home, registry

    rows = [(DEMO, "embedded", DEMONSTRATION)]
    for model in registry().values():
        here = model.path.is_file() or model.safetensors_path.is_file()
        rows.append((model.name, "here" if here else "not fetched", model.about))
    for name, state, about in rows:
        click.echo(f"{name:<16} {state:<12} {about}")
    click.echo(f"Weights are kept in {home()} (set NEUROSTORM_HOME to change that).")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Show what a checkpoint FILE, the folder of a fine-tuned model, or the model of a name holds; nothing in it is executed."""
    from neurostorm_bids.model.checkpoint import read_checkpoint, sha256_of
    from neurostorm_bids.model.hyper_parameters import REFERENCE, task_of
    from neurostorm_bids.model.load import build_network, read_whole
    from neurostorm_bids.model.registry import DEMO, DEMO_FILE, DEMO_LICENCE, find_weights, registry
    from neurostorm_bids.model.tuned import weights_file

    named = (
        registry().get(str(file))
        if not file.exists()
        else next((m for m in registry().values() if file == m.path), None)
    )
    licence = named.licence if named else "not known of a file; ask whom you have it from"
    if str(file) == DEMO and not file.exists():
        file, licence = DEMO_FILE, DEMO_LICENCE
    file = find_weights(named) if named else weights_file(file)
    checkpoint = read_checkpoint(file)
    click.echo(f"file            {file}")
    click.echo(f"licence         {licence}")
    click.echo(f"sha256          {sha256_of(file)}")
    click.echo(
        f"tensors         {len(checkpoint.tensors)}, {sum(t.numel() for t in checkpoint.tensors.values()):,} numbers"
    )
    for name, value in sorted(checkpoint.hyper_parameters.items()):
        shown = f"figures of {value.get('runs')} runs" if name == REFERENCE and isinstance(value, dict) else repr(value)
        click.echo(f"  {name} = {shown}")
    if checkpoint.dropped:
        click.echo(f"left out        {', '.join(checkpoint.dropped)} (not plain values)")
    network, config = build_network(read_whole(file)[0])
    task = task_of(checkpoint.hyper_parameters, config)
    click.echo(f"encoder         {sum(p.numel() for p in network.model.parameters()):,} parameters")
    click.echo(f"clip            {' x '.join(map(str, config.img_size))} (x, y, z, frames)")
    click.echo(f"embedding       {config.n_channels} channels")
    click.echo(f"head            {f'{config.head}: {task.kind} ({task.target})' if task else config.head or 'none'}")


@main.command()
@click.argument("name")
@click.option(
    "--to", type=click.Path(file_okay=False, path_type=Path), help="Folder to fetch to, laid out like NEUROSTORM_HOME."
)
def fetch(name: str, to: Path | None) -> None:
    """Fetch the weights of the model NAME from the hub."""
    from neurostorm_bids.model.registry import fetch as fetch_weights
    from neurostorm_bids.model.registry import published

    path = fetch_weights(published(name), to)
    click.echo(f"{path}")


@main.command()
def templates() -> None:
    """Fetch what neurostorm uses of TemplateFlow: warps between the MNI152 templates, T1w images and brain masks."""
    from neurostorm_bids.find.templateflow import TemplateWarp, find_template, find_warp
    from neurostorm_bids.settings.participant import STANDARD_SPACES

    for space, other in (STANDARD_SPACES, STANDARD_SPACES[::-1]):
        click.echo(f"{find_warp(TemplateWarp(source=other, target=space))}")
        click.echo(f"{find_template(space, None, 'T1w')}")
        click.echo(f"{find_template(space, 'brain', 'mask')}")


@main.command()
@click.argument("out_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--model", "name", required=True, help="The model whose results are in OUT_DIR: a name, a file or a folder."
)
@click.option(
    "--to", type=click.Path(dir_okay=False, path_type=Path), help="File to write.  [default: beside the weights]"
)
def reference(out_dir: Path, name: str, to: Path | None) -> None:
    """Take the runs in OUT_DIR as the reference of a model: what its data are like, with which later runs are compared."""
    from neurostorm_bids.derivatives.fit_files import reference_from
    from neurostorm_bids.encode.reference import to_plain
    from neurostorm_bids.model.load import weights_of
    from neurostorm_bids.model.names import label_of_name
    from neurostorm_bids.model.tuned import reference_file
    from neurostorm_bids.runtime.json_files import write_json

    found = reference_from(out_dir, label_of_name(name))
    path = to or reference_file(weights_of(name))
    write_json(path, to_plain(found))
    click.echo(f"{path}: figures of {found.n} runs; those after them are compared with it (with --force, these too)")


@main.command()
@click.argument("source", metavar="FILE.ckpt", type=click.Path(path_type=Path))
@click.argument("target", metavar="FILE.safetensors", type=click.Path(path_type=Path))
def convert(source: Path, target: Path) -> None:
    """Write a checkpoint as .safetensors, with its hyper-parameters in the metadata, or as .ckpt, as the published code reads it."""
    from neurostorm_bids.model.checkpoint import write_lightning, write_safetensors
    from neurostorm_bids.model.load import build_network, read_whole
    from neurostorm_bids.model.tuned import PERMUTED_HEADS
    from neurostorm_bids.runtime.atomic import replacing

    if target.suffix not in (".safetensors", ".ckpt"):
        raise NeurostormError(f"{target}: give a name that ends in .safetensors or .ckpt")
    write = write_safetensors if target.suffix == ".safetensors" else write_lightning
    checkpoint, backbone = read_whole(
        source
    )  # of a fine-tuned model all of it, so that it needs its backbone no longer
    if backbone is not None:
        checkpoint.hyper_parameters["backbone"] = None
    if target.suffix == ".ckpt":
        checkpoint.tensors.pop(PERMUTED_HEADS, None)  # the published code knows no such weights
    build_network(checkpoint)  # a file that is no NeuroSTORM is refused here, not at its first use
    with replacing(target) as temporary:
        write(checkpoint, temporary)
    click.echo(f"{target}: {len(checkpoint.tensors)} tensors, {len(checkpoint.hyper_parameters)} hyper-parameters")

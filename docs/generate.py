"""Write those pages of the reference that come from the code: options, output files with their columns, models.

For the output files, a cohort of phantoms goes through the participant level and every task of the group level. A column that no
sidecar explains stops the build, and so does a file that nothing describes; the few that have no sidecar are described here.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.affines import apply_affine

from neurostorm_bids.command import demo, hpc, main, model
from neurostorm_bids.command.options import Choices, Number
from neurostorm_bids.demo.cohort import MILD, write_people
from neurostorm_bids.demo.phantom import AFFINE, SHAPE
from neurostorm_bids.model.registry import registry

UNSEEN = 500  # number of the first phantom: the demo model was trained on others
N_PEOPLE, N_VOLUMES = 20, 24  # normative models need twenty people, a window twenty frames
WITHOUT_SIDECARS = {
    "sub-<label>/figures/": "figures of the report",
    "sub-<label>/log/<call>/neurostorm.toml": "settings of a call; --config-file takes it",
    "sub-<label>/log/<call>/outcome.json": "how the call ended; crash-<run>.txt beside it tells of each run that failed",
    "sub-<label>.html": "the report",
    "group/cache/desc-<model>.npz": "means of runs, so that a later call reads only what changed",
    "group/figures/": "figures of the pages",
    "group/pages.json": "titles and answers of all pages",
    "group_index.html": "leads to the pages of all calls, each with its answer",
    ".bidsignore": "what BIDS does not know",
    "CHANGES": "versions that wrote into the folder",
    "README": "what is in the folder",
    "dataset_description.json": "what BIDS wants, with every configuration that results were made with",
    "logs/CITATION.bib": "references of the methods text",
    "logs/CITATION.html": "methods text",
    "logs/CITATION.md": "methods text",
    "logs/CITATION.tex": "methods text",
}
WHERE_HALVES_AGREE = {  # which cannot be counted on here, where a network was trained for two steps
    "group_desc-<model>_attributionOwnMean_statmap.nii.gz": "the mean map, where two halves of the windows agree in most runs",
    "group_desc-<model>_attributionOwnMean_viewer.html": "the same, to be looked through slice by slice, without a network",
}
RUNS = ("ses-1_task-rest", "ses-1_task-motor", "ses-2_task-rest")
BIN = Path(sys.executable).parent


def write_reference(folder: Path) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.md").write_text(options_page())
    (folder / "models.md").write_text(models_page())
    (folder / "outputs.md").write_text(outputs_page(folder.parents[1] / "_build" / "reference"))


def options_page() -> str:
    """Return every option of every command."""
    lines = [
        "## neurostorm",
        "",
        "    neurostorm BIDS_DIR OUT_DIR participant|group [OPTIONS]",
        "",
        _text(main.main.help),
        "",
    ]
    by_name = {param.name: param for param in main.main.params}
    for title, names in main.SECTIONS.items():
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        lines += [line for name in names if name in by_name for line in _option(by_name[name])]
    for name, command in (
        ("neurostorm-hpc", hpc.main),
        ("neurostorm-model", model.main),
        ("neurostorm-demo", demo.main),
    ):
        if isinstance(command, click.Group):
            for sub in command.list_commands(click.Context(command)):
                lines += _command(f"{name} {sub}", command.commands[sub])
        else:
            lines += _command(name, command)
    return "\n".join(lines)


def _command(name: str, command: click.Command) -> list[str]:
    usage = " ".join([name, *command.collect_usage_pieces(click.Context(command))])
    options = [line for param in command.params if isinstance(param, click.Option) for line in _option(param)]
    return [f"## {name}", "", f"    {usage}", "", _text(command.help), "", *options]


def _option(param: Any) -> list[str]:
    """Return one option: its names, what it may be, its help."""
    if param.hidden:
        return []
    kind = param.type
    if isinstance(kind, Choices):
        value = " | ".join(kind.choices)
    elif isinstance(kind, Number) and (kind.details.least is not None or kind.details.most is not None):
        value = f"{kind.kind.__name__.replace('int', 'whole number').replace('float', 'number')}, {kind.limits()}"
    elif isinstance(kind, click.Choice):
        value = " | ".join(map(str, kind.choices))
    else:
        value = "" if param.is_flag or param.count else (param.metavar or kind.name)
    if param.multiple and not value.endswith("..."):
        value += " …"
    shown = f"*{_text(value)}*" if value.strip() else ""
    said, _, default = (param.help or "").partition(
        "  [default: "
    )  # as the options of neurostorm say it; others let click
    if not default and param.show_default and not callable(param.default):
        default = f"{param.default}]"
    tail = f" Default: `{default[:-1]}`." if default else ""
    names = ", ".join(f"`{each}`" for each in param.opts if each.startswith("-"))
    return [f"{names} {shown}".rstrip(), f": {_text(said)}{tail}", ""]


def _text(words: str | None) -> str:
    """Return words as Markdown that looks like them."""
    return re.sub(r"([*_<>|])", r"\\\1", re.sub(r"\s+", " ", (words or "").replace("\b", "")).strip())


def models_page() -> str:
    """Return the models of the registry."""
    lines = [
        "| `--model` | what | file |",
        "|---|---|---|",
        "| `demo` | very small, trained on phantoms, built in: for demonstration | |",
    ]
    lines += [
        f"| `{each.name}` | {_text(each.about)} | `{each.repository}`: `{each.file}` |" for each in registry().values()
    ]
    variants = "`NAME@random`, `NAME@mean` and `NAME@fluctuation` are the same network with random weights, fed the run's mean image, and fed the run minus it."
    return "\n".join([*lines, "", variants, ""])


def outputs_page(folder: Path) -> str:
    """Return every file that is written, with its columns."""
    out = process_cohort(folder)
    found: dict[str, list[Path]] = {}
    for path in sorted(out.rglob("*")):
        place = path.relative_to(out)
        if path.is_file() and place.parts[0] not in ("work", ".locks", "models") and "slurm" not in place.parts:
            found.setdefault(_pattern(place), []).append(path)
    lines: list[str] = []
    found = {**{name: [] for name in WHERE_HALVES_AGREE}, **found}
    beside = {f"{name.removesuffix('.gz').rpartition('.')[0]}.json" for name in found if not name.endswith(".json")}
    of = {"Of a subject": lambda name: name.startswith("sub-"), "Of the group": lambda name: name.startswith("group")}
    for title, belongs in {**of, "Of the folder": lambda name: not name.startswith(("sub-", "group"))}.items():
        lines += [f"## {title}", ""]
        for name in sorted(filter(belongs, found)):
            if name in beside:
                continue
            described = (WITHOUT_SIDECARS | WHERE_HALVES_AGREE).get(name) or _described(found[name][0])
            if not described:
                raise RuntimeError(f"nothing describes {name}")
            lines += [f"`{name}`", f": {_text(described)}", ""]
            if name.endswith(".tsv"):
                columns = [line for path in found[name] for line in _columns(path)]  # calls differ in theirs
                lines += [*dict.fromkeys(columns), ""]
    if unused := WITHOUT_SIDECARS.keys() - found.keys():
        raise RuntimeError(f"there is no {sorted(unused)[0]}")
    return "\n".join(lines)


def process_cohort(folder: Path) -> Path:
    """Take a cohort through everything that writes files; returns the output folder."""
    data, out = folder / "cohort", folder / "out"
    write_people(data, N_PEOPLE, N_VOLUMES, UNSEEN, RUNS, MILD)
    shutil.rmtree(out, ignore_errors=True)  # what other code wrote

    def neurostorm(words: str) -> None:
        call = [BIN / "neurostorm", data.name, out.name, *words.split(), "--quiet"]
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, call))}: {done.stderr[-2000:]}")

    neurostorm("participant --model demo --save-grid --embedding-level frame token --fd-threshold 0.5")
    for task in ("collect", "reliability", "normative", "qc", "associations", "identify", "decode"):
        neurostorm(f"group --model demo --group-task {task}")
    neurostorm("group --model demo --group-task probe --target age --delta --save-as age")
    neurostorm("group --model demo --group-task probe --target age coupling --n-permutations 39")
    neurostorm("group --model demo --group-task evaluate --target coupling --allow-seen")
    raw = folder / "raw"  # of which only the events matter
    raw.mkdir(exist_ok=True)
    (raw / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.10.0"}')
    (raw / "task-motor_events.tsv").write_text("onset\tduration\ttrial_type\n10\t2\thands\n0\t60\trest\n")
    one = f"--participant-label {UNSEEN} --task-id motor -d raw={raw.name}"
    neurostorm(f"participant {one} --model out/models/age --conditions hands --lag 0 --window-per-trial")
    # a network whose maps take seconds, and an atlas of few parcels, since checks take a moment for each
    size = "--size embed_dim=12 depths=1,1,1,1 img_size=48"
    neurostorm(f"group --group-task pretrain {size} --steps 2 --save-as small")
    tuning = "--tuning linear --target coupling --epochs 2 --allow-seen"
    neurostorm(f"group --model out/models/small --group-task finetune {tuning} --save-as tuned")
    atlas = eighths(folder / "atlas-eighths_dseg.nii.gz").name
    some = f"--model out/models/tuned --participant-label {UNSEEN} {UNSEEN + 1} --task-id motor"
    explain = f"--attribution --attribution-windows 1 --attribution-parcels {atlas} --timeseries {atlas}"
    neurostorm(f"participant {some} {explain}")
    neurostorm(f"group --group-task attribution {some}")
    return out


def eighths(path: Path) -> Path:
    """Write an atlas of eight parcels, by the signs of world coordinates; returns its path."""
    world = apply_affine(AFFINE, np.indices(SHAPE).reshape(3, -1).T)
    labels = 1 + (world > 0) @ [1, 2, 4]
    nib.save(nib.Nifti1Image(labels.reshape(SHAPE).astype(np.int16), AFFINE), path)
    return path


def _pattern(place: Path) -> str:
    """Return a path with placeholders for what differs from call to call."""
    text = place.as_posix()
    if place.parent.name == "figures":
        return f"{'sub-<label>' if text.startswith('sub-') else 'group'}/figures/"
    text = re.sub(r"(sub|ses|task)-[0-9a-zA-Z]+", r"\1-<label>", text)
    text = re.sub(r"desc-(demo|tuned|small|age)(?=[_./])", "desc-<model>", text)
    text = re.sub(r"seg-[0-9a-zA-Z]+", "seg-<atlas>", text)
    text = re.sub(r"target-(age|coupling)", "target-<column>", text)
    text = text.replace("ses-<label>/", "[ses-<label>/]").replace("sub-<label>_ses-<label>_task-<label>", "<run>")
    return re.sub(r"log/[^/]+/", "log/<call>/", text)


def _described(path: Path) -> str:
    """Return what a file's own sidecar, or the file, says that it is."""
    if path.suffix == ".json":
        about = json.loads(path.read_text())
        return str(about.get("Description", "")) if isinstance(about, dict) else ""
    sidecar = _sidecar(path)
    if sidecar.is_file():
        return str(json.loads(sidecar.read_text()).get("Description", ""))
    if path.suffix == ".html":
        return re.search(r"<title>(.*?)</title>", path.read_text(), re.DOTALL)[1]
    return ""


def _sidecar(path: Path) -> Path:
    """Return the sidecar of a file; tables of parcels are explained in that of the map that they are of."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    own = path.with_name(f"{stem}.json")
    return (
        own
        if own.is_file()
        else path.with_name(re.sub(r"_seg-\w+?_(.*)_(statmap|timeseries)", r"_\1_statmap", stem) + ".json")
    )


def _columns(path: Path) -> Iterator[str]:
    """Yield a table of a table's columns, as its sidecar explains them; channels stand once."""
    about = json.loads(_sidecar(path).read_text())
    about |= {name: {"Description": words} for name, words in (about.get("Columns") or {}).items()}
    columns = list(pd.read_csv(path, sep="\t", nrows=1).columns)
    yield "| column | what |"
    yield "|---|---|"
    for name in columns:
        if re.fullmatch(r"(channel|parcel)0*[1-9]\d*", name) and name != "parcel001":
            continue
        if name == "parcel001":
            yield "| `parcel001`, … | a parcel; the sidecar has their names |"
            continue
        entry = about.get(name)
        if not isinstance(entry, dict) or not (entry.get("Description") or entry.get("LongName")):
            raise RuntimeError(f"{path}: nothing explains the column {name}")
        units = f" ({entry['Units']})" if entry.get("Units") else ""
        shown = "channel000, channel001, …" if name.startswith("channel") else name
        yield f"| `{shown}` | {_text(entry.get('Description') or entry['LongName'])}{units} |"

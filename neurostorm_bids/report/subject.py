"""The report of one subject, put together from what is on disk, so that parallel calls and later ones agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neurostorm_bids.derivatives.call_logs import Crash, latest_crashes
from neurostorm_bids.derivatives.names import run_tables
from neurostorm_bids.report.facts import EMBEDDINGS, EncodedFacts, read_facts
from neurostorm_bids.report.pages import render_page
from neurostorm_bids.runtime.atomic import write_text
from neurostorm_bids.runtime.locks import lock_shared_files

DONE, NOT_PROCESSED = "done", "not processed by the last call"
WORDS = {"ses": "session", "task": "task", "acq": "acquisition", "dir": "direction", "run": "run", "echo": "echo"}


@dataclass(frozen=True)
class Call:
    """What a report says about the call that writes it.

    Attributes
    ----------
    command : str
    methods : str
        The methods text, HTML.
    hashes : frozenset of str
        Digests of the settings that the methods text describes; empty if they are not known.
    labels : frozenset of str
        Labels of the models that it used.
    """

    command: str
    methods: str
    hashes: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()


def write_report(out_dir: Path, subject: str, states: dict[str, str], problems: Sequence[str], call: Call) -> Path:
    """Write sub-X.html; returns its path.

    Parameters
    ----------
    states : dict
        Name of every run found in the input -> its state, such as "done".
    problems : sequence of str
        Files of this subject that could not be used, and why.
    """
    path = out_dir / f"sub-{subject}.html"
    with lock_shared_files(out_dir):  # from reading to writing: of two calls at a time, the later one has everything
        write_text(path, _render(out_dir, subject, states, problems, call))
    return path


def _render(out_dir: Path, subject: str, states: dict[str, str], problems: Sequence[str], call: Call) -> str:
    runs: dict[str, list[EncodedFacts]] = {}
    for path in _sidecars(out_dir, subject):
        if encoded := read_facts(out_dir, path):
            runs.setdefault(encoded.run, []).append(encoded)
    failures = [
        crash
        for crash in unresolved(out_dir, subject)
        if not (states.get(crash.run) == DONE and call.labels.issuperset(crash.models))
    ]
    return render_page(
        "subject.html",
        title=f"sub-{subject}",
        command=call.command,
        runs={name: (title_of(name), blocks) for name, blocks in sorted(runs.items())},
        summary=_summary(subject, runs, states, len(failures)),
        states=[(title_of(name), state) for name, state in sorted(states.items())],
        problems=problems,
        warnings=sorted({f"{e.model}: {e.warning}" for blocks in runs.values() for e in blocks if e.warning}),
        versions=next((blocks[0].versions for blocks in runs.values()), {}),
        methods=call.methods,
        hashes=call.hashes,
        failures=[(crash.run, crash.path.relative_to(out_dir).as_posix(), crash.text) for crash in failures],
    )


def unresolved(out_dir: Path, subject: str) -> list[Crash]:
    """Return the failures that no later result of the same run and model has made good."""
    written: dict[tuple[str, str], float] = {}
    for path in _sidecars(out_dir, subject):
        name = EMBEDDINGS.fullmatch(path.name)
        assert name is not None
        written[name["run"], name["label"]] = path.stat().st_mtime
    failures = []
    for crash in latest_crashes(out_dir, subject):
        labels = crash.models or tuple(label for run, label in written if run == crash.run)
        times = [written.get((crash.run, label), 0.0) for label in labels] or [0.0]
        if crash.path.stat().st_mtime > min(times):
            failures.append(crash)
    return failures


def title_of(run: str) -> str:
    """Return a run's name as one says it.

    >>> title_of("sub-01_ses-2_task-rest_run-1")
    'session 2, task rest, run 1'
    """
    pairs = [part.partition("-")[::2] for part in run.split("_")]
    return ", ".join(f"{WORDS.get(key, key)} {value}" for key, value in pairs if key != "sub") or run


def _sidecars(out_dir: Path, subject: str) -> list[Path]:
    found = run_tables(out_dir / f"sub-{subject}", "*_embeddings.json")
    return [path for path in found if EMBEDDINGS.fullmatch(path.name)]


def _summary(
    subject: str, runs: dict[str, list[EncodedFacts]], states: dict[str, str], n_failed: int
) -> list[tuple[str, str]]:
    names = {*runs, *states}
    sessions = sorted({part for name in names for part in name.split("_") if part.startswith("ses-")})
    grids = sorted({encoded.grid for blocks in runs.values() for encoded in blocks})
    models = sorted({encoded.model for blocks in runs.values() for encoded in blocks})
    return [
        ("Subject", subject),
        ("Sessions", ", ".join(session.removeprefix("ses-") for session in sessions) or "none"),
        ("Runs", f"{len(names)} found, {len(runs)} with results, {n_failed} failed"),
        ("Models", ", ".join(models) or "none"),
        ("Grid", "; ".join(grids) or "none"),
    ]

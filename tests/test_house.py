"""The house: rooms know only the rooms before them, and files and functions stay short."""

import ast
import subprocess
import sys
from collections import defaultdict
from dataclasses import fields
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers import ROOT

from neurostorm_bids.group.task import task_names
from neurostorm_bids.resample.grid import GRIDS
from neurostorm_bids.runtime.options import options_of
from neurostorm_bids.settings import Settings
from neurostorm_bids.train.plan import LEARNING_RATES
from neurostorm_bids.train.trainer import MIXED

PACKAGE = ROOT / "neurostorm_bids"
# In the order of a run's way; `errors` and the package's version are everybody's
ROOMS = (
    "runtime", "settings", "find", "resample", "model", "encode", "explain", "derivatives", "report", "participant", "train",
    "group", "hpc", "demo", "command", "api",
)  # fmt: skip
MAX_LINES, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 6
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def name_of(path: Path) -> str:
    """Return a module's name without that of the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports anywhere but for type checkers."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("neurostorm_bids"):
            base = node.module.removeprefix("neurostorm_bids").lstrip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".lstrip(".")
                found.add(whole if whole in MODULES else base)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(TREES[path])
    return found - {"", "errors", "__init__"}


def test_every_module_is_in_a_room():
    assert {name.split(".")[0] for name in MODULES} - {"__init__", "__main__", "errors"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_the_rooms_before_it(room):
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    for name, path in MODULES.items():
        if name.split(".")[0] == room:
            assert {other.split(".")[0] for other in imports(path)} <= allowed, name


def test_no_module_imports_in_a_circle():
    graph = {name: {other for other in imports(path) if other != name} for name, path in MODULES.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_the_model_knows_nothing_of_bids():
    for name, path in MODULES.items():
        if name.split(".")[0] == "model":
            others = {other.split(".")[0] for other in imports(path)}
            assert others <= {"model", "runtime", "resample"}, name
            assert not {other for other in imports(path) if other.startswith("resample.")} - {"resample.grid"}, name


STATISTICS = (
    "group.confounds", "group.delta", "group.estimators", "group.evaluation", "group.features", "group.exchange", "group.folds", "group.heads", "group.norm",
    "group.reliability", "group.scores", "group.several", "group.tally",
)  # fmt: skip


@pytest.mark.parametrize("module", STATISTICS)
def test_the_statistics_know_no_files_and_no_tables(module):
    names = {
        alias.name for node in ast.walk(TREES[MODULES[module]]) if isinstance(node, ast.Import) for alias in node.names
    }
    froms = {node.module for node in ast.walk(TREES[MODULES[module]]) if isinstance(node, ast.ImportFrom)}
    ours = {f"neurostorm_bids.{each}" for each in STATISTICS}
    assert not {
        name
        for name in (names | froms) - ours
        if name.split(".")[0] in ("pandas", "pathlib", "json", "neurostorm_bids")
    }


def test_files_are_short():
    assert {str(path): n for path in FILES if (n := path.read_text().count("\n")) > MAX_LINES} == {}


def is_kernel(function: ast.FunctionDef) -> bool:
    return any("jit" in ast.dump(decorator) for decorator in function.decorator_list)


def functions():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not is_kernel(node):
                yield f"{path}:{node.name}", node


def test_functions_are_short():
    """Without their docstrings: those of the public functions say a lot."""
    long = {}
    for name, node in functions():
        first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
        n = node.end_lineno - first.lineno + 1 + (node.body[0].lineno - node.lineno)
        if n > MAX_FUNCTION:
            long[name] = n
    assert long == {}


def test_functions_take_few_things():
    """Not counted are those given by name alone, and self."""
    many = {}
    for name, node in functions():
        taken = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args) if arg.arg not in ("self", "cls")]
        if len(taken) > MAX_PARAMETERS:
            many[name] = taken
    assert many == {}


TASKS = {
    "associations", "attribution", "collect", "decode", "evaluate", "finetune", "identify", "normative", "pretrain", "probe",
    "qc", "reliability",
}  # fmt: skip


def test_the_choices_of_options_are_what_there_is():
    choices = {
        each.name: set(details.list_choices())
        for group in fields(Settings)[3:]
        for each, details in options_of(type(group.default))
    }
    assert choices["grid"] == {"auto", *GRIDS}
    assert choices["tuning"] == set(LEARNING_RATES)
    assert choices["precision"] == set(MIXED)
    assert choices["group_task"] == set(task_names()) == TASKS


def test_every_option_says_what_it_changes():
    changes = defaultdict(set)
    for group in fields(Settings)[3:]:
        for each, details in options_of(type(group.default)):
            changes[details.changes].add(each.name)
    assert set(changes) == {"run", "gridded", "numbers", "nothing"}
    assert changes["gridded"] == {
        "interpolation", "register", "target_tr", "repetition_time", "dummy_scans", "denoise", "mask", "orientation",
        "mean_from", "slice_timing", "slice_time_ref", "jacobian", "fallback_total_readout_time",
    }  # fmt: skip
    assert changes["numbers"] == {
        "window_stride", "precision", "fd_threshold", "max_censored", "conditions", "lag", "window_per_trial",
    }  # fmt: skip


@pytest.mark.parametrize("modules", ["torch pandas", "nilearn sklearn"])
def test_following_a_cluster_imports_nothing_heavy(modules, tmp_path):
    code = f"import sys, neurostorm_bids.command.hpc; print([m for m in {modules.split()} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

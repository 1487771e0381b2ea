"""What every test may ask for."""

import os

import pytest
import torch
from helpers import TESTS, Tree, narrow_model

torch.set_num_threads(1)
os.environ["MATPLOTLIBRC"] = str(TESTS / "matplotlibrc")  # of this process and of those that tests start
os.environ.setdefault("TRITON_INTERPRET", "1")  # GPU kernels are run by Triton's interpreter, on the CPU


@pytest.fixture
def tree(tmp_path):
    """An empty fMRIPrep data set."""
    return Tree(tmp_path / "fmriprep")


@pytest.fixture(scope="session")
def narrow(tmp_path_factory):
    """A quick model whose head tells the sexes apart."""
    path = tmp_path_factory.mktemp("model") / "narrow.ckpt"
    task = {"downstream_task_type": "classification", "task_name": "sex", "classes": ["Female", "Male"]}
    return narrow_model(path, **task)


@pytest.fixture
def neurostorm(capsys):
    """Call the command in this process; returns exit status, stdout and stderr."""
    from neurostorm_bids.command.main import main

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return call

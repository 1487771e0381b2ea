"""A real Slurm, where one is asked for and can be started."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

SLURM_TOOL = ROOT.parent / "shared" / "tools" / "slurm.sh"


@pytest.fixture
def slurm(monkeypatch):
    """One node that takes jobs, which find neurostorm."""
    if os.environ.get("NEUROSTORM_SLURM") != "1":
        pytest.skip("set NEUROSTORM_SLURM=1 to start one")
    if not SLURM_TOOL.exists() or os.geteuid() != 0:
        pytest.skip("no Slurm can be started here")
    line = subprocess.run(["bash", SLURM_TOOL, "up"], capture_output=True, text=True, check=True).stdout
    monkeypatch.setenv("SLURM_CONF", re.search("SLURM_CONF=(.*)", line)[1])
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield
    subprocess.run(["bash", SLURM_TOOL, "down"], capture_output=True)

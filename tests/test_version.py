"""The version stands in `neurostorm_bids.__version__`; what names it beside, names the same."""

import re
from importlib.metadata import version

import pytest
from helpers import ROOT

from neurostorm_bids import __version__


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("CHANGES.md", r"^## (\d[\w.]*)"),  # the newest one, which comes first
        ("CITATION.cff", r"^version: (\S+)"),
        ("Dockerfile", r'image\.version="(.*?)"'),
        ("Singularity.def", r"image\.version (\S+)"),
        ("docs/howto/boutiques.md", r"--image neurostorm:([\d.]+)"),
        ("docs/developers/release.md", r"A tag `v([\d.]+)`"),
    ],
)
def test_files_name_the_version(file, pattern):
    assert re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)[1] == __version__


def test_babs_names_results_by_the_version():
    named = re.search(r'neurostorm: "(.*?)"', (ROOT / "neurostorm_bids" / "hpc" / "babs.yaml").read_text())[1]
    assert named == __version__.replace(".", "-")


def test_the_installed_package_has_it():
    assert version("neurostorm_bids") == __version__


def test_the_day_of_the_release_is_the_same():
    day = re.search(r"^date-released: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert f"## {__version__} ({day})" in (ROOT / "CHANGES.md").read_text()

"""How the site is built; `make docs` calls Sphinx with this folder."""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402  (beside this file)

from neurostorm_bids import __version__  # noqa: E402

project = "neurostorm_bids"
copyright = "the neurostorm_bids developers, Apache 2.0"
version = release = __version__
extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build", "reference/generated"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # options begin with two hyphens
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "furo"  # brings its fonts and scripts along: no request leaves the reader's machine
html_title = "neurostorm_bids"
html_static_path = ["_static"]
html_css_files = ["cells.css"]
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = "%%bash"

numpydoc_show_class_members = False
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"

# The tutorials are run, one after the other, in one folder; errors, and assertions that do not hold, stop the build.
nb_execution_mode = "force"
nb_execution_show_tb = True  # an error is a warning, and warnings stop the build
nb_execution_timeout = 1200  # s a cell
nb_merge_streams = True
tutorial = HERE / "_build" / "tutorial"
for results in ("demo", "out", "more", "more_out"):
    shutil.rmtree(tutorial / results, ignore_errors=True)
tutorial.mkdir(parents=True, exist_ok=True)
os.environ["NEUROSTORM_TUTORIAL"] = str(tutorial)
os.environ["PYTHONPATH"] = str(HERE)  # tutorial.py
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

generate.write_reference(HERE / "reference" / "generated")

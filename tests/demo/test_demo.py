"""The demo is a whole data set, processed by the real command."""

import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from neurostorm_bids.command.demo import main
from neurostorm_bids.demo import phantom
from neurostorm_bids.demo.dataset import write_dataset
from neurostorm_bids.find.confounds import read_confounds
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.settings.participant import Selection


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A short demo data set in the place where the command looks for it."""
    folder = tmp_path_factory.mktemp("demo")
    write_dataset(folder / "fmriprep", n_volumes=10)
    return folder


def test_two_subjects_one_with_two_sessions(demo):
    runs, problems = find_runs(find_dataset(demo / "fmriprep"), Selection())
    assert [run.name for run in runs] == ["sub-01_task-rest", "sub-02_ses-1_task-rest", "sub-02_ses-2_task-rest"]
    assert problems == []
    assert [read_confounds(run.motion.path, 10).non_steady_state for run in runs] == [0, 2, 0]


def test_the_command_runs_and_says_what_is_there(demo):
    result = CliRunner().invoke(main, [str(demo)])
    assert result.exit_code == 0, result.output
    assert result.output.count("done") == 3
    assert "A very small model trained on phantoms: for demonstration" in result.output
    for table in (demo / "neurostorm").rglob("*.tsv"):
        assert str(table.relative_to(demo / "neurostorm")) in result.output
        assert json.loads(table.with_suffix(".json").read_text())["Model"]["Name"] == "demo"


def test_networks_fluctuate_slowly_and_together(demo):
    path = demo / "fmriprep/sub-01/func/sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-preproc_bold.nii.gz"
    image = nib.load(path)
    assert image.header.get_zooms() == (2.0, 2.0, 2.0, 2.0)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    course = phantom.slow_fluctuation(np.random.RandomState(0), 300, 2.0)
    power, frequency = np.abs(np.fft.rfft(course)) ** 2, np.fft.rfftfreq(300, 2.0)
    assert power[(frequency > 0.008) & (frequency < 0.102)].sum() > 0.97 * power.sum()
    data, networks = image.get_fdata(), phantom.anatomy().networks
    means = [np.average(data[n > 0.3], axis=0, weights=n[n > 0.3]) for n in networks]
    posterior = data[tuple(np.argwhere(networks[0] == networks[0].max())[0])]
    assert np.corrcoef(means[0], posterior)[0, 1] > 0.5

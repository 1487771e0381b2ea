"""neurostorm-demo --people: a cohort that the demo model has not seen."""

import pandas as pd
import pytest
from click.testing import CliRunner

from neurostorm_bids.command.demo import main
from neurostorm_bids.demo.cohort import write_people
from neurostorm_bids.derivatives.seen import people_of, was_seen
from neurostorm_bids.find.confounds import read_confounds
from neurostorm_bids.find.dataset import find_dataset
from neurostorm_bids.find.runs import find_runs
from neurostorm_bids.model.load import load_model
from neurostorm_bids.settings.participant import Selection


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    result = CliRunner().invoke(main, [str(folder), "--people", "2"])
    assert result.exit_code == 0, result.output
    return folder


def test_each_has_a_run_head_motion_and_a_phenotype(cohort):
    runs, problems = find_runs(find_dataset(cohort), Selection())
    assert not problems
    people = pd.read_csv(cohort / "participants.tsv", sep="\t")
    assert [run.name.split("_")[0] for run in runs] == list(people["participant_id"])
    assert set(people["coupling"]) == {"apart", "together"}
    assert read_confounds(runs[0].motion.path, 60).framewise_displacement[1:].max() > 0


def test_the_demo_model_has_seen_none_of_them(cohort):
    model, dataset = load_model("demo"), find_dataset(cohort)
    assert people_of(model)
    assert not any(was_seen(model, dataset, label) for label in dataset.subjects())


def test_more_runs_are_of_the_same_person(tmp_path):
    write_people(tmp_path, 1, 3, runs=("ses-1_task-rest", "ses-2_task-rest"))
    names = [run.name for run in find_runs(find_dataset(tmp_path), Selection())[0]]
    assert names == ["sub-000_ses-1_task-rest", "sub-000_ses-2_task-rest"]


def test_other_phantoms_in_the_folder_are_refused(cohort):
    result = CliRunner().invoke(main, [str(cohort), "--people", "2", "--first", "600"])
    assert result.exit_code == 1
    assert "holds other phantoms, such as sub-500" in result.output

"""--conditions from the command to the decoder: two planted conditions are told apart, shuffled events are not."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import Tree, signal

N_TRIALS, GAP = 12, 8.0  # s from one trial to the next


def events_of(folder, name, kinds):
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{4 + GAP * i}\t2\t{kind}\n" for i, kind in enumerate(kinds))
    (folder / f"{name}_events.tsv").write_text(f"onset\tduration\ttrial_type\n{rows}")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, narrow):
    """Ten people, four of them with two runs, with trials of two kinds: after one the front of the brain is brighter, after the other the back."""
    from neurostorm_bids.command.main import main

    folder = tmp_path_factory.mktemp("conditions")
    raw = folder / "raw"
    tree = Tree(raw / "derivatives" / "fmriprep")
    (raw / "dataset_description.json").write_text(
        json.dumps({"Name": "r", "BIDSVersion": "1.8.0", "DatasetType": "raw"})
    )
    for i, again in [*((i, "") for i in range(10)), *((i, "_run-2") for i in range(4))]:
        name, rng = f"sub-{i:02d}_task-faces{again}", np.random.RandomState(i + 50 * bool(again))
        kinds = rng.permutation(["face", "house"] * (N_TRIALS // 2))
        data = signal(i + 50 * bool(again), n_volumes=52).astype(float)
        for k, kind in enumerate(kinds):
            half = slice(19, None) if kind == "face" else slice(None, 19)
            first = int((4 + GAP * k + 3) / 2)
            data[:, half, :, first : first + 3] *= 1.2
        tree.run(name, data=data.astype(np.float32))
        events_of(raw / f"sub-{i:02d}" / "func", name, kinds)
    call = (
        raw,
        folder / "out",
        "participant",
        "--model",
        narrow,
        "--conditions",
        "face",
        "house",
        "--window-per-trial",
    )
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in call])
    assert not stop.value.code
    return raw, folder / "out", call


@pytest.mark.heavy
def test_tables_name_the_windows(encoded):
    table = pd.read_csv(next(encoded[1].glob("sub-05/func/*_embeddings.tsv")), sep="\t")
    events = pd.read_csv(encoded[0] / "sub-05" / "func" / "sub-05_task-faces_events.tsv", sep="\t")
    assert table["trial_type"].tolist() == events["trial_type"].iloc[table["trial"] - 1].tolist()
    middle = events["onset"].iloc[table["trial"] - 1].to_numpy() + 1 + 5
    np.testing.assert_allclose(table["onset"] + table["duration"] / 2, middle, atol=0.41)
    about = json.loads(next(encoded[1].glob("sub-05/func/*_embeddings.json")).read_text())
    assert sorted(about["Windows"]["Conditions"]) == ["face", "house"]


@pytest.mark.heavy
def test_conditions_are_decoded_and_shuffled_ones_are_not(encoded, neurostorm, narrow):
    raw, out, _ = encoded
    call = (raw, out, "group", "--model", narrow, "--group-task", "decode", "--target", "trial_type")

    def accuracy():
        status, _, said = neurostorm(*call)
        assert status == 0, said
        table = pd.read_csv(next(out.glob("group_*_decode_metrics.tsv")), sep="\t")
        return float(table.loc[table["metric"] == "balanced_accuracy", "value"].iloc[0])

    assert accuracy() > 0.75
    rng = np.random.RandomState(0)
    for path in out.glob("sub-*/func/*_embeddings.tsv"):
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        table["trial_type"] = rng.permutation(table["trial_type"])
        table.to_csv(path, sep="\t", index=False)
    assert accuracy() < 0.65


@pytest.mark.heavy
def test_probe_and_identification_take_the_windows_of_conditions(encoded, neurostorm, narrow, tmp_path):
    raw, out, _ = encoded
    ages = "".join(f"sub-{i:02d}\t{20 + 3 * i}\n" for i in range(10))
    (tmp_path / "people.tsv").write_text(f"participant_id\tage\n{ages}")
    call = (raw, out, "group", "--model", narrow, "--phenotype", tmp_path / "people.tsv", "--n-permutations", "19")
    status, _, said = neurostorm(*call, "--group-task", "probe", "--target", "age")
    assert status == 0, said
    predictions = pd.read_csv(next(out.glob("group_*target-age*_predictions.tsv")), sep="\t")
    assert predictions["participant_id"].nunique() == 10
    status, _, said = neurostorm(*call, "--group-task", "probe", "--target", "trial_type")
    assert status == 1
    assert "trial_type is of windows: --group-task decode predicts it" in said
    status, _, said = neurostorm(*call, "--group-task", "identify")
    assert status == 0, said
    table = pd.read_csv(next(out.glob("group_*identif*_runs.tsv")), sep="\t")
    assert table["run_name"].str.contains("sub-0[0-3]").sum() == 8


@pytest.mark.heavy
def test_other_events_make_it_again(encoded, neurostorm):
    raw, out, call = encoded
    path = next(out.glob("sub-09/func/*_embeddings.tsv"))
    events_of(raw / "sub-09" / "func", "sub-09_task-faces", ["house"] * 4 + ["face"] * 8)
    assert neurostorm(*call, "--participant-label", "09")[0] == 0
    assert pd.read_csv(path, sep="\t")["trial_type"].tolist()[:4] == ["house"] * 4


def test_a_run_without_events_says_so(tree, tmp_path, neurostorm, narrow):
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--conditions", "face")
    assert status == 1
    assert "there is no events.tsv (the raw data set is not known; give it as -d raw=PATH)" in said


def test_options_of_conditions_without_conditions_are_named(tree, tmp_path, neurostorm, narrow):
    tree.run()
    _, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "--window-per-trial")
    assert said.count("--window-per-trial has no effect at the participant level here") == 1

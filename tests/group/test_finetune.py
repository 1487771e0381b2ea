"""--group-task finetune from the command line, on real files: from fMRIPrep's runs to a model that predicts."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import NARROW, SHAPE, Tree, lightning, random_network
from safetensors.torch import load_file

from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.checkpoint import Checkpoint, write_safetensors
from neurostorm_bids.model.load import load_model
from neurostorm_bids.participant import one_run

N = 16
FRAMES = NARROW["img_size"][3]
QUICK = ("--epochs", "2", "--omp-nthreads", "1", "--learning-rate", "0.01")
LOW_RANK = ("--augmentation", "none", "--lora-rank", "4", "--lora-alpha", "12")
COMMAND = Path(sys.executable).with_name("neurostorm")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(fMRIPrep's folder, a model, OUT_DIR, a split): sixteen subjects, patients brighter in front."""
    folder = tmp_path_factory.mktemp("study")
    rng, rows = np.random.RandomState(0), []
    tree = Tree(folder / "fmriprep")
    front = np.linspace(-1, 1, SHAPE[1])[None, :, None, None] > 0
    for i in range(N):
        data = 1000 + 300 * (2 * (i % 2) - 1) * front + 40 * rng.standard_normal((*SHAPE, FRAMES))
        tree.run(
            f"sub-{i:02d}_task-rest", data=data.astype(np.float32), repetition_time=0.8, header_repetition_time=0.8
        )
        rows.append(
            {
                "participant_id": f"sub-{i:02d}",
                "group": ["control", "patient"][i % 2],
                "age": 30 + 10.5 * (i % 2) + i / 9,
            }
        )
    pd.DataFrame(rows).to_csv(tree.path / "participants.tsv", sep="\t", index=False)
    parts = ["train"] * 8 + ["validation"] * 4 + ["test"] * 4
    split = pd.DataFrame({"participant_id": [row["participant_id"] for row in rows], "split": parts})
    split.to_csv(folder / "split.tsv", sep="\t", index=False)
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    model = lightning(folder / "narrow.ckpt", network.state_dict(), **NARROW)
    return tree.path, model, folder / "out", folder / "split.tsv"


@pytest.fixture
def finetune(study, neurostorm):
    """Fine-tune in this process; returns the exit status and what was said."""

    def call(*options, target="group", phenotype=None, split=study[3]):
        data, model, out, _ = study
        more = (*(("--split", split) if split else ()), *(("--phenotype", phenotype) if phenotype else ()))
        status, printed, said = neurostorm(
            data,
            out,
            "group",
            "--group-task",
            "finetune",
            "--target",
            target,
            "--model",
            model,
            *QUICK,
            *more,
            *options,
        )
        return status, printed + said

    return call


@pytest.fixture
def tuned(study, finetune):
    """Folder of a model with low-rank additions."""
    folder = study[2] / "models" / "tuned"
    if not folder.exists():
        status, said = finetune("--tuning", "lora", "--save-as", "tuned", *LOW_RANK, "--epochs", "6")
        assert status == 0, said
    return folder


def test_a_tuned_model_predicts_at_the_participant_level_what_it_predicted_at_group_level(study, tuned, neurostorm):
    data, _, out, split = study
    group = pd.read_csv(out / "group_desc-tuned_finetune_predictions.tsv", sep="\t").set_index("participant_id")
    unseen = pd.read_csv(split, sep="\t").query("split == 'test'")["participant_id"].tolist()
    assert sorted(group.index) == unseen
    status, _, said = neurostorm(data, out, "participant", "--model", tuned, "--participant-label", *unseen)
    assert status == 0, said
    for subject in unseen:
        row = read_table(next((out / subject).rglob("*desc-tuned_predictions.tsv"))).iloc[0]
        assert row["value"] == group.loc[subject, "predicted"]
        # group level reads int8: half a step of it, 1/254 of the largest value, is left
        assert row["probability_patient"] == pytest.approx(group.loc[subject, "probability_patient"], abs=0.005)


def test_a_tuned_model_knows_what_its_runs_are_like(study, tuned, neurostorm, tmp_path):
    data, _, out, _ = study
    assert neurostorm(data, out, "participant", "--model", tuned, "--participant-label", "03")[0] == 0
    fit = json.loads(next((out / "sub-03").rglob("*desc-tuned_datafit.json")).read_text())
    assert fit["Reference"] == f"{N} runs"
    assert {name: one["Flag"] for name, one in fit["Measures"].items() if one["Flag"]} == {}
    said = subprocess.run(
        [COMMAND.with_name("neurostorm-model"), "inspect", tuned], capture_output=True, text=True
    ).stdout
    assert f"reference = figures of {N} runs" in said
    assert max(map(len, said.splitlines())) < 1000
    whole = load_model(convert(tuned, tmp_path / "whole.ckpt"), "cpu")  # they go where the weights go
    assert whole.reference == load_model(tuned, "cpu").reference
    other = Tree(tmp_path / "fmriprep")
    side = np.linspace(-1, 1, SHAPE[0])[:, None, None, None] > 0  # right is brighter, not the front
    bold = 1000 + 300 * side + 40 * np.random.RandomState(0).standard_normal((*SHAPE, FRAMES))
    other.run("sub-99_task-rest", data=bold.astype(np.float32), repetition_time=2.4, header_repetition_time=2.4)
    assert neurostorm(other.path, tmp_path / "out", "participant", "--model", tuned)[0] == 0
    fit = json.loads(next((tmp_path / "out").rglob("*desc-tuned_datafit.json")).read_text())
    assert "more slowly than what the model saw" in fit["Measures"]["repetition_time"]["Flag"]


def test_who_is_excluded_is_not_trained_on(study, finetune, tmp_path):
    (tmp_path / "exclude.tsv").write_text("participant_id\treason\nsub-02\tmoved\n")
    status, said = finetune("--tuning", "linear", "--save-as", "without-02", "--exclude", tmp_path / "exclude.tsv")
    assert status == 0, said
    assert f"1 of {N} runs left out by" in said
    assert "sub-02" not in (study[2] / "models" / "without-02" / "split.tsv").read_text()


def convert(model, target):
    subprocess.run([COMMAND.with_name("neurostorm-model"), "convert", model, target], check=True)
    return target


def test_tuned_parts_alone_are_stored(study, tuned):
    _, backbone, _, _ = study  # tuned with --lora-rank 4 --lora-alpha 12
    stored = load_file(tuned / "model.safetensors")
    assert all("lora" in name or name.startswith("output_head.") for name in stored)
    whole = load_model(backbone, "cpu").network.state_dict()
    model = load_model(tuned, "cpu")
    name = "model.layers.0.blocks.0.mamba.in_proj.weight"
    added = 3 * stored[f"{name}.lora_B"] @ stored[f"{name}.lora_A"]
    torch.testing.assert_close(model.network.state_dict()[name], whole[name] + added)
    assert model.task.classes == ("control", "patient")
    assert model.about.startswith("fine-tuned from narrow (lora) on test")


def test_the_card_and_the_page_say_what_was_done(study, tuned):
    out = study[2]
    card = (tuned / "README.md").read_text()
    for fact in ("8 control, 8 patient", "tuned from | narrow", "not for diagnosis", "that --split set aside"):
        assert fact in card
    metrics = pd.read_csv(out / "group_desc-tuned_finetune_metrics.tsv", sep="\t")
    assert f"| {metrics.loc[0, 'value']:.3f} |" in card
    assert pd.read_csv(tuned / "split.tsv", sep="\t")["split"].value_counts().to_dict() == {
        "train": 8, "validation": 4, "test": 4,
    }  # fmt: skip
    assert pd.read_csv(tuned / "history.tsv", sep="\t")["epoch"].tolist() == list(range(1, 7))
    page = (out / "group_desc-tuned_finetune.html").read_text()
    assert "Every training, epoch by epoch" in page


def test_a_model_s_folder_is_not_written_over(study, tuned, finetune):
    status, said = finetune("--tuning", "lora", "--save-as", "tuned")
    assert status == 1
    assert "is there already; give another name with --save-as, or --force" in said


@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_lost_or_other_backbone_is_reported(study, tuned, tmp_path, change):
    folder = shutil.copytree(tuned, tmp_path / "copy")
    backbone = tmp_path / "narrow.ckpt"
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    network.model.patch_embed.fc.bias.data += 1
    file = folder / "model.safetensors"
    content = file.read_bytes()
    elsewhere = str(backbone).encode()
    old = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["hyper_parameters"]
    said = {**json.loads(old), "backbone": {**json.loads(old)["backbone"], "name": elsewhere.decode()}}
    write_safetensors(Checkpoint(file, load_file(file), said), file)
    if change == "other":
        lightning(backbone, network.state_dict(), **NARROW)
        with pytest.raises(NeurostormError, match=r"with SHA-256 .* the one here has"):
            load_model(folder, "cpu")
        return
    with pytest.raises(NeurostormError, match=r"was tuned from .*narrow\.ckpt, which is not there; put a copy into"):
        load_model(folder, "cpu")
    shutil.copy(study[1], folder / "narrow.ckpt")
    assert load_model(folder, "cpu").task.target == "group"


def test_linear_heads_share_one_forward_pass(study, finetune, neurostorm, monkeypatch):
    """A regression beside a classification: the backbone encodes once for both and for itself."""
    data, backbone, out, _ = study
    for target, name in (("age", "lin-age"), ("group", "lin-group")):
        status, said = finetune("--tuning", "linear", "--save-as", name, "--epochs", "30", target=target)
        assert status == 0, said
    encoded, real = [], one_run.embed_windows
    monkeypatch.setattr(
        one_run, "embed_windows", lambda *args, **more: encoded.append(args[1].name) or real(*args, **more)
    )
    models = [
        part
        for name in (backbone, out / "models" / "lin-age", out / "models" / "lin-group")
        for part in ("--model", name)
    ]
    status, _, said = neurostorm(data, out, "participant", *models, "--participant-label", "15")
    assert status == 0, said
    assert encoded == ["narrow"]
    age = read_table(next((out / "sub-15").rglob("*desc-linAge_predictions.tsv"))).iloc[0]
    ours = pd.read_csv(out / "group_desc-linAge_finetune_predictions.tsv", sep="\t").set_index("participant_id")
    assert age["value"] == pytest.approx(ours.loc["sub-15", "predicted"], abs=0.2)  # years
    assert 25 < age["value"] < 50


@pytest.mark.heavy
def test_linear_tuning_reads_the_embeddings_that_are_there(study, neurostorm, tmp_path):
    data, backbone, _, split = study
    here = tmp_path / "out"
    subjects = [f"{i:02d}" for i in range(N)]
    assert neurostorm(data, here, "participant", "--model", backbone, "--participant-label", *subjects[2:])[0] == 0
    call = ("--group-task", "finetune", "--target", "group", "--model", backbone, "--split", split, *QUICK)
    status, _, said = neurostorm(data, here, "group", *call, "--save-as", "read")
    assert status == 0, said
    assert f"embeddings of 14 of 16 runs are read from {here}, the other 2 are resampled and encoded" in said
    assert sorted(path.name[:6] for path in here.glob("work/**/*.npy")) == ["sub-00", "sub-01"]
    with np.load(next(here.glob("work/neurostorm-training/read/embeddings-*.npz"))) as kept:
        rows = np.split(kept["rows"], kept["ends"][:-1])
    written = read_table(next((here / "sub-05").rglob("func/*_embeddings.tsv")))
    np.testing.assert_array_equal(rows[5], channels_of(written).astype(np.float32))
    model = load_model(backbone, "cpu")  # a run that was encoded: what a table would hold, but for the steps of int8
    assert neurostorm(data, here, "participant", "--model", backbone, "--participant-label", "01")[0] == 0
    encoded = channels_of(read_table(next((here / "sub-01").rglob("func/*_embeddings.tsv"))))
    np.testing.assert_allclose(rows[1], encoded, atol=0.02 * np.abs(encoded).max())
    assert rows[1].shape == (1, model.network.config.n_channels)


@pytest.mark.heavy
@pytest.mark.parametrize("change", [("--interpolation", "cubic"), ("--fd-threshold", "0.5"), ("--window-stride", "3")])
def test_embeddings_of_other_settings_are_not_read(study, neurostorm, tmp_path, change):
    data, backbone, _, split = study
    assert neurostorm(data, tmp_path, "participant", "--model", backbone, *change, "--participant-label", "03")[0] == 0
    call = ("--group-task", "finetune", "--target", "group", "--model", backbone, "--split", split, *QUICK)
    status, _, said = neurostorm(data, tmp_path, "group", *call)
    assert status == 0, said
    assert "embeddings of 0 of 16 runs are read" in said


@pytest.fixture(scope="module")
def restless(tmp_path_factory):
    """(fMRIPrep's folder, a split): runs of two windows, whose second one has framewise displacements above 0.5 mm."""
    folder = tmp_path_factory.mktemp("restless")
    rng = np.random.RandomState(0)
    tree = Tree(folder / "fmriprep")
    front = np.linspace(-1, 1, SHAPE[1])[None, :, None, None] > 0
    names = [f"sub-{i:02d}" for i in range(14)]
    for i, name in enumerate(names):
        data = 1000 + 300 * (2 * (i % 2) - 1) * front + 40 * rng.standard_normal((*SHAPE, 2 * FRAMES))
        data[..., FRAMES:] = 40 * rng.standard_normal((*SHAPE, FRAMES)) + 1000
        tree.run(f"{name}_task-rest", data=data.astype(np.float32), repetition_time=0.8, header_repetition_time=0.8)
    groups = pd.DataFrame({"participant_id": names, "group": ["control", "patient"] * 7})
    groups.to_csv(tree.path / "participants.tsv", sep="\t", index=False)
    split = groups.assign(split=["train"] * 6 + ["validation"] * 4 + ["test"] * 4)
    split.to_csv(folder / "split.tsv", sep="\t", index=False)
    return tree, folder / "split.tsv"


@pytest.mark.heavy
@pytest.mark.parametrize("tuning", ["linear", "layernorm"])
def test_censored_windows_take_no_part_in_fine_tuning(study, restless, neurostorm, tmp_path, tuning):
    tree, split = restless
    call = ("--group-task", "finetune", "--target", "group", "--model", study[1], "--split", split, "--tuning", tuning)
    censoring, rate = ("--fd-threshold", "0.5"), ("--learning-rate", "0.1")
    status, _, said = neurostorm(tree.path, tmp_path, "group", *call, *QUICK, *rate, "--save-as", "calm", *censoring)
    assert status == 0, said
    assert "no effect" not in said
    if tuning == "linear":
        with np.load(next(tmp_path.rglob("embeddings-*.npz"))) as kept:
            assert np.diff(kept["ends"], prepend=0).tolist() == [1] * 14
    card = (tmp_path / "models" / "calm" / "README.md").read_text()
    assert "of each sample in an epoch; none with more than 0.5 of its volumes above 0.5 mm" in card
    group = pd.read_csv(tmp_path / "group_desc-calm_finetune_predictions.tsv", sep="\t").set_index("participant_id")
    use = ("participant", "--model", tmp_path / "models" / "calm", "--participant-label", "10", "11")
    found = {}
    for name, more in (("calm", censoring), ("all", ())):
        out = tmp_path / name
        assert neurostorm(tree.path, out, *use, *more)[0] == 0
        tables = [read_table(next((out / subject).rglob("*_predictions.tsv"))) for subject in ("sub-10", "sub-11")]
        found[name] = [table["probability_patient"].iloc[0] for table in tables]
    ours = group.loc[["sub-10", "sub-11"], "probability_patient"]
    np.testing.assert_allclose(ours, found["calm"], atol=0.005)
    assert np.abs(np.array(found["calm"]) - found["all"]).min() > 0.01


@pytest.mark.heavy
def test_runs_without_a_calm_window_or_without_head_motion_are_named(study, restless, neurostorm, tmp_path):
    tree, split = restless
    call = ("--group-task", "finetune", "--target", "group", "--model", study[1], "--split", split)
    confounds = [next(tree.path.glob(f"sub-{i}/func/*confounds*.tsv")) for i in ("00", "01")]
    before = [path.read_text() for path in confounds]
    confounds[0].write_text("framewise_displacement\n" + "3.0\n" * 2 * FRAMES)
    confounds[1].unlink()
    try:
        status, _, said = neurostorm(tree.path, tmp_path, "group", *call, *QUICK, "--fd-threshold", "0.5")
    finally:
        for path, text in zip(confounds, before, strict=True):
            path.write_text(text)
    assert status == 1
    assert "sub-01_task-rest: --fd-threshold needs framewise displacement" in said
    assert "1 runs whose every window is censored for head motion are left out" in said
    assert "for 'group' on 12 samples" in said


def test_covariates_are_refused(finetune):
    status, said = finetune("--covariates", "age")
    assert status == 1
    assert "--covariates cannot be taken out of a model that learns from images; --group-task probe says" in said


@pytest.mark.heavy
def test_two_processes_train_as_one_with_twice_the_batch(study, finetune):
    data, model, out, split = study
    assert finetune("--tuning", "layernorm", "--save-as", "one", "--batch-size", "4")[0] == 0
    done = subprocess.run(
        [COMMAND, data, out, "group", "--group-task", "finetune", "--target", "group", "--model", model, *QUICK,
         "--split", split, "--tuning", "layernorm", "--save-as", "two", "--batch-size", "2", "--devices", "2"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("The model is in") == 1  # the main process speaks
    weights = [load_file(out / "models" / name / "model.safetensors") for name in ("one", "two")]
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=1e-5)
    history = [pd.read_csv(out / "models" / name / "history.tsv", sep="\t") for name in ("one", "two")]
    np.testing.assert_allclose(history[0]["validation_loss"], history[1]["validation_loss"], rtol=1e-4)


def test_cross_validation_tests_every_subject_once(study, finetune):
    out = study[2]
    status, said = finetune("--tuning", "linear", "--save-as", "folds", split=None)
    assert status == 0, said
    table = pd.read_csv(out / "group_desc-folds_finetune_predictions.tsv", sep="\t")
    assert sorted(table["participant_id"]) == [f"sub-{i:02d}" for i in range(N)]
    parts = pd.read_csv(out / "models" / "folds" / "split.tsv", sep="\t")
    folds = [name for name in parts if name.startswith("fold")]
    assert (parts[folds] == "test").sum(axis=1).tolist() == [1] * N
    assert set(parts["the-model-that-is-kept"]) == {"train", "validation"}
    assert "was not tested itself" in (out / "models" / "folds" / "README.md").read_text()


def test_a_finished_training_resumes_to_the_same_model(study, tuned, finetune):
    before = (tuned / "model.safetensors").read_bytes()
    options = ("--tuning", "lora", "--save-as", "tuned", *LOW_RANK, "--epochs")
    status, said = finetune(*options, "6", "--resume")
    assert status == 0, said
    assert "epoch 1," not in said
    assert (tuned / "model.safetensors").read_bytes() == before
    status, said = finetune(*options, "7", "--resume")
    assert status == 1
    assert "was begun with other settings or data" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename(columns={"split": "part"}), "has no column 'split'"),
        (lambda t: t.replace("validation", "val"), "column split holds 'val'; it is one of train, validation, test"),
        (lambda t: t[t["split"] != "test"], "no subject with data and a 'group' is in 'test'"),
        (
            lambda t: t.assign(split=["train" if i % 2 else "test" for i in range(N)]),
            "no subject to train on is of class",
        ),
        (lambda t: pd.concat([t, t]), "more than once"),
    ],
)
def test_a_bad_split_is_reported(study, finetune, tmp_path, change, message):
    table = change(pd.read_csv(study[3], sep="\t"))
    table.to_csv(tmp_path / "split.tsv", sep="\t", index=False)
    status, said = finetune("--save-as", "bad", split=tmp_path / "split.tsv")
    assert status == 1
    assert message in said


def test_families_stay_on_one_side_of_a_split(study, finetune, tmp_path):
    table = pd.read_csv(study[0] / "participants.tsv", sep="\t").assign(family=[f"f{i // 3}" for i in range(N)])
    table.to_csv(tmp_path / "table.tsv", sep="\t", index=False)
    status, said = finetune("--save-as", "bad", "--group-by", "family", phenotype=tmp_path / "table.tsv")
    assert status == 1
    assert "f2 is in several parts; the model would be tested on what it was trained on" in said


def test_a_run_that_cannot_be_resampled_is_left_out_and_reported(study, finetune):
    data, _, _, _ = study
    (data / "sub-99" / "func").mkdir(parents=True)
    try:
        bold = Tree(data).run("sub-99_task-rest")
        bold.write_bytes(b"no image")
        table = pd.read_csv(data / "participants.tsv", sep="\t")
        row = pd.DataFrame([{"participant_id": "sub-99", "group": "control", "age": 30}])
        pd.concat([table, row]).to_csv(data.parent / "more.tsv", sep="\t", index=False)
        status, said = finetune("--save-as", "without", phenotype=data.parent / "more.tsv")
    finally:
        shutil.rmtree(data / "sub-99")
    assert status == 1
    assert "sub-99_task-rest: " in said
    assert (study[2] / "models" / "without" / "model.safetensors").is_file()


def test_a_call_with_other_preprocessing_than_in_training_is_reported(study, tuned, neurostorm, tmp_path):
    data, _, _, _ = study
    status, _, said = neurostorm(
        data, tmp_path / "o", "participant", "--model", tuned, "--participant-label", "01", "--target-tr", "native"
    )
    assert status == 0
    assert "model tuned was trained on runs resampled with --target-tr 0.8, this call has native" in said


def test_a_new_training_takes_nothing_of_an_old_one(study, finetune):
    assert finetune("--save-as", "anew")[0] == 0
    old = study[2] / "work" / "neurostorm-training" / "anew" / "split" / "finished.json"
    old.write_text("[]")
    status, said = finetune("--save-as", "anew", "--force")
    assert status == 0, said
    assert old.read_text() != "[]"


def test_resuming_with_other_images_is_refused(study, finetune):
    assert finetune("--save-as", "images")[0] == 0
    bold = next(study[0].glob("sub-03/func/*bold.nii.gz"))
    before = bold.stat()
    os.utime(bold)
    try:
        status, said = finetune("--save-as", "images", "--resume")
    finally:
        os.utime(bold, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert status == 1
    assert "was begun with other settings or data" in said


def test_samples_that_the_split_leaves_out_take_no_part(study, finetune, tmp_path):
    table = pd.read_csv(study[3], sep="\t")
    table.drop(index=[0, 1, 2]).to_csv(tmp_path / "split.tsv", sep="\t", index=False)
    status, said = finetune("--save-as", "fewer", split=tmp_path / "split.tsv")
    assert status == 0, said
    assert "3 samples with data and a 'group' are not in" in said
    assert len(pd.read_csv(study[2] / "models" / "fewer" / "split.tsv", sep="\t")) == N - 3


def test_two_models_are_not_tuned_at_once(study, finetune):
    status, said = finetune("--save-as", "two-models", "--model", "demo")
    assert status == 1
    assert "tunes one model; give one --model" in said


def test_a_random_backbone_is_found_again(study, neurostorm):
    data, model, out, split = study
    call = ("--group-task", "finetune", "--target", "group", "--model", f"{model}@random", "--split", split)
    assert neurostorm(data, out, "group", *call, *QUICK, "--save-as", "chance")[0] == 0
    again = load_model(out / "models" / "chance", "cpu")
    assert again.warning == "random weights, for comparison"


def test_two_models_of_one_label_are_refused(study, tuned, finetune):
    status, said = finetune("--save-as", "tuned.")
    assert status == 1
    assert "tuned is there already, and the files of both would be desc-tuned" in said


def test_runs_shorter_than_a_window_are_reported(study, neurostorm):
    data, _, out, split = study  # the demo's windows have 20 frames
    call = ("--group-task", "finetune", "--target", "group", "--model", "demo", "--split", split)
    status, _, said = neurostorm(data, out, "group", *call)
    assert status == 1
    assert "sub-00_task-rest: 6 frames are fewer than one window of 20" in said
    assert "error: no run is left to train on: all 16 have problems" in said


@pytest.mark.heavy
def test_stopping_two_processes_leaves_none_behind(study):
    data, model, out, split = study
    process = subprocess.Popen(
        [COMMAND, data, out, "group", "--group-task", "finetune", "--target", "group", "--model", model, "--split", split,
         "--tuning", "layernorm", "--save-as", "stopped", "--epochs", "500", "--patience", "500", "--devices", "2"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if "epoch 2" in line:
            break
    process.terminate()
    said = process.stderr.read()
    assert process.wait(timeout=20) == 143
    assert "stopped by SIGTERM: add --resume to the same command to continue" in said
    time.sleep(1)
    left = subprocess.run(["pgrep", "-f", "save-as stopped"], capture_output=True, text=True).stdout
    assert left == ""

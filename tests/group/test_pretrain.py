"""--group-task pretrain from the command line, on real files."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import NARROW, SHAPE, Tree, lightning, random_network
from safetensors import safe_open
from safetensors.torch import load_file

from neurostorm_bids import load_model
from neurostorm_bids.model.checkpoint import read_checkpoint
from neurostorm_bids.model.masks import Masking
from neurostorm_bids.model.pretrained import autoencoder_of, config_of_size, projection_of
from neurostorm_bids.resample.grid import get_grid
from neurostorm_bids.train.pretrain_data import PretrainingWindows, Views

COMMAND = Path(sys.executable).with_name("neurostorm")
FRAMES = NARROW["img_size"][3]
QUICK = ("--epochs", "1", "--omp-nthreads", "1")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(fMRIPrep's folder, a model, OUT_DIR): five people with two windows each."""
    folder = tmp_path_factory.mktemp("pretrain")
    rng, tree = np.random.RandomState(0), Tree(folder / "fmriprep")
    for i in range(5):
        data = 1000 + 200 * rng.standard_normal((*SHAPE, 1)) + 40 * rng.standard_normal((*SHAPE, 2 * FRAMES))
        tree.run(
            f"sub-{i:02d}_task-rest", data=data.astype(np.float32), repetition_time=0.8, header_repetition_time=0.8
        )
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    return tree.path, lightning(folder / "narrow.ckpt", network.state_dict(), **NARROW), folder / "out"


@pytest.fixture
def pretrain(study, neurostorm):
    """Pretrain in this process; returns the exit status and what was said."""

    def call(*options):
        data, model, out = study
        status, printed, said = neurostorm(
            data, out, "group", "--group-task", "pretrain", "--from", model, *QUICK, *options
        )
        return status, printed + said

    return call


@pytest.mark.parametrize("objective", ["mae", "mae+contrastive"])
def test_a_pretrained_model_is_kept_and_encodes(study, pretrain, neurostorm, objective):
    data, start, out = study
    name = objective.replace("+", "-")
    status, said = pretrain("--save-as", name, "--objective", objective, "--hidden", "random", "--redundancy-dropout")
    assert status == 0, said
    folder = out / "models" / name
    weights = load_file(folder / "model.safetensors")
    assert {"model.mask_token", "model.decoder_pred.weight", "model.layers_up.0.blocks.0.norm1.weight"} <= set(weights)
    assert ("output_head.fc1.weight" in weights) == (objective != "mae")
    before = load_model(start, "cpu").network.state_dict()
    assert not torch.equal(weights["model.patch_embed.fc.weight"], before["model.patch_embed.fc.weight"])
    with safe_open(folder / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()["hyper_parameters"])
    assert (about["spatial_mask"], about["time_mask"], about["use_strd"]) == ("random", "random", True)
    assert len(about["people"]) == 3  # two of five are held out
    history = pd.read_csv(folder / "history.tsv", sep="\t")
    assert np.isfinite(history[["train_loss", "validation_error", "effective_rank", "rank1"]]).all(axis=None)
    status, _, said = neurostorm(data, out, "participant", "--model", folder, "--participant-label", "00")
    assert status == 0, said
    page = (out / f"group_desc-{'mae' if objective == 'mae' else 'maeContrastive'}_pretrain.html").read_text()
    assert "skill" in page


def test_going_on_keeps_the_decoder(study, pretrain):
    _, _, out = study
    status, said = pretrain("--save-as", "first")
    assert status == 0, said
    assert "has no decoder: a new one is trained with it" in said
    network, _, has_decoder = autoencoder_of(str(out / "models" / "first"), Masking(), 0)
    assert has_decoder
    kept = load_file(out / "models" / "first" / "model.safetensors")
    assert torch.equal(network.state_dict()["model.decoder_pred.weight"], kept["model.decoder_pred.weight"])


def test_what_was_pretrained_goes_on_whole_in_the_format_of_published_checkpoints(study, pretrain, tmp_path):
    folder = study[2] / "models" / "both-losses"
    status, said = pretrain("--save-as", "both-losses", "--objective", "mae+contrastive", "--contrast", "both")
    assert status == 0, said
    checkpoint = tmp_path / "ours.ckpt"
    subprocess.run([COMMAND.with_name("neurostorm-model"), "convert", folder, checkpoint], check=True)
    kept, converted = load_file(folder / "model.safetensors"), read_checkpoint(checkpoint).tensors
    assert kept.keys() == converted.keys()
    assert all(torch.equal(tensor, converted[name]) for name, tensor in kept.items())
    network, _, has_decoder = autoencoder_of(str(checkpoint), Masking(), 0)
    assert has_decoder
    assert torch.equal(network.state_dict()["model.decoder_pred.weight"], kept["model.decoder_pred.weight"])
    assert torch.equal(projection_of(str(checkpoint))["fc1.weight"], kept["output_head.fc1.weight"])
    back = tmp_path / "back.safetensors"
    subprocess.run([COMMAND.with_name("neurostorm-model"), "convert", checkpoint, back], check=True)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in load_file(back).items())


def test_people_whom_the_start_has_not_seen_are_held_out_first(study, pretrain):
    assert pretrain("--save-as", "one", "--participant-label", "00", "01", "02", "03")[0] == 0
    models = study[2] / "models"
    status, said = pretrain("--save-as", "two", "--from", models / "one", "--held-out", "0.4", "--batch-size", "1")
    assert status == 0, said
    split = pd.read_csv(models / "two" / "split.tsv", sep="\t").set_index("run_name")["part"]
    before = pd.read_csv(models / "one" / "split.tsv", sep="\t").set_index("run_name")["part"]
    unseen = {"sub-04_task-rest", *before[before == "validation"].index}
    assert set(split[split == "validation"].index) <= unseen
    assert "is no test" not in said
    status, said = pretrain("--save-as", "three", "--from", models / "two", "--held-out", "0.8", "--batch-size", "1")
    assert status == 0, said
    assert "who are held out before: what is said of them is no test" in said


def test_a_loss_that_is_no_number_is_said(pretrain):
    status, said = pretrain("--save-as", "no", "--learning-rate", "1000")
    assert status == 1
    assert "the loss is no longer a number; give a smaller --learning-rate" in said


def test_who_is_excluded_is_not_trained_on(study, pretrain, tmp_path):
    (tmp_path / "exclude.tsv").write_text("participant_id\treason\nsub-02\tmoved\n")
    status, said = pretrain("--save-as", "fewer", "--exclude", tmp_path / "exclude.tsv")
    assert status == 0, said
    assert "1 of 5 runs left out by" in said
    split = pd.read_csv(study[2] / "models" / "fewer" / "split.tsv", sep="\t")
    assert len(split) == 4
    assert not split["run_name"].str.startswith("sub-02").any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "embed_dim=24"), "which --from goes on with, has another (embed_dim="),
        (("--size", "base"), "leave out --size"),
        (("--mask-ratio", "0.01"), "hides none; give --mask-ratio"),
        (("--mask-ratio", "0"), "has to be above 0"),
        (
            ("--objective", "contrastive", "--batch-size", "50"),
            "6 windows to train on, of runs long enough for two, and a step takes 50",
        ),
        (("--participant-label", "00", "01"), "2 persons with runs that can be used: at least 4 are needed"),
    ],
)
def test_what_cannot_be_trained_is_said(pretrain, options, message):
    status, said = pretrain(*options, "--save-as", "no")
    assert status != 0
    assert message in said


@pytest.mark.parametrize("word", ["huge", "embed_dim=0", "img_size=50", "depths=a,b", "colour=3"])
def test_sizes_that_mean_nothing(word):
    with pytest.raises(Exception, match="--size"):
        config_of_size((word,))


def test_sizes():
    assert config_of_size(("base", "depths=2,2", "img_size=48")).img_size == (48, 48, 48, 20)
    assert config_of_size(("large",)).embed_dim > config_of_size(("base",)).embed_dim


class Ramp:
    """A run whose frames are their numbers."""

    background, scale = 0.0, 1.0

    def __init__(self, n):
        self.shape = (6, 6, 6, n)

    def stored(self, start, stop):
        return np.broadcast_to(
            np.arange(start, stop, dtype=np.int8)[:, None, None, None], (stop - start, 6, 6, 6)
        ).copy()


def test_windows_are_the_same_in_every_process_and_partners_do_not_overlap():
    views = Views(Masking("random", 0.5), 100, "none", 2)
    runs = [Ramp(n) for n in (23, 4, 11, 8, 9, 10)]  # of 8 to 10 frames, the middle leaves no room for a partner
    data = PretrainingWindows(runs, np.arange(6), 4, views, 7, shifted=True)
    assert {data.place(k)[0] for k in range(len(data))} == {0, 2, 3, 4, 5}  # a run of one window has no partner
    for epoch in range(5):
        for i in range(len(data)):
            clips, hidden, _, person = data[epoch, i]
            again = data[epoch, i]
            assert torch.equal(clips.frames, again[0].frames)
            assert torch.equal(hidden, again[1])
            assert person == data.place(i)[0]
            frames = [set(clip[:, 0, 0, 0].tolist()) for clip in clips.frames]
            assert not frames[0] & frames[1]
            assert max(max(part) for part in frames) < data.runs[person].shape[3]
    assert not torch.equal(data[0, 0][1], data[1, 0][1])


@pytest.mark.heavy
def test_two_processes_train_as_one_with_twice_the_batch(study, pretrain):
    data, model, out = study
    same = ("--hidden", "random", "--objective", "mae+contrastive", "--contrast", "both", "--augmentation", "none",
            "--steps", "3", "--validate-every", "3")  # fmt: skip
    assert pretrain("--save-as", "one", "--batch-size", "6", *same)[0] == 0
    done = subprocess.run(
        [COMMAND, data, out, "group", "--group-task", "pretrain", "--from", model, *QUICK, *same,
         "--save-as", "two", "--batch-size", "3", "--devices", "2"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    history = [pd.read_csv(out / "models" / name / "history.tsv", sep="\t") for name in ("one", "two")]
    for name in ("train_loss", "validation_error"):  # clips of held-out people are compared within a process
        np.testing.assert_allclose(history[0][name], history[1][name], rtol=1e-3)
    # what three steps changed; a part that begins with weights of its own has the same ones in both
    start = {name: tensor.float() for name, tensor in read_checkpoint(model).tensors.items()}
    ends = [load_file(out / "models" / name / "model.safetensors") for name in ("one", "two")]
    one, two = (torch.cat([(end[name] - start[name]).flatten() for name in start if name in end]) for end in ends)
    assert float(torch.nn.functional.cosine_similarity(one, two, dim=0)) > 0.999
    heads = [end["output_head.fc1.weight"] for end in ends]
    torch.testing.assert_close(*heads, atol=2e-4, rtol=0)


def test_regions_of_a_parcellation_are_hidden(pretrain, tmp_path):
    grid = get_grid(None)
    labels = np.zeros(grid.shape, np.int16)
    labels[24:72, 24:72, 24:72] = 1 + (np.arange(48) // 12)[:, None, None]
    path = tmp_path / "atlas.nii.gz"
    nib.save(nib.Nifti1Image(labels, grid.matrix), path)
    status, said = pretrain("--save-as", "atlas", "--hidden", "atlas", "--parcellation", path)
    assert status == 0, said
    nib.save(nib.Nifti1Image(0 * labels, grid.matrix), path)
    status, said = pretrain("--save-as", "no", "--hidden", "atlas", "--parcellation", path)
    assert status == 1
    assert "none of its regions is in the model's grid" in said
    status, said = pretrain("--save-as", "no", "--hidden", "atlas")
    assert status == 1
    assert "needs --parcellation FILE" in said


@pytest.mark.heavy
def test_a_small_network_from_the_beginning_sees_runs_in_low_resolution(study, neurostorm, tmp_path):
    data, _, _ = study
    size = ("embed_dim=4", "depths=1,1", "img_size=24", f"sequence_length={FRAMES}")
    call = ("group", "--group-task", "pretrain", "--size", *size, "--save-as", "small", *QUICK)
    status, _, said = neurostorm(data, tmp_path / "o", *call)
    assert status == 0, said
    model = load_model(tmp_path / "o" / "models" / "small", "cpu")
    assert model.network.config.img_size == (24, 24, 24, FRAMES)
    status, _, said = neurostorm(data, tmp_path / "o", "participant", "--model", tmp_path / "o" / "models" / "small")
    assert status == 0, said


@pytest.mark.heavy
def test_several_data_sets_are_trained_on_together_from_stores_that_are_there(study, pretrain, neurostorm, tmp_path):
    """One of images that are placed now, one of stores in a work folder, which nothing is written to."""
    data, _, out = study
    assert pretrain("--save-as", "stores")[0] == 0
    stores = out / "work"
    before = {path: path.stat().st_mtime_ns for path in stores.rglob("*_bold.npy")}
    call = ("group", "--group-task", "pretrain", "--from", study[1], "--save-as", "both", *QUICK)
    more = ("--pretrain-on", stores, "--mixing", "0.5", "--cache-gb", "1", "--cache-dir", tmp_path / "fast")
    status, _, said = neurostorm(data, tmp_path / "o", *call, *more, "--participant-label", "00", "01", "02", "03")
    assert status == 0, said
    split = pd.read_csv(tmp_path / "o" / "models" / "both" / "split.tsv", sep="\t")
    parts = split.groupby(split["run_name"].str.partition("_")[0])["part"].nunique()
    assert (parts == 1).all()  # the same people are in both: nobody is on both sides
    assert set(split["part"]) == {"train", "validation"}
    assert len(split) == 9
    assert not list((tmp_path / "fast").iterdir())  # copies are removed in the end
    assert {path: path.stat().st_mtime_ns for path in stores.rglob("*_bold.npy")} == before
    status, _, said = neurostorm(data, tmp_path / "o", *call, "--pretrain-on", data, "--force")
    assert status == 1
    assert "a data set is given twice" in said


@pytest.mark.heavy
def test_slurm_warns_and_the_training_goes_on_in_another_job(study, tmp_path):
    data, model, out = study
    call = [COMMAND, data, out, "group", "--group-task", "pretrain", "--from", model, "--save-as", "long",
            "--steps", "5000", "--validate-every", "5", "--batch-size", "1", "--omp-nthreads", "1"]  # fmt: skip
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.endswith("training\n"):
                break
        checkpoints = out / "work" / "neurostorm-training" / "long"
        while not (checkpoints / "begun.json").exists():
            time.sleep(0.1)
        time.sleep(5)
        process.send_signal(signal.SIGUSR1)
        said = process.stderr.read()
    assert process.returncode == 75, said
    page = (out / "group_desc-long_pretrain.html").read_text()
    looked = int(re.search(r"Not at its end: this is after step (\d+) of 5000", page)[1])
    first = int(re.search(r"stopped after step (\d+); the same command with --resume", said)[1])
    assert looked == first // 5 * 5
    assert "Pretraining: long" in (out / "group_index.html").read_text()
    done = subprocess.run([*call, "--resume", "--max-hours", "1e-9"], capture_output=True, text=True)
    assert done.returncode == 75, done.stderr
    assert f"stopped after step {first + 1}, since the time is up" in done.stderr


def test_a_target_is_looked_at_beside_the_loss(study, pretrain, tmp_path):
    _, _, out = study
    table = tmp_path / "people.tsv"
    table.write_text("participant_id\tage\n" + "".join(f"sub-{i:02d}\t{20 + i}\n" for i in range(5)))
    status, said = pretrain("--save-as", "aged", "--phenotype", table, "--target", "age")
    assert status == 0, said
    assert "probe" in pd.read_csv(out / "models" / "aged" / "history.tsv", sep="\t")
    status, said = pretrain("--save-as", "no", "--phenotype", table, "--target", "height")
    assert status == 1
    assert "--target height: there is no such column; there are: age" in said

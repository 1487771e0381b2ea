"""Every bad input gets one line that names the file and the remedy; other runs finish; the exit status is 1."""

import gzip
import os
import pickle
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import AFFINE, NARROW, SHAPE, ellipsoid, lightning, random_network, save, signal

NAME = "sub-01_task-rest"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A quick model."""
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    return lightning(tmp_path_factory.mktemp("model") / "narrow.ckpt", network.state_dict(), **NARROW)


def beside(bold, old, new):
    """Another file of the same run."""
    return bold.with_name(bold.name.replace(old, new))


def mask_of(bold):
    return beside(bold, "desc-preproc_bold", "desc-brain_mask")


def sidecar_of(bold):
    return beside(bold, ".nii.gz", ".json")


def confounds_of(bold):
    return bold.with_name(f"{NAME}_desc-confounds_timeseries.tsv")


def truncate(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def dangling(path):
    path.unlink()
    path.symlink_to("../../../.git/annex/objects/xx/yy/MD5E-s1--abc.nii.gz")


def with_nan(bold):
    data = signal()
    data[16, 19, 16, 3] = np.nan
    save(bold, data, repetition_time=2.0)


def header_byte(path, offset, value):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(content)))


def no_repetition_time(bold):
    sidecar_of(bold).write_text("{}")
    save(bold, signal(), repetition_time=0.0)


def elsewhere(bold):
    affine = AFFINE.copy()
    affine[:3, 3] += 1000
    save(bold, signal(), affine, 2.0)
    save(mask_of(bold), ellipsoid(), affine)


BAD_RUNS = {
    "mask missing": (lambda b: mask_of(b).unlink(), "there is no brain mask: neither .*desc-brain_mask.nii.gz nor .* --mask template"),
    "mask empty": (lambda b: save(mask_of(b), np.zeros(SHAPE, np.uint8)), "desc-brain_mask.nii.gz is empty"),
    "mask of four axes": (lambda b: save(mask_of(b), np.ones((*SHAPE, 2), np.uint8)), "a brain mask is one volume"),
    "mask not fetched": (lambda b: dangling(mask_of(b)), "not fetched: .*mask.nii.gz.*datalad get"),
    "one volume": (lambda b: save(b, signal()[..., 0]), "is one volume .*, not a run"),
    "five axes": (lambda b: save(b, signal().reshape(*SHAPE, 3, 4)), "a BOLD run has x, y, z and time"),
    "not fetched": (dangling, "not fetched: .*bold.nii.gz.*datalad get"),
    "of 0 bytes": (lambda b: b.write_bytes(b""), r"bold.nii.gz is empty \(0 bytes\)"),
    "cut short": (truncate, "bold.nii.gz is damaged or cut short"),
    "cut in the header": (lambda b: b.write_bytes(gzip.compress(gzip.decompress(b.read_bytes())[:100])), "cannot be read as NIfTI"),
    "not gzip": (lambda b: b.write_bytes(b"hello" * 100), "cannot be read as NIfTI"),
    "a flipped bit": (lambda b: b.write_bytes(b.read_bytes()[:-300] + bytes(100) + b.read_bytes()[-200:]), "damaged or cut short|cannot be read"),
    "of a wrong checksum": (lambda b: b.write_bytes(b.read_bytes()[:-8] + bytes(8)), "bold.nii.gz is damaged"),
    "complex": (lambda b: save(b, signal().astype(np.complex64), repetition_time=2.0), "numbers of type complex64"),
    "of negative values": (lambda b: save(b, -signal(), repetition_time=2.0), "100% of the values in the brain are below 0: .*--mean-from"),
    "a mask of one voxel": (lambda b: save(mask_of(b), (np.arange(np.prod(SHAPE)).reshape(SHAPE) == 16000).astype(np.uint8)), "too few to encode|none of its brain"),
    "unknown data type": (lambda b: header_byte(b, 70, b"\xe7\x03"), "bold.nii.gz"),
    "no voxels": (lambda b: header_byte(b, 42, b"\x00\x00"), "bold.nii.gz"),
    "a sidecar that is a folder": (lambda b: (sidecar_of(b).unlink(), sidecar_of(b).mkdir()), "preproc_bold.json is not a regular file"),
    "a deep sidecar": (lambda b: sidecar_of(b).write_text("[" * 100000), "preproc_bold.json is not readable JSON"),
    "a repetition time of 400 digits": (lambda b: sidecar_of(b).write_text('{"RepetitionTime": ' + "9" * 400 + "}"), "RepetitionTime is .*, not a number"),
    "NaN": (with_nan, "brain voxels hold NaN or infinity"),
    "no repetition time": (no_repetition_time, "--repetition-time"),
    "repetition time of 2000 s": (lambda b: sidecar_of(b).write_text('{"RepetitionTime": 2000}'), "2000 s .*not plausible"),
    "repetition time as text": (lambda b: sidecar_of(b).write_text('{"RepetitionTime": "2 s"}'), "RepetitionTime is '2 s', not a number"),
    "sidecar not JSON": (lambda b: sidecar_of(b).write_text("{"), "preproc_bold.json is not readable JSON"),
    "sidecar a list": (lambda b: sidecar_of(b).write_text("[]"), "preproc_bold.json is not a JSON object"),
    "ten frames": (lambda b: save(b, signal(n_volumes=2), repetition_time=2.0) and confounds_of(b).unlink(), "5 frames .* fewer than one window of 6"),
    "confounds of another run": (lambda b: confounds_of(b).write_text("framewise_displacement\n1\n"), "has 1 rows, the run 12 volumes"),
    "confounds empty": (lambda b: confounds_of(b).write_text(""), "confounds_timeseries.tsv cannot be read"),
    "constant": (lambda b: save(b, np.full((*SHAPE, 12), 7.0, np.float32), repetition_time=2.0), "signal is the same everywhere"),
    "out of the template": (elsewhere, "none of its brain lies in the grid 'fsl'"),
    "affine that cannot be inverted": (lambda b: header_byte(b, 280, bytes(16)), "its affine cannot be inverted"),
    "another image format": (lambda b: nib.save(nib.MGHImage(signal(), AFFINE), str(b).replace(".nii.gz", ".mgz")) or os.rename(str(b).replace(".nii.gz", ".mgz"), b), "cannot be read as NIfTI|not NIfTI"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_RUNS)
def test_a_bad_run_is_reported_and_the_others_finish(tree, tmp_path, neurostorm, model, kind):
    spoil, message = BAD_RUNS[kind]
    bad = tree.run(NAME)
    tree.run("sub-02_task-rest")
    spoil(bad)
    status, printed, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", model)
    complaints = [line for line in said.splitlines() if line.startswith("error: ")]
    assert status == 1
    assert len(complaints) == 1
    assert complaints[0].startswith(f"error: {NAME}: ")
    assert re.search(message, complaints[0]), complaints[0]
    assert "Traceback" not in said
    assert "bug" not in said
    assert [line.split()[-1] for line in printed.splitlines()[1:3]] == ["FAILED", "done"]
    assert list((tmp_path / "out").glob("sub-02/func/*embeddings.tsv"))
    assert not (tmp_path / "out" / "sub-01" / "func").exists()


def test_mask_on_another_grid_is_resampled_with_a_warning(tree, tmp_path, neurostorm, model):
    coarse = AFFINE @ np.diag([2.0, 2, 2, 1])
    coarse[:3, 3] += 3.0
    save(mask_of(tree.run(NAME)), ellipsoid(tuple(n // 2 for n in SHAPE)), coarse)
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", model)
    assert status == 0
    assert (
        "desc-brain_mask.nii.gz is on another grid of voxels (16x19x16) than the run (32x38x32): it is resampled"
        in said
    )


def test_only_spaces_that_nothing_leads_to(tree, tmp_path, neurostorm, model):
    tree.run(NAME, space="space-T1w")
    tree.run("sub-02_task-rest")
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", model)
    assert status == 1
    assert "no transform from MNI152NLin6Asym to what is there (space-T1w: sub-01_from-T1w_to-MNI152NLin6Asym" in said


def test_stop_on_first_crash(tree, tmp_path, neurostorm, model):
    mask_of(tree.run(NAME)).unlink()
    tree.run("sub-02_task-rest")
    status, printed, said = neurostorm(
        tree.path, tmp_path / "out", "participant", "--model", model, "--stop-on-first-crash"
    )
    assert status == 1
    assert "sub-02" not in printed
    assert "1 runs not done" in said


def test_unknown_label_and_the_others_finish(tree, tmp_path, neurostorm, model):
    tree.run(NAME)
    status, printed, said = neurostorm(
        tree.path, tmp_path / "out", "participant", "--model", model, "--participant-label", "01", "99"
    )
    assert status == 1
    assert "error: sub-99 was asked for but not found; there are: 01" in said
    assert "done" in printed


def malicious(path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {path.parent / 'trace'}",)

    path.write_bytes(pickle.dumps(Evil()))


def no_numbers(path):
    torch.save({"weights": 1}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (malicious, "not a PyTorch checkpoint"),
        (no_numbers, "no state_dict"),
        (lambda path: path.write_text("x"), "not a PyTorch checkpoint"),
        (lambda path: None, "model file not found"),
    ],
)
def test_bad_model_file(tree, tmp_path, neurostorm, make, message):
    tree.run(NAME)
    make(tmp_path / "evil.ckpt")
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", tmp_path / "evil.ckpt")
    assert status == 1
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nonesuch"], "unknown model 'nonesuch'"),
        (["--model", "base"], "neurostorm-model fetch base"),
        (["--model", "demo", "--label-mean", "3"], "--label-mean and --label-std are for regression"),
        (["--model", "demo", "--work-dir", "{tree}/work"], "--work-dir .* is inside the input"),
        (["--model", "demo", "-d", "fmriprep=/nowhere"], "--derivatives fmriprep=/nowhere: there is no such folder"),
        (["--model", "demo", "--task-id", "nback"], "no .*desc-preproc_bold.nii.gz for sub-01 .task nback."),
        (["--model", "demo", "--device", "cuda"], "PyTorch sees no GPU"),
    ],
)
def test_settings_that_cannot_work(tree, tmp_path, neurostorm, monkeypatch, options, message):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setenv("NEUROSTORM_HOME", str(tmp_path / "home"))
    tree.run(NAME)
    options = [option.replace("{tree}", str(tree.path)) for option in options]
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", *options)
    assert status == 1
    assert re.search(message, said), said
    assert said.startswith(("error: ", "reading ", "model "))


def test_output_into_the_input_is_refused(tree, neurostorm):
    tree.run(NAME)
    before = {path for path in tree.path.rglob("*")}
    for out in (tree.path, tree.path / "out"):
        status, _, said = neurostorm(tree.path, out, "participant", "--model", "demo")
        assert status == 1
        assert "inside the input, which is never written to" in said
    assert {path for path in tree.path.rglob("*")} == before


def test_output_that_cannot_be_written(tree, tmp_path, neurostorm):
    tree.run(NAME)
    (tmp_path / "out").write_text("a file")
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", "demo")
    assert status != 0
    assert "out" in said


def test_damaged_weights_give_no_numbers(tree, tmp_path, neurostorm):
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"])
    weights = network.state_dict()
    weights["model.layers.1.blocks.1.mlp.linear2.weight"].fill_(3e38)  # numbers, whose sums are none
    path = lightning(tmp_path / "nan.ckpt", weights, **NARROW)
    tree.run(NAME)
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", path)
    assert status == 1
    assert "embeddings are not finite" in said


def test_two_models_of_one_label(tree, tmp_path, neurostorm, model):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "narrow.ckpt").write_bytes(model.read_bytes())
    tree.run(NAME)
    status, _, said = neurostorm(
        tree.path, tmp_path / "o", "participant", "--model", model, tmp_path / "b" / "narrow.ckpt"
    )
    assert status == 1
    assert "both be written as desc-narrow" in said


def test_output_folder_of_another_program_is_refused(tree, tmp_path, neurostorm, model):
    tree.run(NAME)
    out = tmp_path / "xcpd"
    out.mkdir()
    (out / "dataset_description.json").write_text('{"Name": "precious", "GeneratedBy": [{"Name": "XCP-D"}]}')
    status, _, said = neurostorm(tree.path, out, "participant", "--model", model)
    assert status == 1
    assert "holds a data set of another program" in said
    assert "precious" in (out / "dataset_description.json").read_text()


def test_a_linked_data_set_is_not_written_to(tree, tmp_path, neurostorm, model):
    tree.run(NAME)
    raw = tmp_path / "raw" / "derivatives"
    raw.mkdir(parents=True)
    (raw / "fmriprep").symlink_to(tree.path)
    before = set(tree.path.rglob("*"))
    for option in ([], ["--work-dir", raw / "fmriprep" / "w"], ["--bids-database-dir", tree.path / "db"]):
        out = tmp_path / "o" if option else raw / "fmriprep" / "out"
        status, _, said = neurostorm(tmp_path / "raw", out, "participant", "--model", model, *option)
        assert status == 1
        assert "inside the input" in said
    assert set(tree.path.rglob("*")) == before


@pytest.mark.parametrize("spoil", ["", "header", "cut", "columns"])
def test_a_damaged_table_is_no_finished_run(tree, tmp_path, neurostorm, model, spoil):
    tree.run(NAME)
    call = (tree.path, tmp_path / "out", "participant", "--model", model)
    neurostorm(*call)
    table = next((tmp_path / "out").rglob("func/*embeddings.tsv"))
    good = table.read_text()
    lines = good.splitlines(keepends=True)
    table.write_text({"": "", "header": lines[0], "cut": "".join(lines[:-1]), "columns": "a\tb\n1\t2\n"}[spoil])
    status, printed, _ = neurostorm(*call)
    assert (status, table.read_text()) == (0, good)
    assert "skipped" not in printed


def test_a_damaged_table_of_another_run_does_not_hide_what_was_done(tree, tmp_path, neurostorm, model):
    tree.run(NAME)
    tree.run("sub-01_task-other")
    call = (tree.path, tmp_path / "out", "participant", "--model", model)
    neurostorm(*call)
    table = next((tmp_path / "out").rglob("func/*task-other*embeddings.tsv"))
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([lines[0], *(re.sub(r"[-0-9.e]+$", "abc", line.rstrip()) + "\n" for line in lines[1:])]))
    status, printed, said = neurostorm(*call, "-t", "rest")
    assert status == 1
    assert "sub-01: its table cannot be written" in said
    assert "sub-01_task-rest" in printed


def test_a_description_that_nothing_can_read_is_one_line(tree, tmp_path, neurostorm, model):
    tree.run(NAME)
    (tree.path / "dataset_description.json").write_text("[" * 100000)
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", model)
    assert status == 1
    assert f"{tree.path} cannot be indexed" in said.splitlines()[-1]


@pytest.mark.parametrize("content", ["{", '{"GeneratedBy": 3}'])
def test_junk_in_the_input_s_description_stops_nothing(tree, tmp_path, neurostorm, model, content):
    tree.run(NAME)
    (tree.path / "dataset_description.json").write_text(content)
    assert neurostorm(tree.path, tmp_path / "out", "participant", "--model", model)[0] == 0


def test_a_head_of_nan_predicts_nothing(tree, tmp_path, neurostorm):
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"], head="v1", n_outputs=1)
    weights = network.state_dict()
    weights["model.layers.1.blocks.1.mlp.linear2.bias"].fill_(10)
    weights["output_head.head.head.weight"].fill_(3e38)  # numbers, whose sums are none
    path = lightning(tmp_path / "x.ckpt", weights, downstream_task_type="classification", **NARROW)
    tree.run(NAME)
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", path)
    assert status == 1
    assert "outputs of the head are not finite" in said


def test_what_was_asked_for_and_is_missing_is_reported_with_what_is_there(tree, tmp_path, neurostorm, model):
    tree.run("sub-01_ses-a_task-rest")
    _, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", model, "-t", "nback")
    assert "there are: ses-a_task-rest" in said
    assert "--level" not in said


def test_a_label_that_bids_does_not_allow_is_reported(tree, tmp_path, neurostorm, model):
    tree.run(NAME)
    (tree.path / "sub-a b" / "func").mkdir(parents=True)
    status, printed, said = neurostorm(tree.path, tmp_path / "out", "participant", "--model", model)
    assert status == 1
    assert "sub-'a b': BIDS labels are letters and digits" in said
    assert "done" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = []", "model cannot be"),
        ("work-dir = 3", "work_dir cannot be 3"),
        ("nprocs = 2.5", "nprocs cannot be 2.5"),
        ("nprocs = true", "nprocs cannot be True"),
        ("participant-label = {a = 1}", "participant_label cannot be"),
        ("force = 1", "force cannot be 1"),
    ],
)
def test_wrong_types_in_a_config_file(tree, tmp_path, neurostorm, text, message):
    (tmp_path / "c.toml").write_text(text)
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", "--config-file", tmp_path / "c.toml")
    assert status == 2
    assert message in said


@pytest.mark.parametrize(
    "option", ["--fd-threshold=nan", "--label-mean=inf", "--target-tr=1.2.3", "--dummy-scans=²", "--max-censored=nan"]
)
def test_numbers_that_are_none(tree, tmp_path, neurostorm, option):
    status, _, said = neurostorm(tree.path, tmp_path / "out", "participant", option)
    assert status == 2
    assert "Traceback" not in said

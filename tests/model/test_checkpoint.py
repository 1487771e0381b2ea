"""Checkpoints are read without running anything, and survive conversion."""

import os
import pickle
import re

import pytest
import torch
from click.testing import CliRunner
from helpers import SMALL, lightning, random_network, rewrite

from neurostorm_bids.command.model import main
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.checkpoint import read_checkpoint
from neurostorm_bids.model.load import load_model
from neurostorm_bids.model.registry import DEMO_LICENCE


class Runs:
    """An object whose unpickling would call a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture
def good(tmp_path):
    """A small checkpoint."""
    return lightning(tmp_path / "small.ckpt", random_network().state_dict(), task_name="age", **SMALL)


@pytest.mark.parametrize("where", ["hyper_parameters", "state_dict", "top"])
@pytest.mark.parametrize("function", ["os.system", "eval", "exec", "open", "torch.load"])
def test_a_malicious_pickle_runs_nothing(tmp_path, where, function):
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w')"
    call = {
        "os.system": Runs(os.system, f"touch {trace}"),
        "eval": Runs(eval, code),
        "exec": Runs(exec, code),
        "open": Runs(open, str(trace), "w"),
        "torch.load": Runs(torch.load, str(trace)),
    }[function]
    content = {"state_dict": random_network().state_dict(), "hyper_parameters": {**SMALL}}
    if where == "top":
        content["callbacks"] = call
    else:
        content[where]["bad"] = call
    torch.save(content, tmp_path / "bad.ckpt")
    checkpoint = read_checkpoint(tmp_path / "bad.ckpt")
    assert not trace.exists()
    assert "bad" not in checkpoint.hyper_parameters
    assert "bad" not in checkpoint.tensors
    assert (checkpoint.dropped == ["bad"]) == (where == "hyper_parameters")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (10**6,), (1,)),
        (-4, (2,), (1,)),
        (0, (2,), (-1,)),
        (10**12, (1,), (1,)),
        (0, (2, 2), (1,)),
        (0, ("x",), (1,)),
    ],
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path, good, offset, size, stride):
    class Outside:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, {})

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(obj, Storage) else None

    with open(tmp_path / "p", "wb") as file:
        Pickler(file, 2).dump({"state_dict": {"x": Outside()}, "hyper_parameters": {}})
    bad = rewrite(good, tmp_path / "bad.ckpt", pickled=(tmp_path / "p").read_bytes())
    with pytest.raises(NeurostormError, match=r"bad\.ckpt was refused"):
        read_checkpoint(bad)


def test_names_that_shadow_methods_do_no_harm(tmp_path, good):
    class Shadowed(dict):
        def __reduce__(self):
            return dict, (), None, None, iter([("items", 1), ("state_dict", {"get": 1})])

    bad = rewrite(good, tmp_path / "bad.ckpt", pickled=pickle.dumps(Shadowed()))
    assert read_checkpoint(bad).tensors == {}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda good, bad: bad.write_bytes(good.read_bytes()[:2000]), "not a PyTorch checkpoint"),
        (lambda good, bad: bad.write_text("hello"), "not a PyTorch checkpoint"),
        (lambda good, bad: bad.write_bytes(b""), "not a PyTorch checkpoint"),
        (lambda good, bad: rewrite(good, bad, drop=["data.pkl"]), r"no data\.pkl"),
        (lambda good, bad: rewrite(good, bad, drop=["data/0"]), "does not hold"),
        (lambda good, bad: rewrite(good, bad, compress=True), "not compressed"),
        (lambda good, bad: rewrite(good, bad, pickled=b"\x80\x02garbage"), "cannot be read safely"),
        (lambda good, bad: rewrite(good, bad, pickled=pickle.dumps([1])), "no state_dict"),
        (lambda good, bad: None, "not found"),
    ],
)
def test_damaged_files_are_reported_by_name(tmp_path, good, spoil, message):
    bad = tmp_path / "bad.ckpt"
    spoil(good, bad)
    with pytest.raises(NeurostormError, match=rf"bad\.ckpt.*{message}|{message}.*bad\.ckpt"):
        read_checkpoint(bad)


def test_conversion_keeps_every_number(good, tmp_path):
    target = tmp_path / "small.safetensors"
    result = CliRunner().invoke(main, ["convert", str(good), str(target)])
    assert result.exit_code == 0, result.output
    before, after = read_checkpoint(good), read_checkpoint(target)
    assert before.hyper_parameters == after.hyper_parameters
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(before.tensors[name], after.tensors[name]) for name in before.tensors)
    clip = torch.randn(1, 1, *SMALL["img_size"])
    assert torch.equal(load_model(good).embed(clip), load_model(target).embed(clip))


def test_half_precision_weights_are_read(tmp_path):
    weights = {name: w.to(torch.bfloat16) for name, w in random_network().state_dict().items()}
    model = load_model(lightning(tmp_path / "half.ckpt", weights, **SMALL))
    assert torch.equal(model.network.model.patch_embed.fc.bias, weights["model.patch_embed.fc.bias"].float())


def test_inspect_says_what_a_file_holds(good):
    result = CliRunner().invoke(main, ["inspect", str(good)])
    assert result.exit_code == 0
    assert "task_name = 'age'" in result.output
    assert "24 x 24 x 24 x 6" in result.output
    assert "not known of a file; ask whom you have it from" in result.output
    result = CliRunner().invoke(main, ["inspect", "demo"])
    assert f"licence         {DEMO_LICENCE}" in result.output


def test_missing_weights_are_reported_with_commands_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSTORM_HOME", str(tmp_path))
    with pytest.raises(NeurostormError) as error:
        load_model("base")
    assert "neurostorm-model fetch base" in str(error.value)
    assert "hf download zxcvb20001/NeuroSTORM pretraining/pt_neurostorm_mae_5ds.ckpt" in str(error.value)
    assert str(tmp_path / "base" / "pt_neurostorm_mae_5ds.ckpt") in str(error.value)


def test_a_registry_model_is_loaded_from_home(tmp_path, monkeypatch, good):
    monkeypatch.setenv("NEUROSTORM_HOME", str(tmp_path))
    (tmp_path / "hcpyaAge").mkdir()
    network = random_network(head="v1", n_outputs=1)
    lightning(tmp_path / "hcpyaAge" / "neurostorm_hcpya_age.ckpt", network.state_dict(), **SMALL)
    model = load_model("hcpyaage")
    assert (model.task.unit, model.task.label_mean, model.label) == ("years", 28.759259, "hcpyaAge")


def test_a_file_of_the_wrong_size_is_not_taken_for_the_published_one(tmp_path, monkeypatch, good):
    monkeypatch.setenv("NEUROSTORM_HOME", str(tmp_path))
    (tmp_path / "base").mkdir()
    good.rename(tmp_path / "base" / "pt_neurostorm_mae_5ds.ckpt")
    with pytest.raises(NeurostormError, match=r"published file 93061240.*fetch it again"):
        load_model("base")


def test_fetch_without_a_network_says_how_else(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROSTORM_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = CliRunner().invoke(main, ["fetch", "base"])
    assert result.exit_code == 1
    assert "could not fetch 'base'" in result.output
    assert "hf download" in result.output
    assert not [path for path in (tmp_path / "base").iterdir() if path.name != ".locks"]


def test_list_names_every_model():
    result = CliRunner().invoke(main, ["list"])
    assert {"demo", "base", "hcpyaAge", "abideDiagnosis"} <= set(result.output.split())


def test_a_bomb_of_shared_lists_is_left_out_in_no_time(tmp_path, good):
    bomb = [0]
    for _ in range(7):
        bomb = [bomb] * 30
    content = {"state_dict": {}, "hyper_parameters": {"bomb": bomb, **SMALL}}
    bad = rewrite(good, tmp_path / "bad.ckpt", pickled=pickle.dumps(content))
    assert "bomb" in read_checkpoint(bad).dropped


def test_a_memo_index_beyond_reason_takes_no_memory(tmp_path, good):
    bad = rewrite(good, tmp_path / "bad.ckpt", pickled=b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(NeurostormError, match="no state_dict"):
        read_checkpoint(bad)


@pytest.mark.parametrize(
    "change",
    [{"embed_dim": float("inf")}, {"depths": []}, {"c_multiplier": 4096}, {"label_mean": 10**400, "label_std": 1.0}],
)
def test_numbers_beyond_reason_raise_nothing_else(tmp_path, change):
    weights = random_network(head="v1", n_outputs=1).state_dict()
    path = lightning(tmp_path / "x.ckpt", weights, **{**SMALL, "downstream_task_type": "regression", **change})
    if "label_mean" in change:
        assert not load_model(path).task.is_scaled_back
    else:
        with pytest.raises(NeurostormError, match=r"x\.ckpt"):
            load_model(path)


@pytest.mark.parametrize(
    ("names", "kept"), [(["a", "a"], ()), (["x\ty", "z\n"], ("x y", "z")), (["a"], ()), ("ab", ())]
)
def test_class_names_fit_a_table(tmp_path, names, kept):
    weights = random_network(head="v1", n_outputs=1).state_dict()
    path = lightning(tmp_path / "x.ckpt", weights, downstream_task_type="classification", classes=names, **SMALL)
    assert load_model(path).task.classes == kept


@pytest.mark.parametrize(
    "name", ["model.layers.0.blocks.0.norm1.weight", "model.layers.1.blocks.0.mamba.conv1d.weight"]
)
def test_weights_that_are_no_numbers_are_refused(tmp_path, name):
    weights = random_network().state_dict()
    weights[name].view(-1)[0] = float("nan")
    path = lightning(tmp_path / "x.ckpt", weights, **SMALL)
    with pytest.raises(NeurostormError, match=f"{re.escape(name)} holds numbers that are not finite"):
        load_model(path, "cpu")

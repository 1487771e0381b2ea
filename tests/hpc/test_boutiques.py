"""The Boutiques descriptor: every option is in it, and a call by it is a call of the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from neurostorm_bids.command.main import main, settings_of
from neurostorm_bids.hpc.boutiques import descriptor

BOSH = Path(sys.executable).parent / "bosh"


def test_every_option_is_in_it():
    inputs = {each["id"] for each in descriptor("neurostorm:1", "docker")["inputs"]}
    not_taken = {"config_file", "version", "skip_bids_validation"}
    assert inputs == {param.name for param in main.params} - not_taken


def test_its_command_line_names_every_input_once():
    made = descriptor("neurostorm:1", "docker")
    words = made["command-line"].split()
    assert words == ["neurostorm", *(each["value-key"] for each in made["inputs"])]
    assert len(set(words)) == len(words)


def test_its_choices_are_those_of_the_command(tmp_path):
    for each in descriptor("neurostorm:1", "docker")["inputs"][3:]:
        for choice in each.get("value-choices", ()):
            settings_of([str(tmp_path), str(tmp_path), "group", each["command-line-flag"], choice])


@pytest.mark.skipif(not BOSH.exists(), reason="make release-check installs bosh")
def test_bosh_makes_a_call_of_it(tmp_path):
    (tmp_path / "neurostorm.json").write_text(json.dumps(descriptor("neurostorm:1", "docker")))
    call = {"bids_dir": str(tmp_path), "out_dir": "out", "analysis_level": "participant", "task_id": ["rest", "nback"]}
    (tmp_path / "call.json").write_text(json.dumps({**call, "fd_threshold": 0.5, "save_grid": True}))
    words = [BOSH, "exec", "simulate", tmp_path / "neurostorm.json", "-i", tmp_path / "call.json"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    settings = settings_of(said.split("neurostorm ", 1)[1].split())
    assert settings.selection.task_id == ("rest", "nback")
    assert settings.resampling.save_grid
    assert settings.censoring.fd_threshold == 0.5

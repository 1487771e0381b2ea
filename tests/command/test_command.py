"""The command line is the one that users of BIDS Apps know."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from neurostorm_bids import __version__
from neurostorm_bids.command.main import SECTIONS, main
from neurostorm_bids.command.main import settings_of as settings_of_words
from neurostorm_bids.runtime.options import options_of
from neurostorm_bids.settings import Settings


def settings_of(*words):
    """Return the settings that a command line means."""
    return settings_of_words([str(word) for word in words])


@pytest.mark.parametrize(
    "args",
    [
        ["in", "out", "participant", "--participant-label", "01", "sub-02", "03"],
        ["--participant-label", "01", "sub-02", "03", "in", "out", "participant"],
        [
            "--participant_label",
            "sub-01",
            "--participant-label",
            "02",
            "03",
            "--nprocs",
            "1",
            "in",
            "out",
            "participant",
        ],
        ["in", "--participant-label", "01", "02", "03", "out", "participant"],
        ["in", "out", "--participant-label=01", "--participant-label", "02", "03", "--", "participant"],
        ["--participant-label=01", "02", "03", "in", "out", "participant"],
        ["--participant-label", "01", "02", "03", "in", "out", "participant", "-t", "rest", "nback"],
        ["-t", "rest", "nback", "--participant-label", "01", "02", "03", "in", "out", "participant", "--force"],
    ],
)
def test_several_labels_wherever_they_stand(args):
    settings = settings_of(*args)
    assert settings.selection.participant_label == ("01", "02", "03")
    assert (settings.bids_dir, settings.out_dir) == (Path("in").resolve(), Path("out").resolve())


def test_prefixes_and_aliases():
    settings = settings_of(
        "in", "out", "participant", "--session-id", "ses-a", "b", "-t", "task-rest", "nback", "--run_label", "run-01",
        "--n-cpus", "3", "-w", "work", "-vv", "-d", "fmriprep=/x", "--dummy-scans", "4", "--target-tr", "native",
    )  # fmt: skip
    chosen = settings.selection
    assert (chosen.session_label, chosen.task_id, chosen.run_label) == (("a", "b"), ("rest", "nback"), ("01",))
    assert (settings.resources.nprocs, settings.conduct.verbose, settings.resources.work_dir) == (
        3,
        2,
        Path("work").resolve(),
    )
    assert (chosen.derivatives, settings.resampling.dummy_scans, settings.resampling.target_tr) == (
        (("fmriprep", Path("/x")),),
        4,
        None,
    )


def test_defaults_are_those_of_the_settings():
    parsed = settings_of("in", "out", "participant")
    assert parsed == Settings(Path("in").resolve(), Path("out").resolve())


def test_every_setting_is_in_the_help_and_has_a_group():
    listed = {name for names in SECTIONS.values() for name in names}
    settings = Settings(Path("in"), Path("out"))
    assert {each.name for _, group in settings.groups() for each, _ in options_of(type(group))} <= listed
    help_text = CliRunner().invoke(main, ["--help"]).output
    assert all(title in help_text for title in SECTIONS)
    first = help_text[help_text.index("Most used") : help_text.index("Which runs:")].strip().splitlines()
    assert len(first) == 11  # a line each, below the title
    assert "--model" in first[3]
    assert "--session-label, --session-id" in help_text


def test_every_section_of_the_help_fits_a_screen():
    help_text = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert max(map(len, help_text.splitlines())) <= 80
    starts = [help_text.index(f"\n{title}:\n") for title in SECTIONS] + [help_text.index("\n--group-task:\n")]
    assert starts == sorted(starts)
    lengths = {title: help_text[a:b].count("\n") for title, a, b in zip(SECTIONS, starts, starts[1:], strict=False)}
    assert {title: n for title, n in lengths.items() if n > 36} == {}


def test_config_file_gives_defaults(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(
        'participant-label = ["sub-01", "02"]\ntask_id = "rest"\nnprocs = 2\ntarget-tr = "native"\n'
        'model = "demo"\nforce = true\n[derivatives]\nfmriprep = "/x"\n'
    )
    settings = settings_of("in", "out", "participant", "--config-file", config, "--nprocs", "4")
    assert (settings.selection.participant_label, settings.selection.task_id, settings.encoding.model) == (
        ("01", "02"),
        ("rest",),
        ("demo",),
    )
    assert (settings.resources.nprocs, settings.resampling.target_tr, settings.conduct.force) == (4, None, True)
    assert settings.selection.derivatives == (("fmriprep", Path("/x")),)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["in", "out", "analyse"], "'analyse' is not one of 'participant', 'group'"),
        (["in", "out"], "Missing argument"),
        (["in", "out", "participant", "--target-tr", "fast"], "'fast' is neither native nor a number"),
        (["in", "out", "participant", "--dummy-scans", "-1"], "-1 has to be 0 or more"),
        (["in", "out", "participant", "--dummy-scans", "few"], "neither auto nor a whole number"),
        (["in", "out", "participant", "--target-tr", "0"], "0 has to be from 0.05 to 30.0"),
        (["in", "out", "participant", "--target-tr", "nan"], "nan is not a number that can be used"),
        (["in", "out", "participant", "--random-seed", str(2**31)], "has to be from 0 to 2147483647"),
        (["in", "out", "participant", "--work-dir", "--force"], "Option '--work-dir' requires a value"),
        (["in", "out", "participant", "--work-dir"], "Option '--work-dir' requires a value"),
        (["in", "out", "participant", "--model"], "Option '--model' requires a value"),
        (["in", "out", "participant", "-d", "x"], "'x' is not NAME=PATH"),
        (["in", "out", "participant", "--nprocs", "0"], "0 has to be 1 or more"),
        (["in", "out", "participant", "--bids-filter-file", "nowhere.json"], "nowhere.json"),
    ],
)
def test_usage_errors_exit_with_2(args, message):
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(("text", "message"), [("a = ", "not readable TOML"), ("colour = 1", "unknown key colour")])
def test_bad_config_file(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    result = CliRunner().invoke(main, ["in", "out", "participant", "--config-file", str(tmp_path / "c.toml")])
    assert result.exit_code == 2
    assert message in result.output


def test_group_level_without_results(tree, tmp_path, neurostorm):
    tree.run()
    status, _, said = neurostorm(tree.path, tmp_path / "o", "group", "--model", "demo")
    assert status == 1
    assert "run the participant level first" in said


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from neurostorm_bids.command.main import main\n"
        "CliRunner().invoke(main, ['--help']); CliRunner().invoke(main, ['--version'])\n"
        "print([m for m in ('torch', 'numpy', 'nibabel', 'pandas', 'bids') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_version_is_the_package_s():
    from importlib.metadata import version

    assert __version__ == version("neurostorm-bids")
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


def test_quiet_leaves_warnings_errors_and_the_summary(tree, tmp_path, neurostorm, narrow):
    tree.run()
    tree.run("sub-02_task-rest").write_bytes(b"nothing")
    status, printed, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow, "-q")
    assert status == 1
    assert "sub-01_task-rest" in printed
    assert said
    assert all(line.split(":")[0] in ("warning", "error") for line in said.splitlines())


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("--embed", ["--embedding-level"]),
        ("in out participant --grid ", ["auto", "fsl", "as-fmriprep"]),
        ("in out group --group-task pr", ["pretrain", "probe"]),
        ("in out group --group-task probe --target age --pool", ["--pooling"]),
        ("in out participant --model ", []),
    ],
)
def test_the_shell_completes_options_and_their_values(line, completed):
    words = {
        "COMP_WORDS": f"neurostorm {line}",
        "COMP_CWORD": str(len(line.split(" "))),
        "_NEUROSTORM_COMPLETE": "bash_complete",
    }
    command = Path(sys.executable).with_name("neurostorm")
    found = subprocess.check_output(command, env={**os.environ, **words}, text=True)
    assert found == "\n".join(f"plain,{each}" for each in completed) + "\n"


def test_a_near_miss_is_there(tree, tmp_path, neurostorm):
    call = (tree.path, tmp_path / "out", "participant")
    status, _, said = neurostorm(*call, "--modle", "demo")
    assert status == 2
    assert "'--model'" in said
    (tmp_path / "config.toml").write_text('task_ids = ["rest"]')
    status, _, said = neurostorm(*call, "--config-file", tmp_path / "config.toml")
    assert status == 2
    assert "unknown key task_ids; did you mean task-id?" in said

"""The Makefile hands options on as they are or refuses them; versions agree wherever they stand."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from tools import lessons


@pytest.fixture
def make(tmp_path: Path):
    """Call make where all is installed, with a Python that prints its arguments, one a line."""
    if not shutil.which("make"):
        pytest.skip("there is no make")
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    lessons.write(python, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    lessons.write(tmp_path / ".venv" / ".installed", "")
    clean = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("MAKE")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return lambda *words: subprocess.run(["make", *words], cwd=tmp_path, env=clean, **pipes)


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("HELP=1", "--help"),
        ("MODEL=../two words.keras", "--model=../two words.keras"),
        ('MODEL=it\'s "new".keras', '--model=it\'s "new".keras'),
        ("MODLE=ctc", "--modle=ctc"),  # argparse refuses it
    ],
)
def test_a_tool_gets_its_options_as_they_are(make, option, word):
    assert make("evaluate", option).stdout.splitlines() == ["-m", "tools.evaluate", word]


@pytest.mark.parametrize(
    ("words", "message"),
    [("lint FOO=1", "FOO.*takes none"), ("test STEPS=2", "STEPS.*takes LESSON")],
)
def test_an_option_that_a_command_does_not_have_is_refused(make, words, message):
    result = make(*words.split())
    assert result.returncode == 2 and re.fullmatch(f".*{message}.*\n", result.stdout)


def test_a_version_that_stands_in_several_files_is_the_same():
    project = lessons.project(ROOT)
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pins = [pin for group in groups for pin in group]
    names = ["requirements.lock", "environment.yml", "Makefile", ".github/DEPENDENCIES.md"]
    lock, conda, make, table = ((ROOT / name).read_text("utf-8") for name in names)
    assert set(pins) <= set(re.findall(r"^\S+==\S+", lock, re.M)), "run `make lock`"
    first, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    assert f"python{project['requires-python']}\n" in conda
    assert f"(3, {first}) <= v <= (3, {int(beyond) - 1})" in make
    for readme in ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh.md")):
        versions = re.search(r"`python3`[（ (]*([\d., or或、]+)", readme)[1]
        assert re.findall(r"3\.(\d+)", versions) == [str(n) for n in range(int(first), int(beyond))]
        installed = re.findall(r"\"tensorflow\[and-cuda\](==\S+)\"", readme)
        assert installed == [pin.removeprefix("tensorflow") for pin in pins if "tensorflow" in pin]
    named = re.findall(r"^\| ([a-z][a-z0-9-]+) \|", table, re.M)[1:]
    assert named == [pin.partition("==")[0] for pin in pins]

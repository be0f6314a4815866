"""The set-up decides by content when to install, and says what to do where it cannot."""

import sys
from pathlib import Path

import pytest
import setup_env

TXT = "captcha==0.7.0  # a reason\nscikit_learn==1.0\n"
LOCK = "captcha==0.7.0\nscikit-learn==1.0 ; python_version < '3.12'\nscikit-learn==1.1 ; else\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text(TXT)
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "requirements-torch.txt").write_text("torch==2.13.0\n")
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


@pytest.fixture
def steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands of an installation, recorded instead of run."""
    called = []

    def step(command: list[str], failure: str) -> None:
        called.append(" ".join(command))
        if "venv" in command:
            (root / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
            (root / ".venv" / "bin" / "python").touch(mode=0o755)

    monkeypatch.setattr(setup_env, "step", step)
    monkeypatch.setenv("MPLCONFIGDIR", "")
    return called


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 13, 9)])
def test_a_python_in_the_range_is_taken(version: tuple) -> None:
    setup_env.check_python(version)


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0), (2, 7, 18)])
def test_another_python_is_refused_with_the_fix(version: tuple) -> None:
    with pytest.raises(SystemExit) as error:
        setup_env.check_python(version)
    message = str(error.value)
    assert f"this is Python {version[0]}.{version[1]}, but the lessons need 3.11 to 3.13" in message
    assert "make run-all PYTHON=python3.1" in message


def test_a_lock_that_follows_the_pins_is_taken(root: Path) -> None:
    setup_env.check_lock(root)


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        (
            "captcha==0.7.1\n",
            "pins captcha==0.7.1, but requirements.lock has 0.7.0; run `make lock`",
        ),
        (
            "tqdm==1.0\n",
            "pins tqdm==1.0, but requirements.lock has no such package; run `make lock`",
        ),
    ],
)
def test_another_lock_is_refused(root: Path, pins: str, message: str) -> None:
    (root / "requirements.txt").write_text(pins)
    with pytest.raises(SystemExit, match=message):
        setup_env.check_lock(root)


def test_an_installation_is_reused_until_a_pin_changes(root: Path, steps: list[str]) -> None:
    assert not setup_env.is_complete(root)
    setup_env.install(root)
    assert [word for word in ("venv", "lock", "-e") if not any(word in s for s in steps)] == []
    assert setup_env.is_complete(root)
    (root / "requirements.lock").touch()  # a newer file with the same content is no change
    assert setup_env.is_complete(root)
    (root / "requirements.lock").write_text(LOCK.replace("0.7.0", "0.7.1"))
    assert not setup_env.is_complete(root)


def test_an_interrupted_installation_is_made_anew(
    root: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_env.install(root)
    monkeypatch.setattr(setup_env, "step", lambda command, failure: sys.exit(failure))
    with pytest.raises(SystemExit, match="could not make a virtual environment"):
        setup_env.install(root)
    assert not setup_env.is_complete(root)


def test_an_environment_without_its_python_is_made_anew(root: Path, steps: list[str]) -> None:
    setup_env.install(root)
    (root / ".venv" / "bin" / "python").unlink()
    assert not setup_env.is_complete(root)


def test_an_environment_made_by_hand_is_made_anew(root: Path, steps: list[str]) -> None:
    setup_env.step(["venv"], "")
    assert not setup_env.is_complete(root)


def set_up(root: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--root", str(root), *arguments])
    setup_env.main()


def test_torch_comes_on_request_and_stays(
    root: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def installations_of_torch() -> int:
        return sum("-r" in step and "requirements-torch.txt" in step for step in steps)

    set_up(root, monkeypatch)
    assert installations_of_torch() == 0
    set_up(root, monkeypatch, "torch")
    set_up(root, monkeypatch, "torch")
    set_up(root, monkeypatch)
    assert (installations_of_torch(), sum("venv" in step.split() for step in steps)) == (1, 1)
    (root / "requirements-torch.txt").write_text("torch==2.13.1\n")
    set_up(root, monkeypatch)
    assert installations_of_torch() == 2
    (root / "requirements.lock").write_text(LOCK + "tqdm==1.0\n")  # all is made anew, torch too
    set_up(root, monkeypatch)
    assert (installations_of_torch(), sum("venv" in step.split() for step in steps)) == (3, 2)
    assert setup_env.is_complete(root) and setup_env.has_extra(root, "torch")


def test_torch_that_could_not_be_installed_is_not_there(
    root: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(root, monkeypatch)
    monkeypatch.setattr(setup_env, "step", lambda command, failure: sys.exit(failure))
    with pytest.raises(SystemExit, match="run `make setup-torch` again"):
        set_up(root, monkeypatch, "torch")
    assert not setup_env.has_extra(root, "torch")
    set_up(root, monkeypatch)  # and everything else goes on without it


def test_a_failing_step_says_what_to_do() -> None:
    with pytest.raises(SystemExit, match="set-up: check the network"):
        setup_env.step([sys.executable, "-c", "raise SystemExit(1)"], "check the network")

"""Kill a training at twenty random moments, let it go on, and compare: FOLDER [SEED].

Not a test of every day: it takes about ten minutes on two cores. The network is the slim one. An
epoch has 10 batches of 16 and a bank of 6 colours, so that some epochs fit between two kills.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

KILLS, STEPS, EPOCHS = 20, 10, 32
CODE = f"""
import sys
sys.path.insert(0, "tools")
import train
from captcha_reader.bank import GlyphBank
from notebooks_py import ch4_gpu_training as ch4
ch4.GlyphBank = lambda seed, alphabet: GlyphBank(seed, alphabet, colors=6)
train.EPOCH, train.VALID = {STEPS}, 100
sys.exit(train.main())
"""


def start(folder: Path) -> subprocess.Popen:
    words = ["MODEL=ctc", f"BUDGET={16 * STEPS * EPOCHS}", "BATCH=16", "PRECISION=float32"]
    command = [sys.executable, "-c", CODE, *words, f"OUT={folder}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def saved(folder: Path) -> str:
    """Say how many epochs the backup holds, or that it is torn and what the one before holds."""
    words = []
    for name in ("latest.weights.h5", "latest.weights.h5.bkp"):
        try:
            with h5py.File(folder / "backup" / name) as state:
                return " ".join([*words, str(int(state["optimizer/vars/0"][()]) // STEPS)])
        except FileNotFoundError:
            return " ".join([*words, "0"])
        except OSError:
            words.append("torn,")
    return "both torn"


def logged(folder: Path) -> list[str]:
    log = folder / "log.csv"
    return [row.split(",")[0] for row in log.read_text().splitlines()[1:]] if log.exists() else []


def main() -> None:
    folder, rng = Path(sys.argv[1]), random.Random(int((sys.argv[2:] or ["1"])[0]))
    print("| kill | seconds after its start | first epoch | ended epochs | saved after it | lost |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kill in range(1, KILLS + 1):
        before, first = len(logged(folder / "killed")), saved(folder / "killed")
        moment = rng.uniform(8, 38)
        process = start(folder / "killed")
        time.sleep(moment)
        done = process.poll() is not None
        process.kill()
        process.wait()
        ended, after = logged(folder / "killed")[before:], saved(folder / "killed")
        lost = len(ended) - (int(after.split()[-1]) - int(first.split()[-1]))
        print(f"| {kill} | {moment:.1f} | {first} | {len(ended)} | {after} | {lost} |", flush=True)
        if done:
            print(f"the process had ended with {process.returncode}")
    codes = [start(folder / name).wait() for name in ("killed", "whole")]
    print(f"exit codes {codes}, epochs in the log {len(logged(folder / 'killed'))} of {EPOCHS}")
    import keras

    a, b = (keras.models.load_model(folder / x / "model.keras") for x in ("killed", "whole"))
    pairs = list(zip(a.get_weights(), b.get_weights(), strict=True))
    apart = max(float(np.abs(x - y).max()) for x, y in pairs)
    print(f"the largest difference between {len(pairs)} arrays of weights: {apart}")


if __name__ == "__main__":
    main()

"""Measure what lesson 4 is about on this machine: `make bench`; some minutes, nothing else running.

Everything in a group is measured in turn, so that its ratios hold on a noisy machine.
"""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import options

DEFAULTS = {
    "OUT": "models/bench.json",
    "REPEATS": "5",
    "BATCH": "32",
    "STEPS": "8",  # batches in each measurement of feeding
    "SEED": "2019",
}
ALLOWED = {
    "OUT": r".+\.json a file that ends in .json",
    "REPEATS": "([5-9]|[1-9][0-9]+) a whole number of at least 5",
    "BATCH": options.POSITIVE,
    "STEPS": options.POSITIVE,
    "SEED": options.WHOLE,
}


def feeding(batch: int, steps: int, seed: int, repeats: int) -> dict:
    """Ways to bring pictures to a network that hardly computes."""
    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py.ch1_captcha_preview import CaptchaSequence

    def epoch(data: CaptchaSequence) -> Callable[[], object]:
        model = ch4.tiny_network(data.width, data.height, len(data.alphabet), data.length)
        return lambda: model.fit(data, shuffle=False, verbose=0)

    spawn, cores = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    alone = CaptchaSequence(batch, steps, seed, workers=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(cores, mp_context=spawn) as pool,
    ):
        drawn = ch4.render_set(alone, Path(folder) / "set", processes=1)
        actions = {
            "1 worker": epoch(alone),
            "4 workers (threads)": epoch(CaptchaSequence(batch, steps, seed, workers=4)),
            f"{cores} processes": lambda: list(pool.map(alone.draw, range(steps))),
            "a rendered set": epoch(ch4.RenderedSequence(drawn, batch, steps, seed)),
        }
        return ch4.compare(actions, batch * steps, repeats)


def training(batch: int, steps: int, seed: int, repeats: int) -> dict:
    """The slim sequence model, its pictures drawn by one worker and by four while it trains."""
    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py.ch1_captcha_preview import CaptchaSequence

    model = ch4.build("ctc", "slim")
    ch4.compile_fast(model, 1_000)

    def epoch(data: CaptchaSequence) -> Callable[[], object]:
        return lambda: model.fit(data, shuffle=False, verbose=0)

    def source(workers: int) -> CaptchaSequence:
        return CaptchaSequence(batch, steps, seed, labels="ctc", workers=workers)

    with tempfile.TemporaryDirectory() as folder:
        drawn = ch4.render_set(source(1), Path(folder) / "set", processes=1)
        actions = {
            "drawn by 1 worker": epoch(source(1)),
            "drawn by 2 workers": epoch(source(2)),
            "drawn by 4 workers": epoch(source(4)),
            "a rendered set": epoch(ch4.RenderedSequence(drawn, batch, steps, seed, labels="ctc")),
        }
        return ch4.compare(actions, batch * steps, repeats)


def networks(batch: int, seed: int, repeats: int) -> dict:
    """A training step of each network, pictures at hand."""
    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py.ch1_captcha_preview import CaptchaSequence

    data = {
        "cnn": CaptchaSequence(batch, 1, seed),
        "ctc": CaptchaSequence(batch, 1, seed, labels="ctc"),
    }
    actions = {
        f"{kind}, {size}": ch4.one_step(kind, size, "float32", data[kind])
        for size in ("full", "slim")
        for kind in ("cnn", "ctc")
    }
    return ch4.compare(actions, batch, repeats)


def precisions(batch: int, seed: int, repeats: int) -> dict:
    """A training step of the slim sequence model in both precisions."""
    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py.ch1_captcha_preview import CaptchaSequence

    data = CaptchaSequence(batch, 1, seed, labels="ctc")
    actions = {
        policy: ch4.one_step("ctc", "slim", policy, data)
        for policy in ("float32", "mixed_bfloat16")
    }
    return ch4.compare(actions, batch, repeats)


def main() -> None:
    chosen = options.read(sys.argv[1:], "bench", DEFAULTS, ALLOWED)
    out = Path(chosen.pop("OUT"))
    repeats, batch, steps, seed = (int(chosen[name]) for name in chosen)
    from notebooks_py.ch2_cnn import replace_text
    from notebooks_py.ch4_gpu_training import hardware

    groups: dict[str, Callable[[], dict]] = {
        "feeding": lambda: feeding(batch, steps, seed, repeats),
        "training": lambda: training(batch, steps, seed, repeats),
        "networks": lambda: networks(batch, seed, repeats),
        "precision": lambda: precisions(batch, seed, repeats),
    }
    found = {"batch": batch, "hardware": hardware()}
    for name, measure in groups.items():
        found[name] = measure()
        print(f"{name}: times as fast as the first: {found[name]['ratio']}")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, json.dumps(found, indent=1) + "\n")
    print(f"written: {out}")


if __name__ == "__main__":
    main()

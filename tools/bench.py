"""Measure what lesson 4 is about on this machine: `make bench`; some minutes, nothing else running.

Everything in a group is measured in turn, so that its ratios hold on a noisy machine.
"""

import functools
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
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
SPAWN = multiprocessing.get_context("spawn")

Actions = dict[str, Callable[[], object]]


def ways(model, labels: str, batch: int, steps: int, seed: int, stack: ExitStack) -> Actions:
    """Train `model` on the same pictures, which reach it in different ways."""
    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import RenderedSequence, render_set

    sources = {
        f"drawn by {workers} worker{'s' * (workers > 1)}": CaptchaSequence(
            batch, steps, seed, labels=labels, workers=workers
        )
        for workers in (1, 2, 4)
    }
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "set"
    render_set(sources["drawn by 1 worker"], folder, processes=1)
    sources["a rendered set"] = RenderedSequence(folder, batch, steps, seed, labels=labels)
    fit = functools.partial(model.fit, shuffle=False, verbose=0)
    return {name: functools.partial(fit, data) for name, data in sources.items()}


def feeding(batch: int, steps: int, seed: int, stack: ExitStack) -> tuple[int, Actions]:
    """Ways to bring pictures to a network that hardly computes."""
    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py.ch1_captcha_preview import CaptchaSequence

    data, cores = CaptchaSequence(batch, steps, seed), os.cpu_count() or 1
    model = ch4.tiny_network(data.width, data.height, len(data.alphabet), data.length)
    actions = ways(model, "one-hot", batch, steps, seed, stack)
    pool = stack.enter_context(ProcessPoolExecutor(cores, mp_context=SPAWN))
    actions[f"drawn by {cores} processes"] = lambda: list(pool.map(data.draw, range(steps)))
    return batch * steps, actions


def drawing(batch: int, steps: int, seed: int, stack: ExitStack) -> tuple[int, Actions]:
    """Captchas by the library, in a process for each core, and by the layer, plans included.

    The layer draws as many batches at a time as there are cores, and as it would without walls.
    """
    import numpy as np
    from keras import ops

    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import DRAWING, PlannedSequence, compiled

    cores, data = os.cpu_count() or 1, CaptchaSequence(batch, steps, seed)
    pool = stack.enter_context(ProcessPoolExecutor(cores, mp_context=SPAWN))
    threads = stack.enter_context(ThreadPoolExecutor(cores))
    plans = PlannedSequence(batch, steps, seed)

    def unwalled(layout: dict) -> object:
        tables = plans.renderer.tables
        return functools.reduce(lambda last, step: step(last, layout, tables), DRAWING, None)

    def draw(painter: Callable) -> Callable[[], object]:
        def one(index: int) -> np.ndarray:
            return ops.convert_to_numpy(painter(plans[index][0]))

        return lambda: list(threads.map(one, range(steps)))

    return batch * steps, {
        f"the library, {cores} processes": lambda: list(pool.map(data.draw, range(steps))),
        "the device": draw(plans.renderer),
        "the device, no walls": draw(compiled(unwalled)),
    }


def training(batch: int, steps: int, seed: int, stack: ExitStack) -> tuple[int, Actions]:
    """The same ways, to the slim sequence model, and one more: it draws for itself."""
    from notebooks_py import ch4_gpu_training as ch4

    plans = ch4.PlannedSequence(batch, steps, seed, labels="ctc")
    model = ch4.build("ctc", "slim")
    drawing = ch4.learner(model, plans)
    for network in (model, drawing):
        ch4.compile_fast(network, 1_000)
    actions = ways(model, "ctc", batch, steps, seed, stack)
    actions["drawn on the device"] = lambda: drawing.fit(plans, shuffle=False, verbose=0)
    return batch * steps, actions


def networks(batch: int, steps: int, seed: int, stack: ExitStack) -> tuple[int, Actions]:
    """A training step of each network, pictures at hand; the original's CNN comes first."""
    kinds = [(kind, size) for size in ("full", "slim") for kind in ("cnn", "ctc")]
    return batch, {f"{kind}, {size}": step(batch, seed, kind, size) for kind, size in kinds}


def precision(batch: int, steps: int, seed: int, stack: ExitStack) -> tuple[int, Actions]:
    """A training step of the slim sequence model in numbers of 32 and 16 bits."""
    policies = ("float32", "mixed_bfloat16")
    return batch, {name: step(batch, seed, policy=name) for name in policies}


def memory(batch: int, steps: int, seed: int, stack: ExitStack) -> tuple[int, Actions]:
    """That step in two processes: one gives memory back, and the other one keeps it."""
    names = [name for name in os.environ if name.startswith("MALLOC_")]
    if not names:
        raise SystemExit("bench: start it with `make bench`, which sets the MALLOC_ variables")

    def ask(pool: ProcessPoolExecutor) -> Callable[[], object]:
        stack.enter_context(pool)
        return lambda: pool.submit(take_step, batch, seed).result()

    actions = {"memory kept": ask(process())}
    taken = {name: os.environ.pop(name) for name in names}
    actions = {"memory given back": ask(process()), **actions}
    os.environ.update(taken)
    return batch, actions


def process() -> ProcessPoolExecutor:
    """Start a process with the environment of this moment."""
    pool = ProcessPoolExecutor(1, mp_context=SPAWN)
    pool.submit(os.getpid).result()  # only now it has started
    return pool


@functools.cache
def step(
    batch: int, seed: int, kind: str = "ctc", size: str = "slim", policy: str = "float32"
) -> Callable[[], object]:
    """A training step of a network, pictures at hand."""
    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import LABELS, one_step

    data = CaptchaSequence(batch, 1, seed, labels=LABELS[kind])
    return one_step(kind, size, policy, data)


def take_step(batch: int, seed: int) -> None:
    """What another process is asked to do."""
    step(batch, seed)()


def recipes(batch: int, steps: int, seed: int, stack: ExitStack) -> tuple[int, Actions]:
    """As many pictures with each recipe of lesson 4, in batches as it wants them."""
    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import LABELS, RECIPES, Recipe

    chosen = {name: Recipe(**changes) for name, changes in RECIPES.items()}
    pictures = max(recipe.batch for recipe in chosen.values())

    def take(recipe: Recipe) -> Callable[[], object]:
        model = recipe.build(1_000)
        X, y = CaptchaSequence(recipe.batch, 1, seed, labels=LABELS[recipe.kind])[0]
        return lambda: [model.train_on_batch(X, y) for _ in range(pictures // recipe.batch)]

    return pictures, {name: take(recipe) for name, recipe in chosen.items()}


GROUPS = (feeding, drawing, training, networks, precision, memory, recipes)


def main() -> None:
    chosen = options.read(sys.argv[1:], "bench", DEFAULTS, ALLOWED)
    out = Path(chosen.pop("OUT"))
    repeats, batch, steps, seed = (int(chosen[name]) for name in chosen)
    from notebooks_py.ch2_cnn import write_json
    from notebooks_py.ch4_gpu_training import compare, hardware

    found, groups = {"batch": batch, "hardware": hardware()}, {}
    for group in GROUPS:
        with ExitStack() as stack:
            pictures, actions = group(batch, steps, seed, stack)
            groups[group.__name__] = compare(actions, pictures, repeats)
        print(f"{group.__name__}, times as fast as the first: {groups[group.__name__]['ratio']}")
    write_json(out, found | {"groups": groups})
    print(f"written: {out}")


if __name__ == "__main__":
    main()

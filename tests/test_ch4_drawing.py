"""Lesson 4: captchas drawn on the device are the library's."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pandas as pd
import pytest
from keras import ops

from notebooks_py import ch4_gpu_training as ch4
from notebooks_py.ch1_captcha_preview import (
    CaptchaSequence,
    classic_shifts,
    modern_shifts,
    random_texts,
)

ROOT = Path(ch4.__file__).parents[1]
REPLAYED = 500  # captchas of the library, as lesson 4 says
DEJAVU = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def record(renderer, count, seed, length=4):
    """Pictures of the library, and the plan that it followed."""
    rng = random.Random(seed)
    texts = random_texts(rng, count, renderer.glyphs.alphabet, length)
    return ch4.record_captchas(texts, rng, renderer)


def laid_out(renderer, plan):
    layout = ch4.lay_out(plan, renderer.glyphs, renderer.tables.height)
    return {name: ops.convert_to_tensor(value) for name, value in layout.items()}


def drawn(renderer, plan):
    return ops.convert_to_numpy(renderer(laid_out(renderer, plan)))


@pytest.fixture(scope="module")
def renderer():
    return ch4.CaptchaRenderer()


@pytest.fixture(scope="module")
def recorded(renderer):
    return record(renderer, REPLAYED, seed=1)


# Pixels.


def test_500_replayed_captchas_are_the_librarys(renderer, recorded):
    pictures, plan = recorded
    apart = np.abs(drawn(renderer, plan) - pictures)
    assert apart.mean() <= 0.6 and np.percentile(apart, 99) <= 8  # what was asked
    assert apart.mean() <= 0.05 and np.percentile(apart, 99) <= 1  # what is
    assert np.mean(apart == 0) > 0.98
    assert apart.mean(axis=(1, 2, 3)).max() < 0.6  # each of them


def test_a_broken_step_would_be_seen(renderer, recorded, monkeypatch):
    """The same comparison, with letters that are pasted at their full strength."""
    pictures, plan = recorded
    few = {name: value[:20] for name, value in plan.items()}
    keep = ch4.colour

    def colour(*given):
        packed = keep(*given)
        return ops.where(packed == 0, 0, ops.bitwise_or(packed, -(2**24)))

    steps = tuple(colour if step is keep else step for step in ch4.DRAWING)
    monkeypatch.setattr(ch4, "DRAWING", steps)
    broken = ch4.compiled(renderer.stages)(laid_out(renderer, few))
    apart = np.abs(ops.convert_to_numpy(broken["smooth"]) - pictures[:20])
    assert apart.mean() > 0.6


@pytest.mark.parametrize(
    "options",
    [
        {"width": 170, "height": 80},
        {"length": 6, "alphabet": "abcdefgh", "sizes": (30, 40)},
        {"width": 200, "height": 60, "fonts": [DEJAVU], "sizes": (36,), "alphabet": "ÄÖÜ€0O"},
    ],
)
def test_other_sizes_alphabets_and_fonts(options):
    other = ch4.CaptchaRenderer(**options)
    pictures, plan = record(other, 12, seed=2, length=options.get("length", 4))
    apart = np.abs(drawn(other, plan) - pictures)
    assert apart.mean() <= 0.1 and np.percentile(apart, 99) <= 4


def test_a_renderer_is_made_again_from_its_configuration(renderer):
    again = ch4.CaptchaRenderer.from_config(renderer.get_config())
    plan = ch4.draw_plan(["O0O0"], np.random.default_rng(1), renderer.glyphs)
    assert np.array_equal(drawn(again, plan), drawn(renderer, plan))


CODE = """
import numpy as np
from keras import ops
from notebooks_py import ch4_gpu_training as ch4
renderer = ch4.CaptchaRenderer()
texts = ch4.random_texts(ch4.random.Random(3), 40)
plan = ch4.draw_plan(texts, np.random.default_rng(3), renderer.glyphs)
layout = ch4.lay_out(plan, renderer.glyphs, 64)
pictures = renderer({name: ops.convert_to_tensor(value) for name, value in layout.items()})
np.save("PLACE", ops.convert_to_numpy(pictures))
"""


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_tensorflow_and_jax_draw_the_same(tmp_path):
    pictures = []
    for backend in ("tensorflow", "jax"):
        place = tmp_path / f"{backend}.npy"
        environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
        code = CODE.replace("PLACE", str(place))
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        assert run.returncode == 0, run.stderr[-2000:]
        pictures.append(np.load(place))
    assert pictures[0].shape == (40, 64, 128, 3) and np.ptp(pictures[0]) > 200
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.mark.parametrize(("before", "after"), [(10, 20), (20, 10), (33, 32), (7, 7), (250, 128)])
def test_bicubic_weights_are_pillows(before, after):
    pixels = np.random.default_rng(4).integers(0, 256, (1, before)).astype(np.uint8)
    expected = np.asarray(ch4.Image.fromarray(pixels).resize((after, 1)))[0].astype(int)
    resizer = ch4.Resizer((before, before), (after, after), before / after)
    sizes = [ops.convert_to_tensor(np.array([size], np.int32)) for size in (before, after)]
    found = ch4.resize(ops.convert_to_tensor(pixels.T[None].astype(np.int32)), resizer, *sizes)
    assert np.abs(ops.convert_to_numpy(found)[0, :, 0] - expected).max() <= 1


def test_a_network_tells_what_differs_and_only_that(renderer, recorded):
    pictures = recorded[0]
    rough = ch4.compiled(renderer.stages)(laid_out(renderer, recorded[1]))["add_noise"]
    rough = np.array(rough).transpose(0, 2, 1)[..., None] >> np.array([0, 8, 16]) & 255
    right, n = ch4.tell_apart(rough[:250].astype(np.uint8), pictures[250:], seed=1)
    assert n == 100 and right > 90  # a step is missing
    right, n = ch4.tell_apart(pictures[:250], pictures[250:], seed=1)
    assert 30 < right < 70  # nothing differs


# Plans.


def distance(a, b):
    """The statistic of the two-sample Kolmogorov-Smirnov test, as a multiple of its limit.

    The limit is that of the level 0.001, sqrt(-ln(0.001 / 2) / 2) * sqrt((n + m) / (n * m)); for
    whole numbers the test is on the safe side.
    """
    a, b = np.sort(np.ravel(a)), np.sort(np.ravel(b))
    steps = np.concatenate([a, b])
    shares = [np.searchsorted(x, steps, side="right") / len(x) for x in (a, b)]
    limit = np.sqrt(-np.log(0.001 / 2) / 2) * np.sqrt((len(a) + len(b)) / (len(a) * len(b)))
    return np.abs(shares[0] - shares[1]).max() / limit


def statistics(plan, glyphs):
    """Everything that a plan decides, and what follows from it for spaces, squeeze and places."""
    layout = ch4.lay_out(plan, glyphs, 64)
    numbers = {
        f"{name} {i}": plan[name][..., i]
        for name in ("shifts", "slides", "ink", "paper", "arc", "dots")
        for i in range(plan[name].shape[-1])
    }
    numbers |= {name: plan[name] for name in ("places", "fonts", "blanks", "angles")}
    numbers |= {"text width": layout["total"], "spaces": (plan["blanks"] >= 0).sum(axis=1)}
    return numbers | {f"left {i}": layout["left"][:, i] for i in range(4)}


@pytest.fixture(scope="module")
def plans(renderer):
    texts = random_texts(random.Random(5), 3_000)
    return {
        version: ch4.draw_plan(texts, np.random.default_rng(6), renderer.glyphs, version=version)
        for version in ("0.7.0", "0.7.1")
    }


def test_plans_are_distributed_as_the_librarys_draws(renderer, recorded, plans):
    ours, theirs = (statistics(plan, renderer.glyphs) for plan in (plans["0.7.0"], recorded[1]))
    assert len(ours) == 31 and ours.keys() == theirs.keys()
    distances = {name: distance(ours[name], theirs[name]) for name in ours}
    assert max(distances.values()) < 1, distances


def test_another_distribution_would_be_seen(renderer, recorded, plans):
    ours, theirs = (statistics(plan, renderer.glyphs) for plan in (plans["0.7.1"], recorded[1]))
    far = {name for name in ours if distance(ours[name], theirs[name]) > 1}
    assert far == {"shifts 0", "shifts 1", "shifts 2", "shifts 3", "arc 2"}
    half = {**recorded[1], "blanks": np.where(recorded[1]["places"] % 2, -1, 0)}
    half["blanks"][:, 0] = -1  # spaces a little too rare
    theirs = statistics(half, renderer.glyphs)
    assert distance(statistics(plans["0.7.0"], renderer.glyphs)["spaces"], theirs["spaces"]) > 1


@pytest.mark.parametrize(
    ("version", "shifts"), [("0.7.0", classic_shifts), ("0.7.1", modern_shifts)]
)
def test_warps_are_those_of_lesson_1(version, shifts):
    rng = random.Random(7)
    theirs = np.array([shifts(30, 42, rng) for _ in range(4_000)])
    ours = ch4.plan_shifts(np.tile([30, 42], (4_000, 1)), np.random.default_rng(8), version)
    assert all(distance(ours[:, i], theirs[:, i]) < 1 for i in range(4))


def test_a_plan_is_a_function_of_its_seed(renderer):
    plans = [
        ch4.draw_plan(["AB12"] * 3, np.random.default_rng(seed), renderer.glyphs)
        for seed in (1, 1, 2)
    ]
    same = [all(np.array_equal(plans[0][k], plan[k]) for k in plans[0]) for plan in plans]
    assert same == [True, True, False]


# What can't be drawn.


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (["AB?D"], {}, r"'\?' in 'AB\?D' is not in the alphabet"),
        (["ABCD", "ABC"], {}, "the text 'ABC' has 3 characters"),
        (["ABCD"], {"height": 40}, r"128x40 pixels are too few for 4 .* at least 32x"),
        (["ABCD"], {"width": 31}, "31x64 pixels are too few for 4 characters"),
        ([], {}, "texts is empty: a plan needs at least one text"),
        (["ABCD"], {"version": "0.6"}, "version='0.6': allowed are '0.7.0' and '0.7.1'"),
    ],
)
def test_a_plan_that_cannot_be_drawn_is_refused(renderer, texts, options, words):
    with pytest.raises(ValueError, match=words):
        ch4.draw_plan(texts, np.random.default_rng(1), renderer.glyphs, **options)


def test_a_missing_glyph_is_refused():
    with pytest.raises(ValueError, match="DroidSansMono.ttf has no glyph for '漢': take another"):
        ch4.read_glyphs("A漢")
    with pytest.raises(ValueError, match="pixels are too few"):
        ch4.CaptchaRenderer(height=20)


# Training on plans.


def test_planned_batches_have_the_texts_of_the_library(tmp_path):
    for labels in ("ctc", "one-hot"):
        planned = ch4.PlannedSequence(5, 2, 9, labels=labels)
        plain = CaptchaSequence(5, 2, 9, labels=labels)
        (layout, y), (_, expected) = planned[1], plain[1]
        assert np.array_equal(np.array(y), np.array(expected))
        assert all(np.array_equal(layout[k], planned[1][0][k]) for k in layout)
        assert not np.array_equal(layout["dots"], planned[0][0]["dots"])
    with pytest.raises(IndexError):
        planned[2]


def test_a_network_learns_from_what_the_device_draws(tmp_path, monkeypatch):
    slim = {"filters": (4, 4), "convs": 1, "stride": 4, "rnn": (), "tall": 1}
    monkeypatch.setitem(ch4.SIZES["slim"], "ctc", slim)
    monkeypatch.setattr(ch4, "VALID", 8)
    monkeypatch.setattr(ch4, "fastest_policy", lambda kind, size, source: "float32")

    def trained(name, source, **options):
        out = tmp_path / name
        return ch4.full_training("ctc", "slim", source, 3, out, test_set="classic-100", **options)

    source = ch4.PlannedSequence(4, 3, 5, labels="ctc")
    results = trained("a", source)
    assert results["settings"]["drawn as"] == "0.7.0" and results["pictures"] == 12
    assert json.loads((tmp_path / "a" / "results.json").read_text()) == results
    # The same losses as on the pictures that the layer draws, one batch after the other.
    keras.utils.set_random_seed(5)
    model = ch4.build("ctc", "slim")
    ch4.compile_fast(model, 3)
    losses = []
    for i in range(3):
        layout, y = source[i]
        pictures = source.renderer({k: ops.convert_to_tensor(v) for k, v in layout.items()})
        losses.append(float(model.train_on_batch(ops.convert_to_numpy(pictures) / 255, y)))
    assert pd.read_csv(tmp_path / "a" / "log.csv").loss.tolist() == pytest.approx(losses, rel=1e-4)
    with pytest.raises(ValueError, match="drawn as is None, but the run in .* has '0.7.0'"):
        trained("a", CaptchaSequence(4, 3, 5, labels="ctc"), resume=True)


def test_make_prove_compares_the_two(tmp_path):
    out, tool = tmp_path / "proof.json", ROOT / "tools" / "prove.py"

    def prove(*words):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, tool, f"OUT={out}", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    run = prove("COUNT=100", f"MODEL={ROOT / 'models' / 'runs' / 'ctc-slim-300k'}")
    assert run.returncode == 0, run.stderr[-2000:]
    results = json.loads(out.read_text())
    right = results["right"]
    assert results["command"].endswith("ctc-slim-300k COUNT=100 SEED=2019")
    assert abs(right["library"] - right["replayed"]) <= 1 and min(right.values()) > 80
    assert results["told_apart"]["device"][1] == 40
    run = prove("MODEL=nothing")
    assert run.returncode == 1 and "name the folder of a finished run" in run.stderr

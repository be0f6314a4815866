"""tools/train.py with a tiny network, short epochs and a small bank; run by test_train.py."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import train  # noqa: E402

from captcha_reader import scores  # noqa: E402
from captcha_reader.bank import GlyphBank  # noqa: E402
from notebooks_py import ch4_gpu_training as ch4  # noqa: E402

BANK = GlyphBank(1, colors=2, copies=1)
DRAW = scores.draw_test_set
PATCHES = [
    (ch4, "SLIM", {"filters": (4,), "convs": 1, "stride": 4, "momentum": 0.9}),
    (ch4, "fresh_bank", lambda seed, epoch, width: BANK),
    (train, "EPOCH", 3),
    (train, "VALID", 20),
    (scores, "TEST_SETS", scores.TEST_SETS | {"classic-1k": scores.TEST_SETS["classic-100"]}),
    (scores, "draw_test_set", lambda name: DRAW("classic-100")),
]


class Slowly(ch4.PracticeSequence):
    """Draws slowly, so that somebody has time to interrupt."""

    def __getitem__(self, index):
        time.sleep(0.5)
        return super().__getitem__(index)


if __name__ == "__main__":
    for patch in [*PATCHES, (ch4, "PracticeSequence", Slowly)]:
        setattr(*patch)
    sys.exit(train.main())

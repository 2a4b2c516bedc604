"""What `onnxsub robustness` refuses before anything is computed."""

from __future__ import annotations

import pytest

from onnxsub.errors import InputError
from onnxsub.evaluate.robustness.settings import RobustnessSettings

_APPROXIMATE = {"metric": "global", "quantitative": True, "approximate": "pgd", "prop": "confidence", "gamma": 0.1}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metric": "speed"}, "--metric 'speed' is unknown"),
        ({"prop": "xr"}, "--property 'xr' is unknown"),
        ({"eps": -0.1}, "--eps -0.1 is not a radius"),
        ({"prop": "sr"}, "needs --delta"),
        ({"eta": 0.5}, "--eta belongs to property scr"),
        ({"prop": "scr", "eta": 1.5}, "--eta 1.5"),
        ({"prop": "sr", "delta": -1.0}, "--delta -1"),
        ({"norm": "1"}, "--norm belongs to property sr"),
        ({"confidence": 1.0}, "--confidence 1"),
        ({"error": 0.1}, "--error belongs to --metric global"),
        ({"sequential": True}, "--sequential belongs to --metric global"),
        ({"metric": "global", "error": 1.5}, "--error 1.5"),
        ({"metric": "global", "error": 0.0}, "--error 0"),
        ({"metric": "global", "sequential": True}, "say which one with --error"),
        ({"metric": "global", "value_range": (0.0, 1.0)}, "--range is of the value of --quantitative"),
        ({"metric": "global", "quantitative": True, "value_range": (0.0, 1.0)}, "leave out --range"),
        ({"metric": "global", "quantitative": True, "eps": 0.0}, "give an --eps above 0"),
        ({"metric": "global", "quantitative": True, "prop": "sr", "delta": 1.0}, "give --range A B"),
        (
            {"metric": "global", "quantitative": True, "prop": "sr", "delta": 1.0, "value_range": (2.0, 1.0)},
            "--range 2 1 is not an interval",
        ),
        ({"distances": "exact"}, "--distances belongs to --metric pointwise"),
        ({"metric": "global", "distances": "exact"}, "--distances belongs to"),
        ({"metric": "pointwise", "prop": "sr", "delta": 1.0}, "leave out --property sr"),
        ({"metric": "pointwise", "distances": "guess"}, "--distances 'guess' is unknown"),
        ({"metric": "pointwise", "via": "lin:0.9"}, "--via names a substitute"),
        ({"metric": "pointwise", "distances": "substitute", "via": "lin"}, "is not METHOD:GAMMA"),
        ({"metric": "pointwise", "distances": "substitute", "via": "lin:2"}, "gamma"),
        ({"metric": "pointwise", "distances": "region", "verifier": "milp"}, "--verifier proves, which"),
        ({"metric": "security", "verifier": "bab"}, "--verifier belongs to"),
        ({"verifier": "nobody"}, "--verifier 'nobody' is unknown"),
        ({"draws": 10}, "--draws belongs to --metric accuracy"),
        ({"metric": "accuracy", "draws": 0}, "--draws 0"),
        ({"metric": "accuracy", "nodes": 5}, "--nodes belongs to"),
        ({"timeout": 0.0}, "--timeout 0"),
        ({"nodes": 0}, "--nodes 0"),
        ({"metric": "pointwise", "nodes": 0}, "--nodes 0"),
        ({"metric": "security", "nodes": 9}, "--nodes belongs to"),
        ({"metric": "pointwise", "distances": "attack", "nodes": 9}, "--nodes proves, which"),
        ({"approximate": "pgd"}, "--approximate belongs to --metric global"),
        ({"metric": "global", "approximate": "pgd"}, "--approximate bounds the value of --quantitative"),
        ({"metric": "global", "approximate": "pgd", "quantitative": True}, "give --distances attack"),
        ({**_APPROXIMATE, "approximate": "cw"}, "--approximate 'cw' is unknown"),
        ({**_APPROXIMATE, "verifier": "bab"}, "--verifier proves, which --approximate does not"),
        ({**_APPROXIMATE, "nodes": 9}, "--nodes proves, which --approximate does not"),
        ({**_APPROXIMATE, "error": 0.1}, "--error needs both ends of the interval"),
        ({"attack": "fgsm"}, "--attack belongs to --metric security"),
        ({"metric": "security", "attack": "cw"}, "--attack 'cw' is unknown"),
        ({"threads": 0}, "--threads 0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_settings_that_are_none(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as raised:
        RobustnessSettings(**{"metric": "satisfaction", "eps": 0.1, **settings})  # type: ignore[arg-type]
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_settings_survive_the_file() -> None:
    s = RobustnessSettings(
        "global", 0.1, prop="sr", delta=0.5, quantitative=True, value_range=(0.0, 2.0), error=0.1, sequential=True, mean=(0.1,),
        std=(0.2,),
    )  # fmt: skip
    assert RobustnessSettings.from_json(s.to_json()) == s
    s = RobustnessSettings("satisfaction", 0.1, nodes=70)
    assert RobustnessSettings.from_json(s.to_json()) == s
    assert s.local_options(1).exact.limits.nodes == 70
    assert RobustnessSettings("pointwise", 0.1, nodes=70).distance_options(1).limits.nodes == 70
    before = {name: value for name, value in s.to_json().items() if name != "nodes"}
    assert RobustnessSettings.from_json(before) == RobustnessSettings("satisfaction", 0.1)
    with pytest.raises(InputError, match="unknown setting 'gammas'"):
        RobustnessSettings.from_json({**s.to_json(), "gammas": [0.1]})

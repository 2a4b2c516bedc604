"""Properties and proofs in words, for readers who have not read the papers."""

from __future__ import annotations

from onnxsub.evaluate.robustness.settings import DISTANCES, RobustnessSettings

__all__ = ["ball_words", "beyond_words", "near_words", "point_words", "proof_words", "property_words", "title_of", "value_words"]

_NAMES = {
    "cr": "classification robustness",
    "sr": "standard robustness",
    "scr": "strong classification robustness",
    "lr": "Lipschitz robustness",
    "confidence": "confidence robustness",
}

_METRICS = {
    "satisfaction": "Constraint satisfaction",
    "security": "Constraint security",
    "accuracy": "Constraint accuracy",
    "pointwise": "Pointwise robustness",
    "global": "Global robustness",
}


def title_of(s: RobustnessSettings) -> str:
    """The metric and the property by their names."""
    return f"{_METRICS[s.metric]}: {_NAMES[s.prop]} at radius {s.eps:g}"


def ball_words(s: RobustnessSettings) -> str:
    """Which inputs the property speaks of."""
    return f"every valid input that differs from the sample by at most {s.eps:g} in each value"


def property_words(s: RobustnessSettings) -> str:
    """What holds where the property is satisfied."""
    return f"{ball_words(s)} {point_words(s)}"


def point_words(s: RobustnessSettings) -> str:
    """What one input does that satisfies the property: the rest of a sentence about it."""
    said = {
        "cr": "keeps the class of the sample",
        "sr": f"changes no logit by more than {_show(s.delta)}",
        "scr": f"gives the class of the sample a score of at least {_show(s.eta)}",
        "lr": f"changes no logit by more than {_show(s.lipschitz)} times its own distance from the sample",
        "confidence": f"changes no score by more than {_show(s.gamma)}",
    }[s.prop]
    if s.prop == "sr" and s.norm not in (None, "inf"):
        return f"changes the logits by at most {_show(s.delta)} in the {s.norm}-norm"
    return said


def near_words(s: RobustnessSettings) -> str:
    """The property in a few words."""
    return f"every input within {s.eps:g} {point_words(s)}"


def value_words(s: RobustnessSettings) -> str:
    """The value that `--quantitative` averages."""
    return {
        "cr": f"the distance to another class, as a share of {s.eps:g}",
        "sr": f"the largest change of the logits within {s.eps:g}",
        "scr": f"the smallest score of the true class within {s.eps:g}",
        "lr": f"the largest change of a logit per change of the input within {s.eps:g}",
        "confidence": f"the largest change of a score within {s.eps:g}",
    }[s.prop]


def proof_words(s: RobustnessSettings) -> str:
    """Where the verdicts come from, and so which way they may be wrong."""
    confirmed = "violated means that onnxruntime confirmed a counterexample on the file"
    if s.approximate is not None:
        side = "above" if s.local.smallest else "below"
        return (
            f"The value of a sample is that of an attack ({s.approximate}), so it bounds the true one from {side} only; "
            f"{confirmed}, nothing is proved."
        )
    if s.distances == "attack":
        return (
            "The distances are those of an attack, so they bound the true ones from above only; "
            f"{confirmed}, nothing is proved robust."
        )
    if s.distances == "region":
        return (
            "The distances are those within the linear region of each sample, so they bound the true ones from above only; "
            f"{confirmed}, nothing is proved robust."
        )
    if s.distances == "lbfgs":
        return (
            "The distances are those of the L-BFGS attack of Szegedy et al. 2014, a baseline, so they bound the true ones from "
            f"above only; {confirmed}, nothing is proved robust."
        )
    if s.distances not in (None, "exact", "substitute"):
        raise ValueError(f"nothing says what distances by {s.distances!r} prove; choose one of {', '.join(DISTANCES)}")
    if s.verifier not in (None, "bab", "milp"):
        return f"Proved means that another tool ({(s.verifier or '').partition(':')[0]}) claims a proof; {confirmed}."
    return f"Proved means proved for every point of the ball, not tried; {confirmed}."


def beyond_words(s: RobustnessSettings) -> str:
    """What the number does not say."""
    return (
        f"It says nothing of inputs that differ by more than {s.eps:g} in some value, of other changes (a rotation, another "
        "camera), or of inputs of another kind than the data."
    )


def _show(value: float | None) -> str:
    return "nothing" if value is None else f"{value:g}"

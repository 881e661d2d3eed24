"""Features of a dictionary that tell what is wanted from what is there, pushed; or added and frozen."""

from __future__ import annotations

from ...analysis.features.bias_result import BiasFeatures, By
from ...analysis.features.finding import bias_features
from ...editing.freezing import freeze
from ...models.errors import DenoscopeError
from ...models.progress import Progress
from ...probes.dictionary import Dictionary
from ...probes.intervene import Intervention
from ...report.plain import plain_site
from .acting import Push
from .change import Change
from .ground import Ground, Offers

BY = "features"
FEATURES = 30
"""Of each class."""


def offer(ground: Ground, told: BiasFeatures | None, dictionary: Dictionary | None, offers: Offers) -> None:
    """Add the push of the features that were found, and what of it can be frozen into weights."""
    if told is not None and dictionary is not None:
        offers.attempt(BY, "features pushed", lambda: pushed(ground, told, dictionary))
        if ground.goal.kind != "balance":
            offers.attempt(BY, "features frozen", lambda: frozen(ground, told, dictionary))


def found_in(ground: Ground, dictionary: Dictionary, progress: Progress) -> BiasFeatures:
    """Which features tell prompts with what is wanted from those without.

    Raises:
        ValueError: as ``bias_features``.
    """
    positive, negative = ground.pairs()
    n = len(ground.seeds)
    texts = {wanted(ground): positive, plain(ground): negative}
    classes = {name: [t for t in some for _ in range(n)] for name, some in texts.items()}
    seeds = ground.seeds * len(positive)
    return bias_features(ground.model, dictionary, classes, seeds=seeds, progress=progress, **ground.settings)


def wanted(ground: Ground) -> str:
    """Name of the class that is wanted."""
    goal = ground.goal
    return goal.asked[0] if goal.kind == "balance" else goal.meant or f"no {goal.about}"


def plain(ground: Ground) -> str:
    """Name of the other class."""
    goal = ground.goal
    return goal.asked[1] if goal.kind == "balance" else goal.about


def pushed(ground: Ground, told: BiasFeatures, dictionary: Dictionary, by: By = "attribution") -> Change:
    """Make the wanted class's features stronger and the other's weaker, where the word is said."""
    word, towards, rows = ground.goal.about, wanted(ground), 0
    why = _why(told, towards)

    def push(strength: float) -> Push:
        edit = told.towards(dictionary, towards, strength, features=FEATURES, by=by)
        return Push(dictionary, edit.fn.features, edit.fn.by, "scale", word)

    strength = 1.0
    if ground.goal.kind == "balance":
        rarer = ground.rarer()
        towards = rarer if rarer in told.classes else ground.goal.naming(rarer)

        def acting(s: float) -> tuple[Intervention, ...]:
            return push(s).interventions

        strength, said, rows = ground.balanced(rarer, acting)
        why, rows = f"{_why(told, towards)} {said}.", rows + ground.rows(len(ground.seeds))
    return Change(f"features at {plain_site(str(dictionary.site))}", BY, why, push(strength), rows)


def frozen(ground: Ground, told: BiasFeatures, dictionary: Dictionary) -> Change:
    """Add the wanted class's features everywhere, in weights."""
    name = wanted(ground)
    edit = told.towards(dictionary, name, 1.0, features=FEATURES, how="add", branch=None)
    why = f"{_why(told, name)} Added at their usual strength, in weights, for every prompt."
    place = plain_site(str(dictionary.site))
    return Change(f"features at {place}, added and frozen", BY, why, freeze(ground.model, edit))


def _why(told: BiasFeatures, name: str) -> str:
    accuracy = told.accuracy()
    best = accuracy.loc[accuracy["mean"].idxmax()]
    try:
        n = len(told.top(name, FEATURES))
    except DenoscopeError:
        n = 0
    return (
        f"{n} features tell “{name}”; a classifier of them is right in {best['mean']:.0%} of new samples "
        f"({best['shuffled']:.0%} with shuffled labels)."
    )

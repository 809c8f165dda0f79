"""Members of an ensemble: methods by name, and saved models by their path."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ModelError, OptionError
from ..images import Framing
from ..methods import registry
from .manifest import is_model
from .plan import NOT_IN_TILES, Plan
from .store import StoredModel, load


def saved_members(names: Sequence[str]) -> dict[str, StoredModel]:
    """The saved models among the members of an ensemble, by their path; a method's name wins.

    Raises
    ------
    OptionError
        One member alone, or an ensemble among them.
    ModelError
        A member is neither the name of a method nor the path of a saved model.
    """
    if len(names) < 2:
        raise OptionError(f"An ensemble has two members or more. Received: {list(names)!r}.")
    stored = {}
    for name in names:
        if name not in registry.PRESETS:
            if not is_model(name):
                methods = [each for each, one in registry.PRESETS.items() if not one.combines]
                raise ModelError(
                    f"The member {name!r} is neither the name of a method ({', '.join(methods)}) "
                    "nor a directory that holds a saved model. Check the spelling or the path."
                )
            stored[name] = load(name)
    own = [n for n, m in stored.items() if _is_own_backbone(m.manifest.plan)]
    if own:
        raise OptionError(
            f"{own[0]} was trained on a backbone of your own, which an ensemble cannot take. Train "
            "it on one that has a name."
        )
    methods = [stored[name].manifest.plan.method if name in stored else name for name in names]
    if any(registry.preset(method).combines for method in methods):
        raise OptionError("A member of an ensemble is a single method, not an ensemble.")
    return stored


def _is_own_backbone(plan: Plan) -> bool:
    """Whether a model was trained on a backbone that the user handed over."""
    return str(plan.parameters.get("backbone")).startswith("own:")


def framing_of(stored: dict[str, StoredModel]) -> Framing | None:
    """The framing that saved members share; None where there are none.

    Raises
    ------
    OptionError
        They do not share one.
    """
    plans = {name: model.manifest.plan for name, model in stored.items()}
    if not plans:
        return None
    first, *others = plans
    for other in others:
        if differing := _differing(plans[first], plans[other]):
            raise OptionError(
                "The members of an ensemble must take the same of a photograph. "
                f"{first} and {other} differ in {', '.join(differing)}; train them with the same "
                "img_size, gray_scale, fit, roi, align and normalize, on the same images."
            )
    framing = plans[first].framing
    if framing.tiles is not None:
        raise OptionError(f"{NOT_IN_TILES} {first} takes photographs in tiles.")
    return framing


def _differing(one: Plan, other: Plan) -> list[str]:
    """Where two framings differ, each with both values where these are short."""
    values = [plan.to_dict()["spec"] for plan in (one, other)]
    names = sorted({*values[0], *values[1]})
    pairs = {name: [str(some.get(name)) for some in values] for name in names}
    return [
        f"{name} ({a} and {b})" if len(a + b) < 60 else name
        for name, (a, b) in pairs.items()
        if a != b
    ]

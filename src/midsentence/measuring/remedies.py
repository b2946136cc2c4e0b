"""Which settings to try against a disease of the latent, and the commands that try them."""

import json
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diagnosis import Diagnosis, Examination

Tree = Mapping[str, Any]
"""A run's settings, `Config.model_dump()`."""

ENOUGH = 8.0
"""Nats of free bits in all, a rule of thumb: the default's 0.2 x 32 = 6.4, and a little more."""


def look(tree: Tree, path: str) -> Any:
    """The setting ``a.b``, or None where this kind of part has none."""
    section, _, key = path.partition(".")
    return tree[section].get(key) if key else tree[section]


def ask(tree: Tree, path: str, value: Any) -> list[str]:
    """``a.b=value`` in a list, if there is such a setting and it is another so far."""
    held = look(tree, path)
    if held is None or held == value:
        return []
    return [f"{path}={value if isinstance(value, str) else json.dumps(value)}"]


def free_bits(tree: Tree, factor: float) -> list[str]:
    """The allowance `factor` times what it was; above 1, at least `ENOUGH` in all."""
    if tree["posterior"]["kind"] == "vmf":  # its KL is fixed by kappa: the width is what can move
        return ask(tree, "posterior.kappa", min(10_000.0, factor * tree["posterior"]["kappa"]))
    held, target = look(tree, "objective.free_bits"), look(tree, "objective.target")
    if target is not None:  # kind "rate": the KL that it holds
        return ask(tree, "objective.target", factor * target)
    if held is None:
        return ["objective.kind=elbo"] if factor > 1 else []
    whole = look(tree, "objective.form") == "sentence"
    least = (ENOUGH if whole else ENOUGH / tree["latent"]) if factor > 1 else 0.0
    return ask(tree, "objective.free_bits", float(f"{max(least, factor * held):.2g}"))


def dropout(tree: Tree, path: str, least: float) -> list[str]:
    """At least so much of it; a little more where there is that already."""
    held = look(tree, path)
    if held is None:
        return []
    return ask(tree, path, least if held < least else max(held, round(min(0.7, held + 0.15), 2)))


def must_read(tree: Tree) -> list[str]:
    """Make the decoder need z: hide words from it, and give z a way around it."""
    ways = list(look(tree, "decoder.inject") or [])
    skip = [] if "skip" in ways else ask(tree, "decoder.inject", [*ways, "skip"])
    # Bowman et al. 2016; Dieng et al. 2019.
    return dropout(tree, "decoder.word_dropout", 0.3) + skip


def cyclical(tree: Tree) -> list[str]:
    # Fu et al. 2019
    return [] if tree["beta"]["kind"] == "cyclical" else ["beta.kind=cyclical"]


def collapsed(e: "Examination", tree: Tree) -> list[str]:
    if e.kl >= 1:  # it is paid for, and wasted: more of it would be wasted too
        return must_read(tree) + ask(tree, "encoder.pooling", "max") + cyclical(tree)
    # Long et al. 2019 for max pooling; Kingma et al. 2016 for free bits.
    return ask(tree, "encoder.pooling", "max") + free_bits(tree, 2) + cyclical(tree)


def collapsing(e: "Examination", tree: Tree) -> list[str]:
    over = look(tree, "beta.over")
    slower = ask(tree, "beta.over", max(over, round(min(0.8, 2 * over), 2))) if over else []
    return ask(tree, "encoder.pooling", "max") + free_bits(tree, 1.5) + slower


def overfitted(e: "Examination", tree: Tree) -> list[str]:
    smaller = ask(tree, "latent", max(min(2, tree["latent"]), tree["latent"] // 2))
    regular = dropout(tree, "encoder.dropout", 0.3) + dropout(tree, "decoder.dropout", 0.3)
    return smaller + free_bits(tree, 0.5) + regular


def hole(e: "Examination", tree: Tree) -> list[str]:
    if tree["prior"]["kind"] in ("normal", "sphere"):
        sphere = tree["posterior"]["kind"] == "vmf"
        if look(tree, "objective.alpha") == 1:  # what is drawn of it must carry a gradient
            weight = ask(tree, "objective.weight", 2 * tree["objective"]["weight"])
            return weight if sphere else ["prior.kind=flow"]
        # Tomczak & Welling 2018; a mixture of Gaussians does not lie on the sphere.
        return ["prior.kind=vamp" if sphere else "prior.kind=mog"]
    more = {"components": look(tree, "prior.components"), "layers": look(tree, "prior.layers")}
    richer = [part for k, v in more.items() if v for part in ask(tree, f"prior.{k}", 2 * v)]
    return richer + free_bits(tree, 0.5)


def first_words(e: "Examination", tree: Tree) -> list[str]:
    # Zhao et al. 2017 for the bag of words, which has no order to learn the beginning of.
    bag = ask(tree, "objective.bow", 1.0)
    return ask(tree, "encoder.pooling", "mean") + bag + dropout(tree, "decoder.word_dropout", 0.3)


REMEDIES: dict[str, Callable[["Examination", Tree], list[str]]] = {
    "collapsed": collapsed,
    "over-fitted latent": overfitted,
    "prior hole": hole,
    "collapsing": collapsing,
    "first words only": first_words,
    "diverged": lambda e, tree: ask(tree, "optimizer.lr", look(tree, "optimizer.lr") / 4),
}
"""Verdict -> settings to try, from the run's own."""


def commands(
    found: "Diagnosis", tree: Tree, run: str, out: str, *, fitted: bool = False, stale: bool = False
) -> list[str]:
    """What to paste: a run like `run`, with the settings, into `out`; none without settings.

    A hole can be filled without training the model again, if no prior was `fitted` already; a
    `stale` one, or one that is not in use, is replaced. A corpus that came through a pipe is called
    CORPUS: its name is not known. A corpus may be several files.
    """
    if not found.settings:
        return []
    held = tree["corpus"]
    given = held["source"]
    sources = given if isinstance(given, list) else ["CORPUS" if given == "-" else given]
    words = ["midsentence", "train", *sources, "--out", out, "--config", f"{run}/config.toml"]
    for part in ("valid", "test"):
        words += [f"--{part}", held[part]] if held.get(part) else []
    for setting in found.settings:
        words += ["--set", setting]
    again = [shlex.join(words)]
    if found.verdict == "prior hole" and tree["posterior"]["kind"] != "vmf" and not fitted:
        fit = ["midsentence", "fit-prior", run, "--kind", "flow", *["--force"] * stale]
        return [shlex.join(fit), *again]
    return again

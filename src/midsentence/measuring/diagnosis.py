"""From figures to a verdict: what is wrong with a latent space, why, and what to try.

Measuring is in `doctor`; here are only pure functions of its figures, the thresholds they judge
by, and the words they answer with. No torch, so that alarms and the report may use it freely.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .remedies import REMEDIES, Tree

COLLAPSED = 0.5
"""Nats. Below it z says less than one fair coin (ln 2 = 0.69) does about its sentence."""

HEALTHY = 2.0
"""Nats. From here on z tells e^2 > 7 kinds of sentence apart; between the two it says little."""

HEALTHY_UNITS = 5
"""Active units (or all there are, if fewer) from which on z is more than a switch or two."""

HOLE = 3.0
"""Nats of marginal KL. If q(z) were the prior cut down to a part of its mass, e^-3 = 1/20 of the
prior's samples would fall into that part."""

OUTSIDE, EXPECTED_OUTSIDE = 0.75, 0.05
"""Share of prior samples where hardly any posterior lies: three of four; and what it is without a
hole, for `doctor` counts those below the 5 % quantile of the z of sentences."""

NEAR_CAP = 1.0
"""Nats under its cap from which on the measured MI says more about N than about z, and KL - MI is
no estimate of the marginal KL any more, only an upper bound."""

FORGOTTEN = 0.5
"""An over-fitted latent: of what z tells about training sentences, less than this part holds for
unseen ones. A rule of thumb."""

SHALLOW = 0.2
"""Of what an even spread would give the words after the first quarter, less than this part."""

SILENT = 0.01
"""Gradient norm of the encoder against the decoder's: below it hardly anything is learned there."""


@dataclass(frozen=True)
class Examination:
    """The figures. Nats per sentence, on validation sentences unless `train` is in the name.

    - elbo, reconstruction (-log p(x|z)), kl: one z a sentence from q(z|x); tokens: the mean number
      that is predicted. kl_per_dimension: empty where the KL has no parts a dimension.
    - Under a prior without a density (a diffusion) elbo, kl and what is made of them are nan. In a
      model with labels everything is given the label, and z is exchanged within one.
    - kl = mi + marginal_kl. mi: I(x; z) under q, at most mi_cap = ln N, or in a model with labels
      I(x; z | y), at most the mean of ln N_y over sentences, N_y of whom have the label of each.
      marginal_kl: KL(q(z) || p(z)), q(z) the mean of all posteriors (Hoffman & Johnson 2016, "ELBO
      Surgery: Yet Another Way to Carve Up the Variational Evidence Lower Bound").
    - moments_kl: KL(N(m, v) || p(z)), with the means m and variances v of q(z) in each dimension.
      It is never above the marginal KL (under a flow posterior, whose moments are of draws, up to
      their noise), and has no cap; only where the prior is a Gaussian that factorises.
    - outside: share of prior samples less probable under q(z) than 95 % of the z of sentences are
      (each under the posteriors of all others). 0.05 if q(z) is the prior; 1 is one big hole.
    - active_units: threshold -> dimensions whose posterior mean varies over sentences by at least
      that much (Burda et al. 2016, "Importance Weighted Autoencoders", appendix C; theirs: 0.01).
    - posterior_variance, aggregate_variance: E_x[Var q(z_d|x)] and Var q(z_d), a dimension each. A
      dimension that says nothing has both equal; one that is used has a narrow posterior in a wide
      aggregate.
    - shuffled_gap, prior_gap: log p(x|z) minus log p(x|z'), z' that of another sentence or drawn
      from the prior: what the decoder loses if it is told something else.
    - first_share: part of shuffled_gap that falls on the first `first_tokens` tokens, a quarter of
      a mean sentence; first_even: the part of -log p(x|z') that falls there (Bosc & Vincent 2020,
      "Do Sequence-to-Sequence VAEs Learn Global Features of Sentences?").
    - encoder_gradient, decoder_gradient: norms for the parameters up to q(z|x) and from z on, of
      the ELBO (weight 1, no free bits), a mean over one batch of sentences of middle length.
    """

    sentences: int
    latent: int
    tokens: float = math.nan
    elbo: float = math.nan
    elbo_stderr: float = math.nan
    reconstruction: float = math.nan
    kl: float = math.nan
    mi: float = math.nan
    mi_cap: float = math.nan
    marginal_kl: float = math.nan
    moments_kl: float = math.nan
    outside: float = math.nan
    shuffled_gap: float = math.nan
    shuffled_gap_stderr: float = math.nan
    prior_gap: float = math.nan
    prior_gap_stderr: float = math.nan
    first_tokens: int = 0
    first_share: float = math.nan
    first_even: float = math.nan
    encoder_gradient: float = math.nan
    decoder_gradient: float = math.nan
    train_sentences: int = 0
    train_tokens: float = math.nan
    train_elbo: float = math.nan
    train_shuffled_gap: float = math.nan
    active_units: Mapping[float, int] = field(default_factory=dict)
    kl_per_dimension: list[float] = field(default_factory=list)
    posterior_variance: list[float] = field(default_factory=list)
    aggregate_variance: list[float] = field(default_factory=list)

    @property
    def active(self) -> float:
        """Active units at the published threshold."""
        return self.active_units.get(0.01, math.nan)

    @property
    def kept(self) -> float:
        """The part of z's worth on training sentences that it has on unseen ones, a token each."""
        return self.shuffled_gap / self.tokens / (self.train_shuffled_gap / self.train_tokens)


@dataclass(frozen=True)
class Diagnosis:
    """A verdict in a word or three, the reasons, and settings to try (``a.b=c``)."""

    verdict: str
    reasons: tuple[str, ...]
    settings: tuple[str, ...] = ()


def carrying(told: float, active: float, latent: float) -> str:
    """``collapsed``, ``collapsing`` or ``healthy``, by nats that z tells and active units.

    told: the least of KL, MI and whatever else bounds what z says; active: at threshold 0.01;
    latent: all units. nan is an unknown, and no reason to say collapsed.
    """
    few = min(HEALTHY_UNITS, latent) if latent > 0 else HEALTHY_UNITS
    if told < COLLAPSED or active == 0:
        return "collapsed"
    return "collapsing" if told < HEALTHY or active < few else "healthy"


def nats(value: float) -> str:
    """For a sentence of words; what rounds to nothing has no sign."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def least(*values: float) -> float:
    """The smallest that is known; infinity if none is."""
    return min((v for v in values if not math.isnan(v)), default=math.inf)


def diagnose(e: Examination, settings: Tree) -> Diagnosis:
    """The gravest disease gives the verdict; what else was found is added to the reasons.

    In this order: collapsed, over-fitted latent, prior hole, collapsing, first words only; then
    healthy. settings: `Config.model_dump()` of the run.
    """
    if e.latent == 0:
        text = "A language model has no latent: there is no posterior to examine."
        return Diagnosis("no latent", (text,))
    if not math.isfinite(e.reconstruction):
        return _with_remedy("diverged", ["The bound is not a finite number."], e, settings)
    found = {name: reasons for name, examine in DISEASES.items() if (reasons := examine(e))}
    if "collapsed" in found:
        found = {"collapsed": found["collapsed"]}  # the rest follows from it
    if not found:
        return Diagnosis("healthy", _healthy(e))
    verdict = next(iter(found))
    rest = [f"Also {name}: {reasons[0]}" for name, reasons in list(found.items())[1:]]
    return _with_remedy(verdict, [*found[verdict], *rest], e, settings)


def _with_remedy(verdict: str, reasons: list[str], e: Examination, settings: Tree) -> Diagnosis:
    return Diagnosis(verdict, tuple(reasons), tuple(REMEDIES[verdict](e, settings)))


def _healthy(e: Examination) -> tuple[str, ...]:
    about = f"z tells {nats(e.mi)} of at most {nats(e.mi_cap)} measurable nats about its sentence"
    return (
        f"{about}; {e.active:.0f} of {e.latent} units are active.",
        f"Another sentence's z costs the decoder {nats(e.shuffled_gap)} nats: it reads z.",
    )


def _read(e: Examination) -> float:
    """What the decoder makes of z, where it makes the most of it."""
    return max((v for v in (e.shuffled_gap, e.train_shuffled_gap) if v == v), default=math.nan)


def _level(e: Examination) -> str:
    return carrying(least(e.kl, e.mi, _read(e)), e.active, e.latent)


def _collapsed(e: Examination) -> list[str]:
    return _little(e, COLLAPSED) if _level(e) == "collapsed" else []


def _collapsing(e: Examination) -> list[str]:
    return _little(e, HEALTHY) if _level(e) == "collapsing" else []


def _little(e: Examination, floor: float) -> list[str]:
    """Why one would say that z says little."""
    few = 1 if floor == COLLAPSED else min(HEALTHY_UNITS, e.latent)
    reasons = []
    if e.kl < floor:
        reasons.append(f"KL is {nats(e.kl)} nats a sentence: the posterior is close to the prior.")
    elif e.mi < floor:
        paid = f"{nats(e.kl)} nats of KL are paid, but only " if math.isfinite(e.kl) else "Only "
        told = f"{nats(e.mi)} nats tell sentences apart (mutual information)."
        reasons.append(paid + told)
    if _read(e) < floor:
        nothing = floor == COLLAPSED and e.shuffled_gap <= 2 * e.shuffled_gap_stderr
        reasons.append(
            f"Given the z of another sentence the decoder loses {nats(e.shuffled_gap)} ± "
            f"{nats(e.shuffled_gap_stderr)} nats: it "
            f"{'does not read' if nothing else 'hardly reads'} z."
        )
    if e.active < few:
        reasons.append(f"{e.active:.0f} of {e.latent} units are active.")
    if e.encoder_gradient < SILENT * e.decoder_gradient:
        share = e.encoder_gradient / e.decoder_gradient
        reasons.append(f"The encoder's gradient is {share:.2%} of the decoder's: it has stopped.")
    return reasons


def _overfitted(e: Examination) -> list[str]:
    if not (e.train_shuffled_gap >= HEALTHY and e.kept < FORGOTTEN):
        return []
    known = math.isfinite(e.elbo) and math.isfinite(e.train_elbo)
    if known and e.elbo >= e.train_elbo:
        return []
    reasons = [
        f"On training sentences z is worth {nats(e.train_shuffled_gap)} nats to the decoder, on "
        f"unseen ones {nats(e.shuffled_gap)} ({max(0.0, e.kept):.0%} a token).",
        f"The bound is {nats(e.train_elbo)} on training sentences, {nats(e.elbo)} on unseen ones.",
    ]
    return reasons if known else reasons[:1]


def _hole(e: Examination) -> list[str]:
    estimate = e.marginal_kl if e.mi < e.mi_cap - NEAR_CAP else math.nan
    deep = max((v for v in (e.moments_kl, estimate) if v == v), default=0.0)
    reasons = []
    if deep >= HOLE:
        at_least = "at least " if deep == e.moments_kl else ""
        reasons.append(
            f"Of {nats(e.kl)} nats of KL {at_least}{nats(deep)} lie between the prior and the "
            "average posterior (marginal KL)."
        )
    if e.outside >= OUTSIDE:
        reasons.append(
            f"{e.outside:.0%} of the prior's samples fall where hardly any sentence lies "
            f"({EXPECTED_OUTSIDE:.0%} if there were no hole)."
        )
    return reasons


def _first_words(e: Examination) -> list[str]:
    if not 1 - e.first_share < SHALLOW * (1 - e.first_even):
        return []
    return [
        f"{min(1.0, e.first_share):.0%} of what z tells the decoder is about the first "
        f"{e.first_tokens} tokens, which hold {e.first_even:.0%} of what there is to tell."
    ]


DISEASES = {
    "collapsed": _collapsed,
    "over-fitted latent": _overfitted,
    "prior hole": _hole,
    "collapsing": _collapsing,
    "first words only": _first_words,
}
"""Verdict -> the reasons for it, none if it does not hold; the gravest first."""

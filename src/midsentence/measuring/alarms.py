"""Alarms while a model trains: what the validation records already give away. No torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .diagnosis import HEALTHY, HOLE, NEAR_CAP, carrying, least

Record = Mapping[str, Any]

IN_A_ROW = 2
"""Validations at full KL weight that must agree: the first may still be settling."""

EARLY = 100
"""Steps before which no z can be expected to say anything."""

FALLEN = 0.5
"""MI below this part of its best at full weight is on its way down."""


def settled(weight: float, final: float) -> bool:
    """Whether a weight has come to the end of its way, where a sigmoid never quite arrives."""
    return math.isclose(weight, final, rel_tol=1e-3)


def alarms(records: Sequence[Record], final: float, latent: int) -> dict[str, str]:
    """Kind of trouble -> one line with the fix, as of the last of the validation records.

    records: as the trainer writes them (step, elbo, kl, mi, mi_cap, active_units; nats per
    sentence), each with the `beta` of its time. Only those at the `final` weight count, and never
    one alone: while the weight is annealed a low bound or a falling MI is as it should be.
    """
    counted = [
        r
        for r in records
        if settled(r["beta"], final) and r["step"] >= EARLY and math.isfinite(r["elbo"])
    ]
    if latent == 0 or final == 0 or len(counted) < IN_A_ROW or records[-1] is not counted[-1]:
        return {}
    now, recent = counted[-1], counted[-IN_A_ROW:]
    kl, mi, best = now["kl"], now["mi"], max(counted, key=lambda r: float(r["elbo"]))
    found = {}
    if all(_level(r, latent) == "collapsed" for r in recent):
        found["collapsed"] = (
            f"the posterior has collapsed (KL {kl:.2f}, MI {mi:.2f} nats, {now['active_units']} "
            "active units): stop, and train with encoder.pooling=max, the default, and more "
            "objective.free_bits"
        )
    elif mi < FALLEN * max(r["mi"] for r in counted) and mi < HEALTHY:
        found["collapsing"] = (
            f"MI fell to {mi:.2f} nats, less than half of its best: raise objective.free_bits or "
            "anneal for longer (beta.over)"
        )
    if all(r["elbo"] < best["elbo"] and r["kl"] > best["kl"] + 1 for r in recent):
        found["over-fitted latent"] = (
            f"the bound falls on unseen sentences while the KL grows (to {kl:.1f} nats): z learns "
            "the training sentences; more dropout, a smaller latent or fewer free bits"
        )
    hole = all(r["kl"] - r["mi"] > HOLE and r["mi"] < r["mi_cap"] - NEAR_CAP for r in recent)
    if hole and "collapsed" not in found:
        found["prior hole"] = (
            f"of {kl:.1f} nats of KL {kl - mi:.1f} are marginal: samples will fall where no "
            "sentence lies; prior.kind=mog, or fit a prior afterwards"
        )
    return found


def _level(record: Record, latent: int) -> str:
    return carrying(least(record["kl"], record["mi"]), record["active_units"], latent)


class Alarms:
    """Listens to validation records, and says each kind of trouble once."""

    def __init__(self, latent: int):
        self.latent = latent
        self.records: list[Record] = []
        self.told: set[str] = set()

    def __call__(self, record: Record, beta: float, final: float) -> list[str]:
        """New alarms after one more record, made at the KL weight `beta` on its way to `final`."""
        self.records.append({**record, "beta": beta})
        found = alarms(self.records, final, self.latent)
        new = [f"alarm: {text}" for kind, text in found.items() if kind not in self.told]
        self.told |= set(found)
        return new

"""Writes bandwidth.json: bandwidth problems and their answers in exact arithmetic.

Run: python3 bandwidth.py > bandwidth.json
Inputs are doubles; answers are computed with 80 decimal digits by bisection on
g(u) = sum c/(u + delta) and rounded once.
"""

import json
import random
from decimal import Decimal as D
from decimal import getcontext

getcontext().prec = 80
TIE = D("1e-15")


def answer(a, c, total, caps):
    """The optimum by bisection, with every number a Decimal."""
    demand = [n for n in range(len(a)) if c[n] > 0]
    room = sum(cap if cap is not None else total for cap in caps)
    fits = room >= total * (1 - TIE)
    if not demand:
        return dict(
            tau=max(a), u=D(0), b=[D(0)] * len(a), price=D(0), regime="no_demand", fits=fits
        )
    if total == 0 or any(caps[n] == 0 for n in demand):
        return dict(regime="infeasible", fits=False)
    a_max = max(a[n] for n in demand)
    delta = [a_max - x for x in a]
    bounds = [c[n] / caps[n] - delta[n] for n in demand if caps[n] is not None]
    bounds += [-delta[n] for n in range(len(a)) if c[n] == 0]

    def g(u):
        return sum(c[n] / (u + delta[n]) for n in demand)

    low, high = D("1e-60"), D("1e60")
    for _ in range(400):
        middle = (low * high).sqrt()
        low, high = (middle, high) if g(middle) > total else (low, middle)
    lower = max(bounds, default=D(-1))
    tied = high <= lower * (1 + TIE)
    u = lower if tied else high
    b = [c[n] / (u + delta[n]) if c[n] > 0 else D(0) for n in range(len(a))]
    slope = sum(c[n] / (u + delta[n]) ** 2 for n in demand)
    price = D(0) if tied else 1 / slope
    regime = "cap_or_floor" if tied else "bandwidth"
    return dict(tau=a_max + u, u=u, b=b, price=price, regime=regime, fits=fits)


def vector(note, a, c, total, caps=None):
    caps = caps or [None] * len(a)
    exact = answer(
        [D(x) for x in a], [D(x) for x in c], D(total), [None if x is None else D(x) for x in caps]
    )
    row = dict(id=note, a_s=a, c_bit_per_bpshz=c, B_hz=total, b_max_hz=caps)
    row.update(regime=exact["regime"], equality_feasible=exact["fits"])
    if "tau" in exact:
        row.update(
            tau_s=float(exact["tau"]),
            tau_minus_amax_s=float(exact["u"]),
            b_min_hz=[float(x) for x in exact["b"]],
            bandwidth_used_hz=float(sum(exact["b"])),
            shadow_price_s_per_hz=float(exact["price"]),
        )
    return row


def decades(rng, low, high):
    return 10.0 ** rng.uniform(low, high)


def rows():
    rng = random.Random(20)
    yield vector("one device", [3.0], [7e6], 2e6)
    yield vector("one device, cap equal to the band", [3.0], [7e6], 3e6, [3e6])
    yield vector("one device, capped", [3.0], [7e6], 3e6, [1e6])
    yield vector("equal devices", [5.0] * 7, [3e9] * 7, 1e7)
    yield vector("equal devices, caps share out the band", [5.0] * 5, [3e9] * 5, 1e7, [2e6] * 5)
    yield vector(
        "all capped below the band", [5.0, 6.0, 9.0], [3e9, 1e9, 2e9], 1e7, [1e6, 2e6, 3e6]
    )
    yield vector("device without demand is last", [500.0, 6.0], [0.0, 1e9], 1e7)
    yield vector("device without demand is first", [0.0, 6.0], [0.0, 1e9], 1e7)
    yield vector("no demand", [5.0, 6.0], [0.0, 0.0], 1e7)
    yield vector("no demand, no band", [5.0, 6.0], [0.0, 0.0], 0.0)
    yield vector("no demand, small caps", [5.0, 6.0], [0.0, 0.0], 1e7, [1.0, 2.0])
    yield vector("no band", [5.0, 6.0], [0.0, 1.0], 0.0)
    yield vector("cap of zero", [5.0, 6.0], [1.0, 1.0], 1e7, [0.0, None])
    yield vector("cap of zero without demand", [5.0, 6.0], [0.0, 1.0], 1e7, [0.0, None])
    yield vector("tau hides u", [1e6, 1e6 - 1e-3], [1e-9, 1e3], 2e6)
    yield vector("residual of ten digits cancels", [1000.0, 0.0], [1e-3, 1e10], 1e7)
    yield vector("u of eighteen digits less", [1000.0, 0.0], [1e-13, 1e10], 1e7)
    cap = 1e9 / (1000.0 + 1e-7)
    yield vector("cap bound cancels", [1000.0, 0.0], [1e-6, 1e9], 1e9, [None, cap])
    yield vector(
        "two cap bounds that differ in the last digits",
        [1000.0, 1000.0 / 3, 0.0],
        [1e-6, 2e9 / 3, 1e9],
        1e9,
        [None, 1e6, cap],
    )
    for c, total in (
        (65507704299.553535, 65507704.299553536),
        (31332275412.99135, 31332275.41299135),
    ):
        # c/total - 1000 rounds to 1e-13, but is negative.
        yield vector("start right of the root by rounding", [1000.0, 0.0], [1e-30, c], total)
    for n in (2, 8, 9, 17):
        a = [decades(rng, -5, 5) for _ in range(n)]
        c = [decades(rng, 0, 10) for _ in range(n)]
        yield vector(f"ten decades, {n}", a, c, decades(rng, 3, 8))
        a = [decades(rng, -2, 3) for _ in range(n)]
        c = [decades(rng, -5, 5) * rng.choice([0, 1, 1, 1]) for _ in range(n)]
        total = decades(rng, 0, 8)
        caps = [rng.choice([None, total * decades(rng, -3, 0)]) for _ in range(n)]
        yield vector(f"ten decades, caps, {n}", a, c, total, caps)
        a = [400.0 + rng.random() for _ in range(n)]
        c = [decades(rng, 9, 10) for _ in range(n)]
        yield vector(f"fast band, {n}", a, c, 1e14)
    for n in (3, 8):
        # The latest device asks for ten decades less than the others.
        a = [100.0 + 10 * rng.random() for _ in range(n)]
        c = [decades(rng, 9, 10) for _ in range(n)]
        last = a.index(max(a))
        c[last] *= 1e-10
        others = sum(c[i] / (a[last] - a[i]) for i in range(n) if i != last)
        yield vector(f"latest device asks for almost nothing, {n}", a, c, others)
        yield vector(
            f"latest device asks for almost nothing, more band, {n}", a, c, others * (1 + 1e-9)
        )
        yield vector(
            f"latest device asks for almost nothing, less band, {n}", a, c, others * (1 - 1e-9)
        )


print('{"p2": [')
print(",\n".join(json.dumps(row) for row in rows()))
print("]}")

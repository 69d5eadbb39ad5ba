"""P2 by Python's solvers on one instance from standard input; called by solver_peers.rs.

Prints CSV rows `devices,solver,seconds,excess`. Needs numpy, scipy, cvxpy and clarabel.
"""

import json
import sys
import time

import cvxpy as cp
import numpy as np
from scipy.optimize import brentq, minimize

LIMIT_S = 60.0


class OutOfTimeError(Exception):
    """A solver used up its time."""


instance = json.load(sys.stdin)
a, c = np.array(instance["a_s"]), np.array(instance["c"])
total, optimum = instance["total_hz"], instance["tau_s"]
n = len(a)


def delay(shares):
    """Delay of shares scaled down to the band, so that overdrawing it gains nothing."""
    shares = np.maximum(shares, 0.0)
    shares = shares / max(shares.sum(), 1.0)
    with np.errstate(divide="ignore"):
        return float(np.max(a + c / (shares * total)))


def by_brentq():
    """Root of the sum of needs."""
    low = a.max() + 1e-9 * optimum
    high = a.max() + c.sum() / total + 1.0
    tau = brentq(lambda t: (c / (t - a)).sum() - total, low, high, xtol=1e-12, rtol=1e-15)
    return c / (tau - a) / total


def by_slsqp():
    """Epigraph form with exact derivatives."""
    end = time.perf_counter() + LIMIT_S
    start = np.append(np.full(n, 1.0 / n), delay(np.full(n, 1.0 / n)) / optimum)

    def slack(x):
        if time.perf_counter() > end:
            raise OutOfTimeError
        return x[n] - (a + c / (x[:n] * total)) / optimum

    def slack_jacobian(x):
        jacobian = np.zeros((n, n + 1))
        np.fill_diagonal(jacobian[:, :n], c / (x[:n] ** 2 * total) / optimum)
        jacobian[:, n] = 1.0
        return jacobian

    objective_gradient = np.append(np.zeros(n), 1.0)
    band_gradient = np.append(-np.ones(n), 0.0)
    constraints = [
        {"type": "ineq", "fun": slack, "jac": slack_jacobian},
        {"type": "ineq", "fun": lambda x: 1.0 - x[:n].sum(), "jac": lambda _: band_gradient},
    ]
    answer = minimize(
        lambda x: x[n],
        start,
        jac=lambda _: objective_gradient,
        bounds=[(1e-9, 1.0)] * n + [(0.0, None)],
        constraints=constraints,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return answer.x[:n]


def by_cvxpy():
    """Epigraph form as a second-order cone program."""
    shares, tau = cp.Variable(n), cp.Variable()
    times = cp.multiply(c / (total * optimum), cp.inv_pos(shares))
    problem = cp.Problem(cp.Minimize(tau), [a / optimum + times <= tau, cp.sum(shares) <= 1])
    problem.solve(solver=cp.CLARABEL)
    return shares.value


def row(solver, run, repeats):
    """Median time and excess of one solver."""
    times, shares = [], None
    try:
        for _ in range(repeats):
            start = time.perf_counter()
            shares = run()
            times.append(time.perf_counter() - start)
    except OutOfTimeError:
        print(f"{n},{solver},>{LIMIT_S:.0f},", flush=True)
        return
    excess = delay(shares) / optimum - 1.0
    print(f"{n},{solver},{sorted(times)[len(times) // 2]:.3e},{excess:.1e}", flush=True)


row("scipy brentq", by_brentq, 101)
row("scipy SLSQP", by_slsqp, 1 if n > 100 else 5)
row("cvxpy + Clarabel", by_cvxpy, 3)

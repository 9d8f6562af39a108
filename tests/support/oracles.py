"""Transcriptions of the papers' pseudo-code in NumPy, line by line and without fedloom.

A client is a pair (gradient function, weight n_i). Parameters are float64 vectors. Nothing here is shared with the
package: names, order of operations and loops follow the papers.
"""

import numpy as np

# ------------------------------------------------------------------------------------------------------ local halves


def client_update(theta, gradient, K, eta):
    """FedAvg (McMahan et al. 2017), Algorithm 1, ClientUpdate, with K full-batch steps."""
    w = theta.copy()
    for _ in range(K):
        w = w - eta * gradient(w)
    return w


def prox_objective_gradient(gradient, mu, theta):
    """The gradient of h(w) = F(w) + mu/2 ||w - theta||^2 (Li et al. 2020, equation 2)."""
    return lambda w: gradient(w) + mu * (w - theta)


def prox_objective(loss, mu, theta):
    """The value of h(w), with the squared norm written out as a sum over numbers."""
    return lambda w: loss(w) + mu / 2 * sum((float(a) - float(b)) ** 2 for a, b in zip(w, theta, strict=True))


def scaffold_client(x, c, c_i, gradient, K, eta_l):
    """SCAFFOLD (Karimireddy et al. 2020), Algorithm 1, lines 7 to 13, option II."""
    y = x.copy()
    for _ in range(K):
        g = gradient(y)
        y = y - eta_l * (g - c_i + c)
    c_plus = c_i - c + (x - y) / (K * eta_l)
    return y - x, c_plus - c_i, c_plus


# ----------------------------------------------------------------------------------------------------- server halves


class FedAvgServer:
    """theta <- sum p_i theta_i, in the form theta + sum p_i (theta_i - theta), times a server learning rate."""

    def __init__(self, eta=1.0):
        self.eta = eta

    def step(self, theta, delta, t):
        return theta + self.eta * delta


class FedAvgM:
    """Server momentum: as published by OpenFedLLM, or Hsu et al. 2019."""

    def __init__(self, beta=0.9, eta=1.0, variant="published"):
        self.beta, self.eta, self.variant, self.m = beta, eta, variant, None

    def step(self, theta, delta, t):
        if self.variant == "hsu":
            gradient = -delta
            self.m = gradient if self.m is None else self.beta * self.m + gradient
            return theta - self.eta * self.m
        self.m = delta if t == 0 else self.beta * self.m + (1 - self.beta) * delta
        return theta + self.eta * self.m


class FedOpt:
    """Reddi et al. 2021, Algorithm 2, number by number; `published` is OpenFedLLM's reading of it."""

    def __init__(self, kind, eta=1e-3, tau=1e-3, beta1=0.9, beta2=0.99, v0=None, variant="reddi"):
        self.kind, self.eta, self.tau, self.variant = kind, eta, tau, variant
        self.beta1, self.beta2 = (0.0 if kind == "adagrad" else beta1), beta2
        self.v0 = tau * tau if v0 is None else v0
        self.m = self.v = None

    def step(self, theta, delta, t):
        if self.v is None:
            self.m, self.v = [0.0] * len(theta), [self.v0] * len(theta)
        new = []
        for j, d in enumerate(np.asarray(delta, dtype=np.float64).tolist()):
            if self.variant == "published" and t == 0:
                self.m[j] = d
            else:
                self.m[j] = self.beta1 * self.m[j] + (1 - self.beta1) * d
            s = d * d if self.variant == "reddi" else self.m[j] * self.m[j]
            if self.kind == "adagrad":
                self.v[j] = self.v[j] + s
            elif self.kind == "yogi":
                sign = (self.v[j] > s) - (self.v[j] < s)
                self.v[j] = self.v[j] - (1 - self.beta2) * s * sign
            else:
                self.v[j] = self.beta2 * self.v[j] + (1 - self.beta2) * s
            new.append(theta[j] + self.eta * self.m[j] / (self.v[j] ** 0.5 + self.tau))
        return np.array(new)

    def mean_gain(self):
        return sum(self.eta / (v**0.5 + self.tau) for v in self.v) / len(self.v)


# ------------------------------------------------------------------------------------------------------- whole rounds


def weighted_mean(vectors, weights):
    """sum_i (n_i / n) x_i, one number after another."""
    n = sum(weights)
    total = [0.0] * len(vectors[0])
    for vector, weight in zip(vectors, weights, strict=True):
        for j, x in enumerate(vector):
            total[j] += weight / n * float(x)
    return np.array(total)


def federate(clients, theta0, *, rule, server, schedule, K, eta, mu=0.01, weighting="samples"):
    """Return theta after each round; `schedule` lists the clients that take part, round by round."""
    theta = np.array(theta0, dtype=np.float64)
    c = np.zeros_like(theta)
    c_local = [np.zeros_like(theta) for _ in clients]
    trace = []
    for t, S in enumerate(schedule):
        deltas, control_deltas = [], []
        for i in S:
            gradient = clients[i][0]
            if rule == "scaffold":
                delta, dc, c_local[i] = scaffold_client(theta, c, c_local[i], gradient, K, eta)
                control_deltas.append(dc)
            elif rule == "prox":
                delta = client_update(theta, prox_objective_gradient(gradient, mu, theta), K, eta) - theta
            else:
                delta = client_update(theta, gradient, K, eta) - theta
            deltas.append(delta)
        weights = [clients[i][1] if weighting == "samples" else 1.0 for i in S]
        theta = server.step(theta, weighted_mean(deltas, weights), t)
        if rule == "scaffold":
            c = c + sum(control_deltas) / len(clients)
        trace.append(theta)
    return trace


def local_only(client, theta0, *, rounds, K, eta):
    """One client alone: its result of a round is the start of its next."""
    theta, trace = np.array(theta0, dtype=np.float64), []
    for _ in range(rounds):
        theta = client_update(theta, client[0], K, eta)
        trace.append(theta)
    return trace


# ----------------------------------------------------------------------------------------------------------- problems


def quadratic(A, b):
    """The gradient of 1/2 (w - b)^T A (w - b)."""
    return lambda w: A @ (w - b)


def quadratic_optimum(clients_Ab, weights):
    """Where the weighted sum of the quadratics has its minimum: (sum p A)^-1 sum p A b."""
    p = np.array(weights) / sum(weights)
    A = sum(share * A_i for share, (A_i, _) in zip(p, clients_Ab, strict=True))
    return np.linalg.solve(A, sum(share * A_i @ b_i for share, (A_i, b_i) in zip(p, clients_Ab, strict=True)))


def logistic(X, y):
    """The gradient of the mean of log(1 + exp(-y x.w)), labels +-1."""
    return lambda w: -(X * (y / (1 + np.exp(y * (X @ w))))[:, None]).mean(axis=0)

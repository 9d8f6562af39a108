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


# --------------------------------------------------------------------------------------------------- robust aggregation
# Rows are lists of numbers, weights are positive. Each function returns the aggregate as an array.


def median_of(values, *, lower=False):
    """The middle value; of an even number the mean of the middle two, or the lower one of them."""
    ordered = sorted(float(value) for value in values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if lower else (low + high) / 2


def coordinate_median(rows, *, lower=False):
    """Yin et al. 2018, Definition 1."""
    return np.array([median_of([row[j] for row in rows], lower=lower) for j in range(len(rows[0]))])


def trimmed_mean(rows, beta):
    """Yin et al. 2018, Definition 2, with beta values dropped at each end."""
    result = []
    for j in range(len(rows[0])):
        kept = sorted(float(row[j]) for row in rows)
        for _ in range(beta):
            kept.pop(0)
            kept.pop()
        result.append(sum(kept) / len(kept))
    return np.array(result)


def squared_distance(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def krum_score(rows, i, neighbours, *, squared=True):
    """Blanchard et al. 2017, section 4: over the nearest others, i itself not among them."""
    distances = sorted(squared_distance(rows[i], rows[j]) for j in range(len(rows)) if j != i)
    return sum(d if squared else d**0.5 for d in distances[:neighbours])


def multi_krum(rows, weights, f, m):
    scores = [krum_score(rows, i, len(rows) - f - 2) for i in range(len(rows))]
    best = sorted(range(len(rows)), key=lambda i: scores[i])[:m]
    return weighted_mean([rows[i] for i in best], [weights[i] for i in best])


def krum_as_published(rows, weights, f):
    """Plain distances, n - f - 1 neighbours, the winner averaged with them."""
    n = len(rows)
    scores = [krum_score(rows, i, n - f - 1, squared=False) for i in range(n)]
    winner = scores.index(min(scores))
    others = sorted((j for j in range(n) if j != winner), key=lambda j: squared_distance(rows[winner], rows[j]))
    group = [winner, *others[: n - f - 1]]
    return weighted_mean([rows[i] for i in group], [weights[i] for i in group])


def bulyan(rows, f):
    """El Mhamdi et al. 2018, section 4: theta = n - 2f times Krum, then beta = theta - 2f values around the median."""
    left, selection = [list(map(float, row)) for row in rows], []
    while len(selection) < len(rows) - 2 * f:
        neighbours = max(1, len(left) - f - 2)
        scores = [krum_score(left, i, neighbours) for i in range(len(left))]
        tied = [i for i, score in enumerate(scores) if score == min(scores)]
        selection.append(left.pop(min(tied, key=lambda i: sum(squared_distance(left[i], row) for row in left))))
    result = []
    for j in range(len(rows[0])):
        values = [row[j] for row in selection]
        middle = median_of(values)
        near = sorted(values, key=lambda value: abs(value - middle))[: len(selection) - 2 * f]
        result.append(sum(near) / len(near))
    return np.array(result)


def geometric_median(rows, weights, *, steps=20_000):
    """Pillutla et al. 2022, Algorithm 2, on the point itself."""
    points = np.array(rows, dtype=np.float64)
    z = weighted_mean(rows, weights)
    for _ in range(steps):
        pull = [w / max(1e-12, float(np.linalg.norm(z - p))) for w, p in zip(weights, points, strict=True)]
        new = weighted_mean(points, pull)
        if np.linalg.norm(new - z) <= 1e-15 * np.linalg.norm(new):
            return new
        z = new
    return z


def norm_clipped(rows, weights):
    """Sun et al. 2019, with the median length as threshold."""
    lengths = [sum(float(x) ** 2 for x in row) ** 0.5 for row in rows]
    threshold = median_of(lengths)
    clipped = [[x * min(1.0, threshold / length) for x in row] for row, length in zip(rows, lengths, strict=True)]
    return weighted_mean(clipped, weights)


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (sum(float(x) ** 2 for x in a) ** 0.5 * sum(float(y) ** 2 for y in b) ** 0.5)


def foolsgold_weights(histories):
    """Fung et al. 2020, Algorithm 1, lines 3 to 20; the largest cosine of a client is not taken below 0."""
    n = len(histories)
    cs = [[cosine(histories[i], histories[j]) if i != j else 0.0 for j in range(n)] for i in range(n)]
    v = [max([0.0] + [cs[i][j] for j in range(n) if j != i]) for i in range(n)]
    for i in range(n):
        for j in range(n):
            if i != j and v[i] < v[j]:
                cs[i][j] *= v[i] / v[j]
    alpha = [min(1.0, max(0.0, 1 - max(cs[i]))) for i in range(n)]
    largest = max(alpha)
    result = []
    for a in alpha:
        a = min(a / largest, 0.99)
        result.append(0.0 if a <= 0 else min(1.0, max(0.0, np.log(a / (1 - a)) + 0.5)))
    return result


def foolsgold(rounds):
    """The aggregate of each round of {client: row}."""
    history, results = {}, []
    for rows in rounds:
        for client, row in rows.items():
            history[client] = history.get(client, 0.0) + np.array(row, dtype=np.float64)
        weights = foolsgold_weights([history[client] for client in rows])
        results.append(sum(w * np.array(row, dtype=np.float64) for w, row in zip(weights, rows.values(), strict=True)))
    return results


def foolsgold_as_published(rows):
    weights = foolsgold_weights(rows)
    kept = [w * np.array(row, dtype=np.float64) for w, row in zip(weights, rows, strict=True) if w != 0]
    return sum(kept) / len(kept)


def repeated_median_line(y):
    """Slope and intercept of the sorted values y over the ranks 1 to n."""
    n = len(y)
    slopes = [median_of([(y[j] - y[i]) / (j - i) for j in range(n) if j != i]) for i in range(n)]
    slope = median_of(slopes)
    return slope, median_of([y[i] - slope * (i + 1) for i in range(n)])


def residual_reweighted(rows, *, lam=2.0, delta=0.1):
    """Fu et al. 2019, Algorithms 1 and 2; each number alone, with the hat matrix written out."""
    n, score = len(rows), [0.0] * len(rows)
    mended = [[0.0] * len(rows[0]) for _ in rows]
    X = np.array([[1.0, k + 1.0] for k in range(n)])
    hat = X @ np.linalg.inv(X.T @ X) @ X.T
    K = lam * (2 / n) ** 0.5
    for j in range(len(rows[0])):
        order = sorted(range(n), key=lambda i: float(rows[i][j]))
        y = [float(rows[i][j]) for i in order]
        slope, intercept = repeated_median_line(y)
        r = [y[k] - intercept - slope * (k + 1) for k in range(n)]
        tau = 1.4826 * (1 + 5 / (n - 1)) * median_of([abs(value) for value in r])
        a = []
        for k in range(n):
            if r[k] == 0:
                a.append(1.0)
                continue
            e, root = r[k] / tau, (1 - hat[k, k]) ** 0.5
            a.append(root / e * max(-K, min(K, e / root)))
        spread = float(np.std(a))
        for k, i in enumerate(order):
            score[i] += a[k] * spread
            mended[i][j] = intercept + slope * (k + 1) if a[k] < delta else y[k]
    return weighted_mean(mended, [(s / max(score)) ** 2 for s in score])


def dnc_dropped(rows, columns, count):
    """Shejwalkar and Houmansadr 2021, Algorithm 2, lines 4 to 9: the indices of the highest scores."""
    sub = np.array([[float(row[j]) for j in columns] for row in rows])
    centred = sub - sub.mean(axis=0)
    v = np.linalg.svd(centred, full_matrices=False)[2][0]
    scores = [float(u @ v) ** 2 for u in centred]
    return set(sorted(range(len(rows)), key=lambda i: -scores[i])[:count])


def dnc(rows, weights, draws, count):
    good = set(range(len(rows)))
    for columns in draws:
        good -= dnc_dropped(rows, columns, count)
    return weighted_mean([rows[i] for i in sorted(good)], [weights[i] for i in sorted(good)])


def flame_cluster(rows):
    """The first group of more than half of the rows that single links of rising cosine distance make."""
    n = len(rows)
    group = {i: {i} for i in range(n)}
    pairs = [(a, b) for a in range(n) for b in range(a)]
    for i, j in sorted(pairs, key=lambda pair: -cosine(rows[pair[0]], rows[pair[1]])):
        if group[i] is not group[j]:
            joined = group[i] | group[j]
            for k in joined:
                group[k] = joined
            if len(joined) > n // 2:
                return sorted(joined)
    return list(range(n))


def flame(rows, weights):
    """Nguyen et al. 2022, Algorithm 1, without the noise."""
    lengths = [sum(float(x) ** 2 for x in row) ** 0.5 for row in rows]
    threshold, inside = median_of(lengths), flame_cluster(rows)
    clipped = [[x * min(1.0, threshold / lengths[i]) for x in rows[i]] for i in inside]
    return weighted_mean(clipped, [weights[i] for i in inside])


def low_rank_distance(first, second):
    """Of two lists of (B, A): the distance of the dense products."""
    return sum(float(((b @ a - d @ c) ** 2).sum()) for (b, a), (d, c) in zip(first, second, strict=True)) ** 0.5

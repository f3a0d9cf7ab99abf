"""Computes the steps of rules without coefficients again, from their formulas and with other libraries.

    pip install numpy scipy diffusers==0.42.1 torch blackjax==1.7.1 jax
    python tests/reference/steps/nonlinear.py

The records, records.json beside this file, are written by the crate's own test `write_step_records`: runs of two chains, step by
step, with the noise and the uniform numbers that a rule asked for, the scores and log-densities with the points at which it asked
for them, the states, and what was accepted. Nothing here knows the crate: every rule is written from its formula in numpy, is given
the numbers that went in, and must arrive at the numbers that came out, decision by decision. Scores and log-densities are those
of the law, which is written here too. The exit status is 1 if anything differs by more than TOLERANCE. With --twins every
reader is also given a record with an error in it, and the status is 1 if one of them sees nothing.

Libraries, where they have the rule; one that is not installed is skipped:
- blackjax: Hmc by its velocity Verlet, Mala by its Langevin step, with the law's log-density and derivatives by jax.
- scipy: the coefficients of AdaptiveFlow are those of RK45; with the integral controller all calls of the right-hand side are
  compared, one by one, with those that RK45 makes on its own for the same law.
- diffusers: SnrLangevin with ScoreSdeVeScheduler.step_correct, Inpainted and RePaint with RePaintScheduler.

Deliberate differences:
- Hmc and ScoreHmc take a step size h in squared units of the state, so that one leapfrog is the step of Mala: a leapfrog of
  length sqrt(2h). blackjax takes the length.
- A uniform number is looked at only if the ratio is below 1. blackjax draws one in any case.
- diffusers' step_correct takes norms over the whole batch. SnrLangevin.per_chain takes those of a chain, and is compared with
  batches of one; per_group is compared with a batch that is the group. The rule that this crate prefers, AnnealedLangevin, does
  neither, and has coefficients.
- diffusers' RePaintScheduler uses one noise vector for known and unknown coordinates, which do not overlap; here each has its
  own, so a rule that mixes coordinates may stand in the place of the predictor. Its journeys go back step by step; here one
  transition goes all the way, with the same law. Journeys of one step are compared. It is given eta = 1, as its default eta = 0
  adds no noise to unknown coordinates where the paper does. In its last step it adds none whatever eta is, as it takes the
  grid to end without noise; the grids that are compared do.
- scipy does not stretch a step that would leave next to nothing for the last one (1.01 here). In the record it makes no
  difference.
- The default controller of AdaptiveFlow has a proportional part; scipy's is the integral one.
"""

import copy
import json
import math
import pathlib
import sys

import numpy as np

RECORDS = json.loads((pathlib.Path(__file__).parent / "records.json").read_text())

# Largest difference that is taken for rounding. States are below 10, and a step adds up fewer than 100 products of numbers up to
# 100 (slopes of the score at these times): 100 * 100 * 10 * 1.1e-16 = 1e-11. An adaptive rule goes on for up to 64 such steps, but
# each is compared on its own.
TOLERANCE = 1e-11

WEIGHTS = np.array([0.4, 0.6])
MEANS = np.array([[-1.0, 0.5], [1.2, -0.4]])
VARIANCES = np.array([0.2, 0.3])


def law(at, x):
    """ln p_t and its gradient at a point."""
    centres, variances = at["alpha"] * MEANS, at["alpha"] ** 2 * VARIANCES + at["sigma"] ** 2
    offsets = x - centres
    logs = np.log(WEIGHTS) - 0.5 * (offsets**2).sum(1) / variances - np.log(2 * math.pi * variances)
    top = logs.max()
    shares = np.exp(logs - top)
    return top + math.log(shares.sum()), -(shares / shares.sum() / variances) @ offsets


class Differences:
    """What differs by how much."""

    def __init__(self):
        self.largest, self.checks = 0.0, 0

    def close(self, ours, theirs):
        difference = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max()) if np.size(ours) else 0.0
        self.largest = max(self.largest, difference if difference == difference else math.inf)
        self.checks += 1

    def same(self, ours, theirs):
        self.close([0.0], [0.0 if ours == theirs else math.inf])


class Row:
    """A row of a table; what was asked for is found by its point."""

    def __init__(self, row):
        self.row, self.state = row, np.array(row["state"])
        self.evaluations = row["evaluations"]
        recorded = row["recorded"]
        self.noise = dict(zip(recorded["noise_numbers"], map(np.array, row["noise"])))
        self.uniforms = dict(recorded["uniforms"])
        self.densities, self.gradients = recorded["log_densities"], recorded["gradients"]
        self.accepted = recorded["accepted"]

    @staticmethod
    def find(asked, point, value):
        nearest = min(asked, key=lambda one: np.abs(np.array(one["point"]) - point).max(), default=None)
        if nearest is None or np.abs(np.array(nearest["point"]) - point).max() > TOLERANCE:
            return None
        return np.array(nearest[value])

    def drawn(self, number):
        """A noise vector; a step that ends without noise does not ask for it."""
        return self.noise.get(number, np.zeros(2))

    def score(self, point):
        return self.find(self.evaluations, point, "score")

    def density(self, point):
        return self.find(self.densities, point, "log_density")

    def gradient(self, point):
        return self.find(self.gradients, point, "score")


def decide(row, ratio, differences):
    """Metropolis: accepted if the ratio is at least 1, or a uniform number is below it."""
    accepted = ratio >= 0 or math.log(row.uniforms[0]) < ratio
    differences.same(accepted, row.accepted[0])
    return accepted


def steps(record):
    for table in record["tables"]:
        yield table, np.array(table["start"]), [Row(row) for row in table["rows"]]


def langevin_coefficients(settings, at):
    h = settings["step_size"]
    if settings["split"]:  # the reference of the Ornstein-Uhlenbeck process is N(0, I)
        return 1 - math.exp(-h), math.sqrt(1 - math.exp(-2 * h))
    return h, math.sqrt(2 * h)


def log_of_proposals(x, y, s_x, s_y, b, g):
    """ln q(x|y) - ln q(y|x)"""
    return (np.sum((y - x - b * s_x) ** 2) - np.sum((x - y - b * s_y) ** 2)) / (2 * g**2)


QUADRATURES = {
    "simpson": ([0, 0.5, 1], [1 / 6, 4 / 6, 1 / 6]),
    "gauss_3": ([0.5 - math.sqrt(0.15), 0.5, 0.5 + math.sqrt(0.15)], [5 / 18, 8 / 18, 5 / 18]),
    "trapezoid_4": ([0, 1 / 3, 2 / 3, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}


def metropolis(name, record, differences):
    """Mala, PcnLangevin, ScoreMetropolis."""
    integrates = name.startswith("score_")
    rule = QUADRATURES.get(name.removeprefix("score_metropolis_"), QUADRATURES["simpson"])
    for table, x, rows in steps(record):
        b, g = langevin_coefficients(record["settings"], table["nodes"][0])
        s_x = rows[0].score(x)
        log_x, f_x = rows[0].density(x), rows[0].gradient(x)
        for row in rows:
            y = x + b * s_x + g * row.noise[0]
            s_y, log_y, f_y = row.score(y), row.density(y), row.gradient(y)
            ratio = log_of_proposals(x, y, s_x, s_y, b, g)
            ratio += 0.0 if log_x is None else log_y - log_x
            if integrates:
                for node, weight in zip(*rule):
                    point = x + node * (y - x)
                    score, known = {0: (s_x, f_x), 1: (s_y, f_y)}.get(node, (row.score(point), row.gradient(point)))
                    ratio += weight * np.dot(score - (0.0 if f_x is None else known), y - x)
            if decide(row, ratio, differences):
                x, s_x, log_x, f_x = y, s_y, log_y, f_y
            differences.close(row.state, x)


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def two_coins(uniforms, log_ratio, mean, most, off):
    """Whether the two coins accept; None if they may not decide. `off` gives what g has beyond the straight line, and its bound."""
    if mean > most:
        return None
    asked, left = 0, None
    while True:
        drawn = [uniforms.get(1 + 6 * asked + i) for i in range(6)]
        if left is None:
            towards, left = drawn[0] < sigmoid(log_ratio), mean
        left += math.log(drawn[1])
        if left <= 0:
            return towards
        if asked == most:
            return None
        difference, allowed = off(sorted(drawn[2:5])[1])
        if abs(difference) > allowed + 1e-12:
            return None
        share = difference / allowed
        if drawn[5] >= (1 + share if towards else 1 - share) / 2:
            left = None
        asked += 1


def barker(name, record, differences):
    """ScoreBarker."""
    settings, fallbacks, points = record["settings"], 0, 0
    for table, x, rows in steps(record):
        b, g = langevin_coefficients(settings, table["nodes"][0])
        s_x = rows[0].score(x)
        for row in rows:
            y = x + b * s_x + g * row.noise[0]
            s_y, v = row.score(y), y - x
            at_x, at_y, cube = np.dot(s_x, v), np.dot(s_y, v), np.dot(v, v) ** 1.5

            def off(u):
                nonlocal points
                points += 1
                beyond = np.dot(row.score(x + u * v), v) - ((1 - u) * at_x + u * at_y)
                return beyond, settings["bound"] * cube * u * (1 - u) / 2

            log_ratio = (at_x + at_y) / 2 + log_of_proposals(x, y, s_x, s_y, b, g)
            mean = settings["bound"] * cube / 12
            accepted = two_coins(row.uniforms, log_ratio, mean, settings["most_points"], off)
            if accepted is None:  # Simpson's rule
                fallbacks += 1
                accepted = row.uniforms[0] < sigmoid(log_ratio + 2 / 3 * off(0.5)[0])
            differences.same(accepted, row.accepted[0])
            if accepted:
                x, s_x = y, s_y
            differences.close(row.state, x)
    # both records are of what their names say
    differences.same((fallbacks > 0, points > 0), (name.endswith("fallbacks"), True))


def parabola(x0, x1, x2, s0, s1, s2):
    a, b = x1 - x0, x2 - x1
    return (np.dot(s0, 3 * a - b) + 4 * np.dot(s1, a + b) + np.dot(s2, 3 * b - a)) / 6


def hamiltonian(name, record, differences):
    """Hmc and ScoreHmc."""
    h, leapfrogs = record["settings"]["step_size"], record["settings"]["leapfrogs"]
    e = math.sqrt(2 * h)
    for _, x, rows in steps(record):
        s_x, log_x = rows[0].score(x), rows[0].density(x)
        for row in rows:
            points, scores, p = [x], [s_x], row.noise[0]
            ratio = 0.5 * np.dot(p, p)
            for _ in range(leapfrogs):
                p = p + 0.5 * e * scores[-1]
                points.append(points[-1] + e * p)
                scores.append(row.score(points[-1]))
                p = p + 0.5 * e * scores[-1]
            ratio -= 0.5 * np.dot(p, p)
            log_y = row.density(points[-1])
            if name.startswith("score_"):
                ratio += sum(parabola(*points[k : k + 3], *scores[k : k + 3]) for k in range(0, leapfrogs, 2))
            else:
                ratio += log_y - log_x
            if decide(row, ratio, differences):
                x, s_x, log_x = points[-1], scores[-1], log_y
            differences.close(row.state, x)


def snr_langevin(name, record, differences):
    settings, tables = record["settings"], [list(rows) for _, _, rows in steps(record)]
    states = [np.array(table["start"]) for table in record["tables"]]
    for rows in zip(*tables):
        scores = [row.score(x) for row, x in zip(rows, states)]
        norms = [(np.linalg.norm(row.noise[0]), np.linalg.norm(s)) for row, s in zip(rows, scores)]
        if "group" in name:
            norms = [np.mean(norms, axis=0)] * len(norms)
        for j, (row, (of_noise, of_score)) in enumerate(zip(rows, norms)):
            e = 2 * settings["kept"] * (settings["ratio"] * of_noise / of_score) ** 2
            states[j] = states[j] + e * scores[j] + math.sqrt(2 * e) * row.noise[0]
            differences.close(row.state, states[j])


def posterior_step(x, s, z, before, after):
    """x_v given x_t and the denoiser in the place of the data."""
    q = before["alpha"] / after["alpha"]
    added = before["sigma"] ** 2 - (q * after["sigma"]) ** 2
    denoised = (x + before["sigma"] ** 2 * s) / before["alpha"]
    mean = q * after["sigma"] ** 2 * x + after["alpha"] * added * denoised
    return mean / before["sigma"] ** 2 + after["sigma"] * math.sqrt(max(added, 0.0)) / before["sigma"] * z


def known_at(settings, x, z, at):
    x, i = x.copy(), settings["known"]
    x[i] = at["alpha"] * settings["value"] + at["sigma"] * z[i]
    return x


def inpainted(name, record, differences):
    """Inpainted with the posterior step, and with DPM-Solver++(2M); RePaint."""
    for table, x, rows in steps(record):
        settings, nodes, last = record["settings"], table["nodes"], None
        for row in rows:
            k = row.row["node"]
            if row.row["kind"] == "Corrector":
                jump = settings["jump"]
                q = nodes[k - jump]["alpha"] / nodes[k]["alpha"]
                tau = math.sqrt(nodes[k - jump]["sigma"] ** 2 - (q * nodes[k]["sigma"]) ** 2)
                x = q * x + tau * row.noise[0]
                for i in range(jump):
                    before, after = nodes[k - jump + i], nodes[k - jump + i + 1]
                    x = posterior_step(x, row.score(x), row.drawn(1 + 2 * i), before, after)
                    x = known_at(settings, x, row.noise[2 + 2 * i], after)
            elif "dpm_solver" in name:
                before, after = nodes[k], nodes[k + 1]
                denoised = (x + before["sigma"] ** 2 * row.score(x)) / before["alpha"]
                ratio = before["alpha"] * after["sigma"] / (after["alpha"] * before["sigma"])  # e^-h
                used = denoised
                if last is not None and after["sigma"] > 0:
                    earlier = math.log(nodes[k - 1]["sigma"] * before["alpha"] / (nodes[k - 1]["alpha"] * before["sigma"]))
                    used = denoised + (denoised - last) * (-math.log(ratio) / earlier) / 2
                x = after["sigma"] / before["sigma"] * x + after["alpha"] * (1 - ratio) * used
                x, last = known_at(settings, x, row.noise[0], after), denoised
            else:
                x = posterior_step(x, row.score(x), row.drawn(0), nodes[k], nodes[k + 1])
                x = known_at(settings, x, row.noise[1], nodes[k + 1])
            differences.close(row.state, x)


def gaussian_split(name, record, differences):
    """Ddim in the eigenbasis, each direction with sigma^2 + alpha^2 c in the place of sigma^2."""
    eta, values, vectors = record["settings"]["eta"], *np.linalg.eigh(record["settings"]["covariance"])
    # a basis is known but for the order and the signs of its vectors, and noise is drawn along it: the first step shows which
    orders = [np.eye(2), np.eye(2)[::-1]]
    bases = [(o @ values, vectors @ o.T * np.array(signs)) for o in orders for signs in [(1, 1), (1, -1), (-1, 1), (-1, -1)]]
    if "diagonal" in name:
        bases = [(np.diag(record["settings"]["covariance"]), np.eye(2))]

    def step(basis, x, row, before, after):
        values, vectors = basis
        z = row.noise[0] if row.noise else np.zeros(2)
        turned, s = vectors.T @ x, vectors.T @ row.score(x)
        noisy, clean = (np.sqrt(at["sigma"] ** 2 + at["alpha"] ** 2 * values) for at in (before, after))
        q = before["alpha"] / after["alpha"]
        added = before["sigma"] ** 2 - (q * after["sigma"]) ** 2
        new = eta * clean * math.sqrt(added) / noisy
        denoised = (turned + noisy**2 * s) / before["alpha"]
        return vectors @ (after["alpha"] * denoised - np.sqrt(clean**2 - new**2) * noisy * s + new * z)

    for table, x, rows in steps(record):
        for row in rows:
            ends = table["nodes"][row.row["node"]], table["nodes"][row.row["node"] + 1]
            bases = sorted(bases, key=lambda basis: np.abs(step(basis, x, row, *ends) - row.state).max())[:1]
            x = step(bases[0], x, row, *ends)
            differences.close(row.state, x)


def mixed(name, record, differences):
    """A predictor with coefficients and a memory, Mala, and the final denoising."""
    for table in record["tables"]:
        x, memory = np.array(table["start"]), {}
        at_state = None
        for row in table["rows"]:
            at = table["nodes"][row["node"]]
            if row.get("recorded") is None:
                vectors = {"State": x}
                for word, known in [("Memory", memory.get(row["kind"], [])), ("Noise", row["noise"])]:
                    vectors |= {(word, i): np.array(vector) for i, vector in enumerate(known)}
                for i, evaluation in enumerate(row["evaluations"]):
                    vectors |= {("Point", i): np.array(evaluation["point"]), ("Score", i): np.array(evaluation["score"])}
                key = lambda term: term if isinstance(term, str) else next(iter(term.items()))
                add = lambda sum: np.sum([c * vectors[key(term)] for term, c in sum["terms"]], axis=0)
                for kept, ours in zip(row["keep"], row["memory"]):
                    differences.close(ours, add(kept))
                x, memory[row["kind"]], at_state = add(row["next"]), row["memory"], None
            else:
                row, h = Row(row), 2 * (record["settings"]["ratio"] * at["sigma"]) ** 2
                s_x, log_x = at_state or (row.score(x), row.density(x))
                y = x + h * s_x + math.sqrt(2 * h) * row.noise[0]
                s_y, log_y = row.score(y), row.density(y)
                ratio = log_y - log_x + log_of_proposals(x, y, s_x, s_y, h, math.sqrt(2 * h))
                at_state = (s_x, log_x)
                if decide(row, ratio, differences):
                    x, at_state = y, (s_y, log_y)
                row = row.row
            differences.close(row["state"], x)


def scaled(error, y, z, settings):
    return error / (settings["absolute"] + settings["relative"] * np.maximum(np.abs(y), np.abs(z)))


def rms(v):
    return math.sqrt(np.mean(np.square(v)))


# Dormand and Prince: the rows of the stages, the last of which is the result; and its difference to that of order 4
NODES = [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1]
STAGES = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
]
ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]


class Flow:
    """dy/dq = -sigma s, y = x/alpha, q = sigma/alpha, by the table's scores in their order."""

    def __init__(self, row, differences):
        self.evaluations, self.differences = iter(row.evaluations), differences

    def slope(self, q, y):
        one = next(self.evaluations)
        at = one["at"]
        self.differences.close([at["sigma"] / at["alpha"], *one["point"]], [q, *(at["alpha"] * y)])
        return -at["sigma"] * np.array(one["score"])


def adaptive_flow(name, record, differences):
    settings = record["settings"]
    integral, proportional, derivative = settings["control"]
    for table, x, rows in steps(record):
        for row in rows:
            before, after = (table["nodes"][row.row["node"] + i] for i in (0, 1))
            q, end = (at["sigma"] / at["alpha"] for at in (before, after))
            y, length, flow = x / before["alpha"], abs(q - end), Flow(row, differences)
            slope = flow.slope(q, y)
            # Hairer's first step, downwards
            sizes = rms(scaled(y, y, 0 * y, settings)), rms(scaled(slope, y, 0 * y, settings))
            trial = min(1e-6 * length if min(sizes) < 1e-5 else 0.01 * sizes[0] / sizes[1], length)
            bend = rms(scaled(flow.slope(q - trial, y - trial * slope) - slope, y, 0 * y, settings)) / trial
            h = -min((0.01 / max(sizes[1], bend)) ** 0.2, 100 * trial, length)
            errors, shrunk = [1.0, 1.0], False
            for ours in row.accepted:
                last = abs(h) * 1.01 >= abs(end - q)
                h = end - q if last else h
                slopes = [slope]
                for node, weights in zip(NODES, STAGES):
                    point = y + h * sum(w * k for w, k in zip(weights, slopes))
                    slopes.append(flow.slope(q + node * h, point))
                error = rms(scaled(h * sum(w * k for w, k in zip(ERROR, slopes)), y, point, settings))
                differences.same(error <= 1, ours)
                logs = [math.log(max(e, 1e-10)) for e in [error, *errors]]
                exponent = -(integral + proportional + derivative) * logs[0]
                exponent += (proportional + 2 * derivative) * logs[1] - derivative * logs[2]
                factor = min(max(0.9 * math.exp(exponent / 5), 0.2), 10)
                if error <= 1:
                    y, slope, q, errors = point, slopes[-1], end if last else q + h, [error, errors[0]]
                    factor = min(factor, 1.0) if shrunk else factor
                else:
                    factor = min(factor, 0.9)
                shrunk, h = error > 1, h * factor
            differences.same(next(flow.evaluations, None), None)
            x = after["alpha"] * y
            differences.close(row.state, x)


def adaptive_sde(name, record, differences):
    settings = record["settings"]
    coarsest, deepest = settings["levels"]
    for table, x, rows in steps(record):
        for row in rows:
            before, after = (table["nodes"][row.row["node"] + i] for i in (0, 1))
            noisy, clean = ((at["sigma"] / at["alpha"]) ** 2 for at in (before, after))
            offset = clean or 1.0
            logs, evaluations = (math.log(noisy + offset), math.log(clean + offset)), iter(row.evaluations)

            def place(level, index):
                way = index / 2**level
                inside = math.exp(logs[0] * (1 - way) + logs[1] * way) - offset
                return {0.0: noisy, 1.0: clean}.get(way, inside)

            def path(level, index):
                """The noise at a place: Levy's construction, from the numbers of the nodes."""
                if index == 0:
                    return np.zeros(2)
                if index == 2**level:
                    return math.sqrt(noisy - clean) * row.noise[0]
                if index % 2 == 0:
                    return path(level - 1, index // 2)
                level, index = level - 1, index // 2
                a, m, b = place(level, index), place(level + 1, 2 * index + 1), place(level, index + 1)
                share, left, right = (a - m) / (a - b), path(level, index), path(level, index + 1)
                return left + share * (right - left) + math.sqrt(share * (m - b)) * row.noise[2**level + index]

            def force(r, y):
                one = next(evaluations)
                at = one["at"]
                differences.close([(at["sigma"] / at["alpha"]) ** 2, *one["point"]], [r, *(at["alpha"] * y)])
                return at["alpha"] * np.array(one["score"])

            y, level, index, left = x / before["alpha"], coarsest, 0, None
            for ours in row.accepted:
                r, end = place(level, index), place(level, index + 1)
                left = force(r, y) if left is None else left
                change = path(level, index + 1) - path(level, index)
                right = force(end, y + (r - end) * left + change)
                trial = y + (r - end) / 2 * (left + right) + change
                error = rms(scaled((r - end) / 2 * (right - left), y, trial, settings))
                differences.same(error <= 1, ours)
                if error > 1 and level < deepest:
                    halvings = 1
                    while error > 2.8:
                        error, halvings = error / 2.8, halvings + 1
                    halvings = min(halvings, deepest - level)
                    level, index = level + halvings, index * 2**halvings
                    continue
                y, left, index = trial, None, index + 1
                wanted = level - int(error * 2.8 < 0.6 and level > coarsest)
                while index % 2 == 0 and index > 0 and level > wanted:
                    level, index = level - 1, index // 2
            differences.same((index, next(evaluations, None)), (2**level, None))
            x = after["alpha"] * y
            differences.close(row.state, x)


def laws(name, record, differences):
    """Scores and log-densities are those of the law; log-densities up to a constant."""
    for table in record["tables"]:
        offsets = []
        for row in table["rows"]:
            for one in row["evaluations"]:
                differences.close(one["score"], law(one["at"], np.array(one["point"]))[1])
            if "known_part" not in name:
                for one in (row.get("recorded") or {}).get("log_densities", []):
                    offsets.append(one["log_density"] - law(one["at"], np.array(one["point"]))[0])
        differences.close(offsets[:1] * len(offsets), offsets)


def with_blackjax(name, record, differences):
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from blackjax.mcmc import diffusions, hmc, integrators, mala, metrics, proposal

    def log_density(at):
        variances = jnp.array(at["alpha"] ** 2 * VARIANCES + at["sigma"] ** 2)
        centres = jnp.array(at["alpha"] * MEANS)

        def ln(x):
            squares = jnp.sum((x - centres) ** 2, axis=1)
            return jax.scipy.special.logsumexp(jnp.log(WEIGHTS) - 0.5 * squares / variances - jnp.log(2 * math.pi * variances))

        return ln

    h = record["settings"]["step_size"]
    before = proposal.static_binomial_sampling, diffusions.generate_gaussian_noise
    try:
        for table, x, rows in steps(record):
            ln = log_density(table["nodes"][0])
            for row in rows:
                decided = []

                def sample(key, log_ratio, here, there):
                    accepted = bool(log_ratio >= 0 or math.log(row.uniforms[0]) < log_ratio)
                    decided.append(accepted)
                    return there if accepted else here, (accepted, jnp.exp(jnp.minimum(log_ratio, 0)), None)

                key = jax.random.PRNGKey(0)
                if name == "mala":
                    proposal.static_binomial_sampling = sample
                    diffusions.generate_gaussian_noise = lambda *_, **__: jnp.array(row.noise[0])
                    end = mala.build_kernel()(key, mala.init(jnp.array(x), ln), ln, h)[0].position
                else:
                    metric = metrics.default_metric(jnp.ones(2))
                    verlet = integrators.velocity_verlet(ln, metric.kinetic_energy)
                    e, leapfrogs = math.sqrt(2 * h), record["settings"]["leapfrogs"]
                    move = hmc.hmc_proposal(verlet, metric.kinetic_energy, e, leapfrogs, sample_proposal=sample)
                    at_x = jax.value_and_grad(ln)(jnp.array(x))
                    start = integrators.IntegratorState(jnp.array(x), jnp.array(row.noise[0]), *at_x)
                    end = move(key, start)[0].position
                differences.same(decided, row.accepted)
                differences.close(row.state, end)
                x = row.state
    finally:
        proposal.static_binomial_sampling, diffusions.generate_gaussian_noise = before


def with_scipy(name, record, differences):
    from scipy.integrate import RK45

    # row k of A is what is added up for stage k; the last stage is the result, and the error has the other sign
    for k, weights in enumerate(STAGES[:5]):
        differences.close(RK45.A[k + 1, : k + 1], weights)
    differences.close(RK45.B, STAGES[5])
    differences.close(np.abs(RK45.E), np.abs(ERROR))
    differences.close(RK45.C[1:], NODES[:5])
    settings = record["settings"]
    for table, x, rows in steps(record):
        if settings["control"] != [1.0, 0.0, 0.0]:
            continue
        (row,), (before, after) = rows, table["nodes"]
        calls = []

        def slope(q, y):
            # the Ornstein-Uhlenbeck process: alpha^2 (1 + q^2) = 1
            at = {"alpha": 1 / math.sqrt(1 + q * q), "sigma": q / math.sqrt(1 + q * q)}
            calls.append((q, at["alpha"] * y))
            return -at["sigma"] * law(at, at["alpha"] * y)[1]

        begin, end = (at["sigma"] / at["alpha"] for at in (before, after))
        solver = RK45(slope, begin, x / before["alpha"], end, rtol=settings["relative"], atol=settings["absolute"])
        while solver.status == "running":
            solver.step()
        differences.same(len(calls), len(row.evaluations))
        for (q, point), one in zip(calls, row.evaluations):
            differences.close([one["at"]["sigma"] / one["at"]["alpha"], *one["point"]], [q, *point])
        differences.close(row.state, after["alpha"] * solver.y)


def with_diffusers(name, record, differences):
    import torch

    import diffusers
    from diffusers.schedulers import scheduling_repaint, scheduling_sde_ve

    tensor = lambda vectors: torch.tensor(np.array(vectors), dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    modules = [scheduling_repaint, scheduling_sde_ve]
    before = [module.randn_tensor for module in modules]
    drawn = []
    for module in modules:
        module.randn_tensor = lambda *_, **__: drawn.pop(0)
    try:
        if name.startswith("snr_langevin"):
            scheduler = diffusers.ScoreSdeVeScheduler(snr=record["settings"]["ratio"])
            scheduler.set_timesteps(10)
            chains = [(np.array(table["start"]), rows) for table, _, rows in steps(record)]
            for k in range(len(chains[0][1])):
                rows = [rows[k] for _, rows in chains]
                starts = [rows[k - 1].state if k else start for start, rows in chains]
                for batch in [range(len(chains))] if "group" in name else [[j] for j in range(len(chains))]:
                    drawn.append(tensor([rows[j].noise[0] for j in batch]))
                    scores = tensor([rows[j].score(starts[j]) for j in batch])
                    moved = scheduler.step_correct(scores, tensor([starts[j] for j in batch])).prev_sample
                    differences.close([rows[j].state for j in batch], moved)
            return
        settings = record["settings"]
        for table, x, rows in steps(record):
            nodes = table["nodes"]
            n = len(nodes) - 1
            scheduler = diffusers.RePaintScheduler(num_train_timesteps=n, eta=1.0, clip_sample=False)
            scheduler.set_timesteps(n, 1, 1)
            # timestep k is node N - 1 - k
            powers = torch.tensor([node["alpha"] ** 2 for node in nodes])
            scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = powers.flip(0)[1:], powers[-1]
            scheduler.betas = (1 - powers[:-1] / powers[1:]).flip(0)
            mask = torch.zeros(2)
            mask[settings["known"]] = 1.0
            original = torch.full((2,), settings["value"])

            def forth(x, row, node, of_step):
                # one noise vector for both: the coordinates of one, and of the other
                drawn.append(tensor((1 - mask.numpy()) * row.drawn(of_step) + mask.numpy() * row.noise[of_step + 1]))
                noise_prediction = -nodes[node]["sigma"] * row.score(x)
                return scheduler.step(tensor(noise_prediction), n - 1 - node, tensor(x), original, mask).prev_sample.numpy()

            for row in rows:
                node = row.row["node"]
                if row.row["kind"] == "Corrector":
                    drawn.append(tensor(row.noise[0]))
                    x = scheduler.undo_step(tensor(x), n - node).numpy()
                    x = forth(x, row, node - 1, 1)
                else:
                    x = forth(x, row, node, 0)
                differences.close(row.state, x)
    finally:
        torch.set_default_dtype(torch.float32)
        for module, function in zip(modules, before):
            module.randn_tensor = function


READERS = [
    ("mala", metropolis),
    ("pcn_langevin", metropolis),
    ("score_metropolis", metropolis),
    ("score_barker", barker),
    ("hmc", hamiltonian),
    ("score_hmc", hamiltonian),
    ("snr_langevin", snr_langevin),
    ("adaptive_flow", adaptive_flow),
    ("adaptive_sde", adaptive_sde),
    ("inpainted", inpainted),
    ("repaint", inpainted),
    ("gaussian_split", gaussian_split),
    ("dpm_solver_sde_with_mala", mixed),
]

LIBRARIES = [
    ("blackjax", with_blackjax, ["mala", "hmc_1", "hmc_3"]),
    ("scipy", with_scipy, ["adaptive_flow", "adaptive_flow_integral"]),
    ("diffusers", with_diffusers, ["snr_langevin", "snr_langevin_group_2", "inpainted", "repaint_1"]),
]


def twins(record):
    """The record with one error: a noise vector, a state, or a decision."""
    wrong = copy.deepcopy(record)
    noisy = [row for row in wrong["tables"][-1]["rows"] if row["noise"]]
    if noisy:
        noisy[0]["noise"][0] = [z + 1e-6 for z in noisy[0]["noise"][0]]
        yield wrong
    wrong = copy.deepcopy(record)
    row = wrong["tables"][0]["rows"][-1]
    row["state"] = [v + 1e-9 for v in row["state"]]
    yield wrong
    wrong = copy.deepcopy(record)
    rows = [row for row in wrong["tables"][0]["rows"] if (row.get("recorded") or {}).get("accepted")]
    if rows:
        accepted = rows[0]["recorded"]["accepted"]
        accepted[0] = not accepted[0]
        yield wrong


def main():
    worst, lines, blind = 0.0, [], []

    def read(name, other, reader, record):
        nonlocal worst
        differences = Differences()
        reader(name, record, differences)
        worst = max(worst, differences.largest)
        lines.append(f"{name:31} {other:22} {differences.largest:9.1e} {differences.checks:7}")

    for name, record in RECORDS.items():
        reader = next(reader for begin, reader in READERS if name.startswith(begin))
        read(name, "the law", laws, record)
        read(name, "its formula", reader, record)
        if "--twins" in sys.argv:
            for number, wrong in enumerate(twins(record)):
                differences = Differences()
                try:
                    reader(name, wrong, differences)
                except (KeyError, TypeError, StopIteration, ValueError):
                    continue
                if differences.largest <= TOLERANCE:
                    blind.append((name, number))
    for library, reader, names in LIBRARIES:
        try:
            for name in names:
                read(name, library, reader, RECORDS[name])
        except ImportError as error:
            print(library, "is not compared:", error)
    print(f"{'record':31} {'computed by':22} {'largest':>9} {'checks':>7}")
    print("\n".join(lines))
    decisions = [a for r in RECORDS.values() for t in r["tables"] for row in t["rows"] for a in (row.get("recorded") or {"accepted": []})["accepted"]]
    print(f"{len(decisions)} decisions, {sum(decisions)} of them to accept")
    if blind:
        print("these see no error:", blind)
    print(f"largest difference: {worst:.1e}; taken for rounding up to {TOLERANCE:.0e}")
    return int(worst > TOLERANCE or bool(blind))


if __name__ == "__main__":
    sys.exit(main())

"""Values of distances by independent implementations, for tests/suite/metrics.rs.

    pip install numpy scipy pot
    python tests/reference/metrics.py > tests/reference/metrics.json

The file in the repository was made with the versions that it names. Inputs are by formula, so that both sides have the same
bits: coordinate i of chain j is frac((j + 1) sqrt(prime_k)), primes in order, those of the second sample after those of
the first; the second sample is 1.5 of it plus 0.3. Multiplication, square root and floor are exact by IEEE 754.
"""

import json
import platform
import sys

import numpy as np
import ot
import scipy
from scipy import integrate, optimize, spatial, special, stats

PRIMES = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0]


def weyl(n, d, first):
    j = np.arange(1, n + 1, dtype=float)[:, None]
    x = j * np.sqrt(np.array(PRIMES[first : first + d]))[None, :]
    return x - np.floor(x)


def pair(n, m, d):
    return weyl(n, d, 0), 1.5 * weyl(m, d, d) + 0.3


def squared(a, b):
    return spatial.distance.cdist(a, b, "sqeuclidean")


def entropic(a, b, epsilon):
    """min <P, C> + epsilon KL(P | a x b), by a plan and the primal formula. POT's plan between two samples; between a sample
    and itself, where alternating steps are slow, that of 2000 averaged steps."""
    n, m = len(a), len(b)
    u, v, c = np.full(n, 1 / n), np.full(m, 1 / m), squared(a, b)
    if a is b:
        f = np.zeros(n)
        for _ in range(2000):
            f = 0.5 * (f - epsilon * (special.logsumexp((f[None, :] - c) / epsilon, axis=1) - np.log(n)))
        p = np.exp((f[:, None] + f[None, :] - c) / epsilon) / n**2
    else:
        p = ot.bregman.sinkhorn_log(u, v, c, epsilon, numItermax=30_000, stopThr=1e-10)
    assert abs(p.sum(0) - v).sum() < 1e-7 and abs(p.sum(1) - u).sum() < 1e-7
    return float((p * c).sum() + epsilon * special.rel_entr(p, np.outer(u, v)).sum())


def kernel_distances(k, a, b):
    n, m = len(a), len(b)
    aa, bb, ab = k(a, a), k(b, b), k(a, b)
    unbiased = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1)) - 2 * ab.mean()
    return float(unbiased), float(aa.mean() + bb.mean() - 2 * ab.mean())


def jackknife(statistic, a, b):
    """The standard error of a statistic of two samples."""
    total = 0.0
    for of in (0, 1):
        n = (a, b)[of].shape[0]
        left = [statistic(*[np.delete(x, j, 0) if i == of else x for i, x in enumerate((a, b))]) for j in range(n)]
        total += (n - 1) / n * np.sum((left - np.mean(left)) ** 2)
    return float(np.sqrt(total))


def case(n, m, d):
    a, b = pair(n, m, d)
    out = {"n": n, "m": m, "d": d}
    out["w2_per_coordinate"] = [float(np.sqrt(ot.emd2_1d(a[:, i], b[:, i], metric="sqeuclidean"))) for i in range(d)]
    out["w2_network_simplex"] = float(np.sqrt(ot.emd2([], [], squared(a, b), numItermax=10_000_000)))
    if n == m:
        rows, columns = optimize.linear_sum_assignment(squared(a, b))
        out["w2_assignment"] = float(np.sqrt(squared(a, b)[rows, columns].mean()))
    ca, cb = np.cov(a.T).reshape(d, d), np.cov(b.T).reshape(d, d)
    out["w2_gaussian"] = float(ot.gaussian.bures_wasserstein_distance(a.mean(0), b.mean(0), ca, cb))
    bures = lambda a, b: float(
        ot.gaussian.bures_wasserstein_distance(a.mean(0), b.mean(0), np.cov(a.T).reshape(d, d), np.cov(b.T).reshape(d, d))
    )
    out["w2_gaussian_jackknife"] = jackknife(bures, a, b)
    out["sinkhorn"] = {
        str(e): entropic(a, b, e) - 0.5 * entropic(a, a, e) - 0.5 * entropic(b, b, e) for e in (2.0, 0.5, 0.1)
    }
    bandwidth = float(np.median(spatial.distance.pdist(np.vstack([a, b]))))
    gauss = lambda h: lambda x, y: np.exp(-squared(x, y) / (2 * h * h))
    out["median_distance"] = bandwidth
    out["mmd_median"] = kernel_distances(gauss(bandwidth), a, b)
    out["mmd_given"] = kernel_distances(gauss(0.3), a, b)
    out["mmd_given_jackknife"] = jackknife(lambda a, b: kernel_distances(gauss(0.3), a, b)[0], a, b)
    minus = lambda x, y: -spatial.distance.cdist(x, y)
    out["energy"] = kernel_distances(minus, a, b)
    out["energy_jackknife"] = jackknife(lambda a, b: kernel_distances(minus, a, b)[0], a, b)
    if d == 1:
        assert abs(stats.energy_distance(a[:, 0], b[:, 0]) ** 2 - out["energy"][1]) < 1e-12
    en = n * m / (n + m)
    ks = [float(np.sqrt(en) * stats.ks_2samp(a[:, i], b[:, i]).statistic) for i in range(d)]
    out["kolmogorov"] = ks
    out["kolmogorov_p"] = [float(special.kolmogorov(s)) for s in ks]
    if d <= 2:
        both = np.vstack([a, b])
        box = [(both[:, i].min(), both[:, i].max()) for i in range(d)]
        p, q = (np.histogramdd(x, bins=[7] * d, range=box)[0] / len(x) for x in (a, b))
        out["total_variation"] = float(0.5 * np.abs(p - q).sum())
        # against N(1/2, 1/4) in each coordinate, by error functions
        box = [(a[:, i].min(), a[:, i].max()) for i in range(d)]
        p, edges = np.histogramdd(a, bins=[7] * d, range=box)
        masses = [np.diff(stats.norm(0.5, 0.5).cdf(e)) for e in edges]
        q = masses[0] if d == 1 else np.outer(*masses)
        out["total_variation_to_normal"] = float(0.5 * (np.abs(p / n - q).sum() + 1 - q.sum()))
    if d == 2:
        # the mean over directions by a fine quadrature
        angles = (np.arange(4000) + 0.5) / 4000 * np.pi
        w = [ot.emd2_1d(a @ t, b @ t, metric="sqeuclidean") for t in np.stack([np.cos(angles), np.sin(angles)], 1)]
        out["w2_sliced"] = float(np.sqrt(np.mean(w)))
    log_p = stats.norm(0.5, 0.5).logpdf
    for k in (1, 4):
        r = spatial.cKDTree(a).query(a, k + 1)[0][:, k]
        ball = 0.5 * d * np.log(np.pi) - special.gammaln(0.5 * d + 1)
        entropy = special.digamma(n) - special.digamma(k) + ball + d * np.log(r).mean()
        out[f"kl_neighbours_{k}"] = float(-entropy - log_p(a).sum(1).mean())
    # the first coordinate against N(1/2, 1/4), step by step of the quantile function
    x, normal = np.sort(a[:, 0]), stats.norm(0.5, 0.5)
    w2 = 0.0
    for j in range(n):
        # in z = (q - 1/2)/(1/2) the integrand is smooth and has Gaussian tails
        lo, hi = special.ndtri(j / n), special.ndtri((j + 1) / n)
        f = lambda z: (x[j] - 0.5 - 0.5 * z) ** 2 * stats.norm.pdf(z)
        w2 += integrate.quad(f, max(lo, -40), min(hi, 40), epsabs=1e-14, epsrel=1e-13)[0]
    out["w2_to_normal"] = float(np.sqrt(w2))
    return out


def gaussians():
    """Pairs of covariances: random, nearly equal, singular, badly conditioned."""
    rng = np.random.default_rng(1)
    out = []
    for d, kind in [(2, "random"), (3, "random"), (6, "random"), (12, "random"), (4, "near"), (5, "scaled")]:
        q = rng.standard_normal((d, d))
        r = rng.standard_normal((d, d))
        a, b = q @ q.T, r @ r.T
        if kind == "near":
            b = a + 1e-3 * b
        if kind == "scaled":
            s = np.diag(10.0 ** -np.arange(d))
            a, b = s @ a @ s, s @ b @ s
        a, b = (a + a.T) / 2, (b + b.T) / 2
        m = rng.standard_normal((2, d))
        w2 = ot.gaussian.bures_wasserstein_distance(m[0], m[1], a, b)
        row = {"kind": kind, "d": d, "mean_a": m[0], "mean_b": m[1], "a": a.ravel(), "b": b.ravel(), "w2": w2}
        out.append({k: v.tolist() if isinstance(v, np.ndarray) else float(v) if k == "w2" else v for k, v in row.items()})
    return out


json.dump(
    {
        "made_with": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "POT": ot.__version__,
        },
        "cases": [case(40, 40, 1), case(30, 45, 1), case(50, 50, 2), case(24, 60, 2), case(64, 64, 3), case(40, 56, 5)],
        "gaussians": gaussians(),
    },
    sys.stdout,
    indent=1,
)
print()

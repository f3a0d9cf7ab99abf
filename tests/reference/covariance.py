"""Shrunk covariances by an independent implementation, for tests/learning/fits.rs.

    pip install numpy scikit-learn
    python tests/reference/covariance.py > tests/reference/covariance.json

The file in the repository was made with the versions that it names. Inputs are by formula, so that both sides have the same
bits: coordinate i of point j is (i + 1) frac((j + 1) sqrt(prime_i)) + 0.3 times coordinate i - 1.

scikit-learn's oracle-approximating formula leaves out the terms 2/d of the paper; the paper's is written out here.
"""

import json
import platform

import numpy as np
import sklearn
from sklearn.covariance import ledoit_wolf

PRIMES = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0]


def points(n, d):
    j = np.arange(1, n + 1, dtype=float)
    columns = []
    for i in range(d):
        u = j * np.sqrt(PRIMES[i])
        x = (i + 1) * (u - np.floor(u))
        columns.append(x + 0.3 * columns[-1] if columns else x)
    return np.stack(columns, axis=1)


def oracle_approximating(x):
    n, d = x.shape
    s = np.cov(x.T, bias=True)
    square, trace = np.trace(s @ s), np.trace(s)
    rho = min(1.0, ((1 - 2 / d) * square + trace**2) / ((n + 1 - 2 / d) * (square - trace**2 / d)))
    return rho, (1 - rho) * s + rho * trace / d * np.eye(d)


cases = []
for n, d in [(3, 2), (4, 6), (10, 5), (50, 3), (200, 6)]:
    x = points(n, d)
    wolf, rho = ledoit_wolf(x)
    oracle_rho, oracle = oracle_approximating(x)
    cases.append(
        {
            "n": n,
            "d": d,
            "sample": np.cov(x.T, bias=True).ravel().tolist(),
            "ledoit_wolf": {"shrinkage": float(rho), "covariance": wolf.ravel().tolist()},
            "oracle": {"shrinkage": float(oracle_rho), "covariance": oracle.ravel().tolist()},
        }
    )
versions = {"python": platform.python_version(), "numpy": np.__version__, "scikit-learn": sklearn.__version__}
print(json.dumps({"versions": versions, "cases": cases}, indent=1))

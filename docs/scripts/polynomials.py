"""The polynomials of src/math.rs: Chebyshev interpolants (within a few percent of minimax), made with
mpmath at 60 digits. Run: python3 docs/scripts/polynomials.py   (needs `pip install mpmath`)

Each line gives the coefficients, lowest degree first, and the largest error of the *function* that is
rebuilt from them in exact arithmetic, relative to its size (cos: absolute).
"""
from mpmath import mp, mpf, chebyfit, sin, cos, exp, log, sqrt, pi, linspace, atanh

mp.dps = 60
tiny = mpf(10) ** -12

# a series near 0 avoids the cancellation in the quotients
def safe(f, f0):
    return lambda z: f0 if abs(z) < mpf(10) ** -20 else f(z)

sin_tail = safe(lambda z: (sin(sqrt(z)) / sqrt(z) - 1) / z, -mpf(1) / 6)          # sin x = x + x^3 S(x^2)
cos_tail = safe(lambda z: (cos(sqrt(z)) - 1) / z, -mpf(1) / 2)                    # cos x = 1 + x^2 C(x^2)
exp_tail = safe(lambda r: (exp(r) - 1 - r) / r**2, mpf(1) / 2)                    # exp r = 1 + r + r^2 E(r)
power_tail = safe(lambda r: (mpf(2)**r - 1) / r, log(2))                          # 2^r = 1 + r C(r)
atanh_tail = safe(lambda z: -4 * atanh(sqrt(z)) / sqrt(z), -mpf(4))               # -2 ln m = s L(s^2), s = (m - 1)/(m + 1)

def horner(c, x):
    r = mpf(0)
    for a in reversed(c):
        r = r * x + a
    return r

def show(name, f, a, b, n, rebuild, truth, scale):
    c = list(reversed(chebyfit(f, [a, b], n)))
    xs = linspace(a + tiny, b, 4001)
    err = max(abs((rebuild(c, x) - truth(x)) / scale(x)) for x in xs)
    print(f"{name:12s} n={n:2d} error {mp.nstr(err, 3)}")
    print("    [" + ", ".join(mp.nstr(k, 19) for k in c) + "]")

q = (pi / 4) ** 2 * (1 + mpf(10) ** -6)
l = log(2) / 2 * (1 + mpf(10) ** -3)
s2 = ((sqrt(mpf(2)) - 1) / (sqrt(mpf(2)) + 1)) ** 2 * (1 + mpf(10) ** -6)
for tag, ns, nc, ne, np, nl in (("f32", 3, 4, 5, 6, 4), ("f64", 6, 7, 11, 11, 8)):
    show(f"sin {tag}", sin_tail, mpf(0), q, ns, lambda c, z: 1 + z * horner(c, z), lambda z: sin(sqrt(z)) / sqrt(z), lambda z: sin(sqrt(z)) / sqrt(z))
    show(f"cos {tag}", cos_tail, mpf(0), q, nc, lambda c, z: 1 + z * horner(c, z), lambda z: cos(sqrt(z)), lambda z: 1)
    show(f"exp {tag}", exp_tail, -l, l, ne, lambda c, r: 1 + r + r * r * horner(c, r), exp, exp)
    show(f"2^r {tag}", power_tail, -mpf(1) / 2, mpf(1) / 2, np, lambda c, r: 1 + r * horner(c, r), lambda r: mpf(2)**r, lambda r: mpf(2)**r)
    # the first coefficient is taken as -4
    show(f"ln {tag}", atanh_tail, mpf(0), s2, nl, lambda c, z: horner(c, z), atanh_tail, atanh_tail)

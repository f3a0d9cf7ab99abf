"""The polynomials of src/math.rs: Chebyshev interpolants (within a few percent of minimax), made with
mpmath at 60 digits. Run: python3 docs/scripts/polynomials.py   (needs `pip install mpmath`)

Each line gives the coefficients, lowest degree first, and the largest error of the *function* that is
rebuilt from them in exact arithmetic (relative for exp and sin, relative to the argument f for ln).
"""
from mpmath import mp, mpf, chebyfit, sin, cos, exp, log, sqrt, pi, linspace, atanh

mp.dps = 60
tiny = mpf(10) ** -12

# a series near 0 avoids the cancellation in the quotients
def safe(f, f0):
    return lambda z: f0 if abs(z) < mpf(10) ** -20 else f(z)

sin_tail = safe(lambda z: (sin(sqrt(z)) / sqrt(z) - 1) / z, -mpf(1) / 6)          # sin x = x + x^3 S(x^2)
cos_tail = safe(lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2, mpf(1) / 24)         # cos x = 1 - x^2/2 + x^4 C(x^2)
exp_tail = safe(lambda r: (exp(r) - 1 - r) / r**2, mpf(1) / 2)                    # exp r = 1 + r + r^2 E(r)
ln_tail = safe(lambda f: (log(1 + f) - f + f**2 / 2) / f**3, mpf(1) / 3)          # ln(1+f) = f - f^2/2 + f^3 P(f)
atanh_tail = safe(lambda z: (2 * atanh(sqrt(z)) / sqrt(z) - 2) / z, mpf(2) / 3)   # 2 atanh s = 2 s + s^3 Q(s^2)

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
lo, hi = sqrt(mpf(1) / 2) - 1, sqrt(mpf(2)) - 1
s2 = ((sqrt(mpf(2)) - 1) / (sqrt(mpf(2)) + 1)) ** 2
import sys
for tag, ns, nc, ne in (("f32", 3, 3, 5), ("f64", 6, 6, 11)):
    show(f"sin {tag}", sin_tail, mpf(0), q, ns, lambda c, z: 1 + z * horner(c, z), lambda z: sin(sqrt(z)) / sqrt(z), lambda z: sin(sqrt(z)) / sqrt(z))
    show(f"cos {tag}", cos_tail, mpf(0), q, nc, lambda c, z: 1 - z / 2 + z * z * horner(c, z), lambda z: cos(sqrt(z)), lambda z: cos(sqrt(z)))
    show(f"exp {tag}", exp_tail, -l, l, ne, lambda c, r: 1 + r + r * r * horner(c, r), exp, exp)
show("ln f32", ln_tail, lo, hi, 8, lambda c, f: f - f * f / 2 + f**3 * horner(c, f), lambda f: log(1 + f), lambda f: f)
show("atanh f64", atanh_tail, mpf(0), s2, 8, lambda c, z: 2 + z * horner(c, z), lambda z: 2 * atanh(sqrt(z)) / sqrt(z), lambda z: 2)

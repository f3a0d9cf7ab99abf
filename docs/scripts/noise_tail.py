"""The numbers of docs/noise.md that follow from the grid of the radius alone: the largest values, their spacing, and the
tail that f32 and f64 cannot reach. Run: python3 docs/scripts/noise_tail.py   (needs `pip install mpmath`)
"""
from mpmath import mp, mpf, sqrt, log, erfc, exp, acos, pi, floor, gammainc

mp.dps = 40

def radius(k, bits):
    return sqrt(-2 * log((k + mpf(1) / 2) / mpf(2) ** bits))

def beyond(x):
    return erfc(x / sqrt(2))

for name, bits in (("f32", 31), ("f64", 52)):
    radii = [radius(k, bits) for k in range(6)]
    print(name, "radii", [mp.nstr(r, 10) for r in radii])
    print(name, "spacing", [mp.nstr(a - b, 4) for a, b in zip(radii, radii[1:])])
    top = radii[0]
    print(name, "P(|z| > largest) =", mp.nstr(beyond(top), 4), "P(radius > largest) =", mp.nstr(exp(-top**2 / 2), 4))
    for r in (3, 4, 5, 6):
        print(name, "spacing of radii near", r, mp.nstr(mpf(2) ** -bits / (r * exp(-mpf(r) ** 2 / 2)), 3))

print("f32: P(|z| > x) on the grid, normal law, relative difference")
for x in (4, 4.5, 5, 5.5, 6, 6.25, 6.5):
    x = mpf(x)
    levels = int(floor(mpf(2) ** 31 * exp(-x * x / 2) + mpf(1) / 2))
    if levels > 20000:
        mp.dps = 20
    grid = sum(acos(x / radius(k, 31)) for k in range(levels)) * 2 / pi / mpf(2) ** 31
    mp.dps = 40
    print(mp.nstr(x, 4), levels, mp.nstr(grid, 8), mp.nstr(beyond(x), 8), mp.nstr(grid / beyond(x) - 1, 3))
# moments: r^2/2 is exponential, so its power m has mean m!. On the grid the mean is a midpoint rule for (-ln u)^m, which
# errs where that is steep: nearly all in the first cells
for m in (1, 2, 3, 4):
    cells, h = 5000, mpf(2) ** -31
    exact = gammainc(m + 1, -log(cells * h))
    grid = sum((-log((k + mpf(1) / 2) * h)) ** m for k in range(cells)) * h
    print("E (r^2/2)^", m, "relative error on the grid:", mp.nstr((grid - exact) / mp.factorial(m), 3))

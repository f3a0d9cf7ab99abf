"""The table of docs/theory.md, "The corrector": total variation between p_T1 and the stationary laws of ULA and OU-split
with the exact score, for two modes +-2 of variance 0.1 (R = 2). Run: python3 docs/scripts/corrector_bias.py   (numpy)
"""
import numpy as np

MEANS, VARIANCE, R = np.array([-2.0, 2.0]), 0.1, 2.0
x = np.linspace(-7.0, 7.0, 1401)
dx = x[1] - x[0]

def law_and_score(t):
    alpha, v = np.exp(-t), np.exp(-2 * t) * VARIANCE - np.expm1(-2 * t)
    away = x[:, None] - alpha * MEANS
    weight = np.exp(-away**2 / (2 * v))
    return weight.mean(1) / np.sqrt(2 * np.pi * v), -(weight * away).sum(1) / weight.sum(1) / v

print("  c     T1     h      ULA        OU-split")
for c, h in ((2, 0.1), (10, 0.1), (100, 0.1), (100, 0.5)):
    t = 0.5 * np.log1p(c * R**2)
    p, s = law_and_score(t)
    row = []
    for b, g2 in ((h, 2 * h), (-np.expm1(-h), -np.expm1(-2 * h))):
        # column j: the density after one step from x[j]
        step = np.exp(-((x[:, None] - (x + b * s)[None, :]) ** 2) / (2 * g2)) * dx / np.sqrt(2 * np.pi * g2)
        q = p.copy()
        for _ in range(int(400 / h)):
            new = step @ q
            new /= new.sum() * dx
            change, q = np.abs(new - q).sum() * dx, new
            if change < 1e-12:
                break
        row.append(0.5 * np.abs(q - p).sum() * dx)
    print(f"{c:3d}    {t:.2f}   {h}   {row[0]:.1e}       {row[1]:.1e}")

"""Three optimizers made from your own rules: Lion, SGD with Nesterov momentum, and NAdam.
Each is two short functions. Run this file to compare them with Adam on a small problem.
"""

import numpy as np
from numpy import sign, sqrt

import fastadam
from fastadam import schedules


def lion(p, g, m, lr, beta1, one_minus_beta1, beta2, one_minus_beta2):
    """Lion (Chen et al., arXiv:2302.06675), with decoupled weight decay."""
    p = p - lr * sign(beta1 * m + one_minus_beta1 * g)
    return p, beta2 * m + one_minus_beta2 * g


def lion_scalars(t, lr, beta1, beta2):
    return lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2


Lion = fastadam.optimizer(
    lion, lion_scalars, ["m"], lr=1e-4, beta1=0.9, beta2=0.99, decoupled_weight_decay=True
)  # fmt: skip


def nesterov(p, g, b, lr, momentum):
    """SGD with Nesterov momentum, as in torch: b = μ b + g, step g + μ b."""
    b = momentum * b + g
    return p - lr * (g + momentum * b), b


Nesterov = fastadam.optimizer(nesterov, lambda t, lr, momentum: (lr, momentum), ["b"], lr=1e-2, momentum=0.9)


def nadam(p, g, m, v, rate_g, rate_m, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    """NAdam (Dozat, 2016), as in torch."""
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    return p - (rate_g * g + rate_m * m) / (sqrt(v) + eps), m, v


def nadam_scalars(t, lr, beta1, beta2, eps, momentum_decay):
    product, k = 1.0, 0.0  # the product of μ₁ … μ_t, where μ_k = β₁ (1 - 0.96^(k · momentum_decay) / 2)
    while k < t and product > 1e-20:  # below that, 1 - product is 1
        k = k + 1.0
        product = product * beta1 * (1.0 - 0.5 * 0.96 ** (k * momentum_decay))
    now = beta1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay))
    following = beta1 * (1.0 - 0.5 * 0.96 ** ((t + 1.0) * momentum_decay))
    root = sqrt(1.0 - beta2**t)
    rate_g = lr * root * (1.0 - now) / (1.0 - product)
    rate_m = lr * root * following / (1.0 - product * following)
    return rate_g, rate_m, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps * root


NAdam = fastadam.optimizer(
    nadam, nadam_scalars, ["m", "v"], lr=2e-3, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=4e-3
)


def main() -> None:
    """Minimize x₀² + 50 x₁² from (10, 10)."""
    scale, steps = np.array([2.0, 100.0]), 200
    # every element of Lion moves by lr at each step, so it arrives only if lr falls to 0
    falling = schedules.cosine(0.4, steps)
    for cls, lr in ((fastadam.Adam, 0.4), (Lion, falling), (Nesterov, 0.004), (NAdam, 0.4)):
        x = np.array([10.0, 10.0])
        optimizer = cls(x, lr=lr)
        for _ in range(steps):
            optimizer.step(scale * x)
        rate = "0.4 to 0" if lr is falling else lr
        print(f"{cls.__name__:<10} lr {rate:<10} f = {(scale / 2 * x * x).sum():.3g}")


if __name__ == "__main__":
    main()

"""The formula of every algorithm, written once, for one element.
Called with arrays, these functions run in NumPy. The build translates them to Cython, and Numba compiles them directly.

An *update* is one algorithm's step of one element, in the letters of the paper. It takes the parameter ``p``, the
gradient ``g``, the states, and the scalars of the step. It returns the new ``p`` and states. It has no loop, no dtype
and no literal (a literal would widen float32). A *scalars* function computes, in float64, what all elements of a step
share, from the step count ``t`` = 1.0, 2.0, … and the hyper-parameters. A `Rule` pairs the two.

States start at zero. If an update needs other start values, a scalar of the first step tells it to set them.

An argument of a scalars function that is a flag is annotated ``bool``. The options of the C interface start at zero. So
an argument whose neutral value is not zero has that value as its default here, and C does not have this argument.
"""

from math import log

from numpy import absolute, inf, maximum, minimum, sign, sqrt, where

from .rule import Rule, finish

# ---------------------------------------------------------------- SGD: plain, with momentum, with Nesterov's


def sgd(p, g, lr):
    p = p - lr * g
    return (p,)


def sgd_momentum(p, g, b, lr, momentum, one_minus_dampening):
    b = momentum * b + one_minus_dampening * g
    p = p - lr * b
    return p, b


def sgd_nesterov(p, g, b, lr, momentum, one_minus_dampening):
    b = momentum * b + one_minus_dampening * g
    p = p - lr * (g + momentum * b)
    return p, b


def sgd_scalars(t, lr):
    return (lr,)


def sgd_momentum_scalars(t, lr, momentum, dampening):
    """Dampening does not act on the first step."""
    one_minus_dampening = 1.0 if t == 1.0 else 1.0 - dampening
    return lr, momentum, one_minus_dampening


def sgd_momentum_fading(lr, next_lr, next_momentum):
    return absolute(next_lr / lr) * next_momentum


# ---------------------------------------------------------------- Adam, AdamW, AMSGrad


def adam(p, g, m, v, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    p = p - step_size * m / (sqrt(v) + eps)
    return p, m, v


def amsgrad(p, g, m, v, v_max, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    v_max = maximum(v_max, v)
    p = p - step_size * m / (sqrt(v_max) + eps)
    return p, m, v, v_max


def adam_scalars(t, lr, beta1, beta2, eps, beta_decay=1.0, eps_hat: bool = False):
    """lr m̂ / (√v̂ + eps), with both bias corrections moved into the scalars. eps_hat leaves eps uncorrected."""
    beta1 = beta1 * beta_decay**t
    beta2 = beta2 * beta_decay**t
    root = sqrt(1.0 - beta2**t)
    step_size = lr * root / (1.0 - beta1**t)
    eps = eps if eps_hat else eps * root
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps


def adam_fading(step_size, eps, next_step_size, next_beta1, next_beta2, next_eps):
    """m shrinks by beta1, the root of v by the root of beta2, and eps by its own ratio. The sum of the root and eps
    shrinks by no more than one of them does.

    If v becomes so small that it is rounded to zero, its root was negligible beside an eps above 1e-12.
    """
    shrinks = min(sqrt(next_beta2), next_eps / eps)
    return absolute(next_step_size / step_size) * next_beta1 / shrinks if min(eps, next_eps) > 1e-12 else inf


# ---------------------------------------------------------------- AdaMax


def adamax(p, g, m, u, step_size, beta1, one_minus_beta1, beta2, eps):
    m = beta1 * m + one_minus_beta1 * g
    u = maximum(beta2 * u, absolute(g) + eps)
    p = p - step_size * where(u, m / u, u)  # u is 0 only if every gradient was 0: p does not move
    return p, m, u


def adamax_scalars(t, lr, beta1, beta2, eps):
    return lr / (1.0 - beta1**t), beta1, 1.0 - beta1, beta2, eps


# ---------------------------------------------------------------- AdaGrad


def adagrad(p, g, v, step_size, eps):
    v = v + g * g
    p = p - step_size * g / (sqrt(v) + eps)
    return p, v


def adagrad_scalars(t, lr, lr_decay, eps):
    return lr / (1.0 + (t - 1.0) * lr_decay), eps


# ---------------------------------------------------------------- RMSprop: plain, with momentum, centered, both


def rmsprop(p, g, v, lr, alpha, one_minus_alpha, eps_in, eps_out):
    v = alpha * v + one_minus_alpha * g * g
    p = p - lr * g / (sqrt(v + eps_in) + eps_out)
    return p, v


def rmsprop_momentum(p, g, v, b, lr, alpha, one_minus_alpha, eps_in, eps_out, momentum):
    v = alpha * v + one_minus_alpha * g * g
    b = momentum * b + g / (sqrt(v + eps_in) + eps_out)
    p = p - lr * b
    return p, v, b


def rmsprop_centered(p, g, v, m, lr, alpha, one_minus_alpha, eps_in, eps_out):
    v = alpha * v + one_minus_alpha * g * g
    m = alpha * m + one_minus_alpha * g
    variance = absolute(v - m * m)  # rounding can make the difference negative
    p = p - lr * g / (sqrt(variance + eps_in) + eps_out)
    return p, v, m


def rmsprop_centered_momentum(p, g, v, m, b, lr, alpha, one_minus_alpha, eps_in, eps_out, momentum):
    v = alpha * v + one_minus_alpha * g * g
    m = alpha * m + one_minus_alpha * g
    variance = absolute(v - m * m)
    b = momentum * b + g / (sqrt(variance + eps_in) + eps_out)
    p = p - lr * b
    return p, v, m, b


def rmsprop_scalars(t, lr, alpha, eps, eps_in_sqrt: bool):
    eps_in = eps if eps_in_sqrt else 0.0
    return lr, alpha, 1.0 - alpha, eps_in, eps - eps_in


def rmsprop_momentum_scalars(t, lr, alpha, eps, eps_in_sqrt: bool, momentum):
    lr, alpha, one_minus_alpha, eps_in, eps_out = rmsprop_scalars(t, lr, alpha, eps, eps_in_sqrt)
    return lr, alpha, one_minus_alpha, eps_in, eps_out, momentum


# ---------------------------------------------------------------- AdaDelta


def adadelta(p, g, v, d, lr, accumulated, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    v = beta2 * v + one_minus_beta2 * g * g
    step = sqrt(d + eps) / sqrt(v + eps) * g
    p = p - lr * step
    step = accumulated * step
    d = beta1 * d + one_minus_beta1 * step * step
    return p, v, d


def adadelta_scalars(t, lr, beta1, beta2, eps, accumulate_lr: bool = False):
    """d accumulates the squared step without its rate (Zeiler, torch), or with it (accumulate_lr)."""
    accumulated = lr if accumulate_lr else 1.0
    return lr, accumulated, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps


# ---------------------------------------------------------------- NAdam, RAdam: other weights of Adam's moments


def nadam(p, g, m, v, g_step, m_step, beta1, one_minus_beta1, beta2, one_minus_beta2, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    p = p - (g_step * g + m_step * m) / (sqrt(v) + eps)
    return p, m, v


def nadam_scalars(t, lr, beta1, beta2, eps, momentum_decay, mu_product=1.0):
    """A caller that keeps the product of all μ, as torch does, passes it, with the μ of this step. Otherwise it is
    computed here. The loop is short: the product soon becomes negligible beside 1."""
    mu, mu_next = nadam_mu(t, beta1, momentum_decay), nadam_mu(t + 1.0, beta1, momentum_decay)
    power, product = 1.0, mu_product
    k = 0.0 if mu_product == 1.0 else t
    while k < t and product > 1e-17:
        k = k + 1.0
        power = power * 0.96**momentum_decay
        product = product * beta1 * (1.0 - 0.5 * power)
    root = sqrt(1.0 - beta2**t)
    g_step = lr * root * (1.0 - mu) / (1.0 - product)
    m_step = lr * root * mu_next / (1.0 - product * mu_next)
    return g_step, m_step, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps * root


def nadam_mu(t, beta1, momentum_decay):
    return beta1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay))


def radam(p, g, m, v, step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, is_adaptive, eps):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    p = p - step_size * m / (where(is_adaptive, sqrt(v), is_adaptive) + eps)
    return p, m, v


def radam_scalars(t, lr, beta1, beta2, eps):
    """While the variance of v is unknown, the denominator is 1."""
    decayed = beta2**t
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * t * decayed / (1.0 - decayed)
    is_adaptive = 1.0 if length > 5.0 else 0.0
    step_size = lr / (1.0 - beta1**t)
    if length > 5.0:
        variance = (longest - 4.0) * (longest - 2.0) * length / ((length - 4.0) * (length - 2.0) * longest)
        step_size = step_size * sqrt((1.0 - decayed) / variance)
    return step_size, beta1, 1.0 - beta1, beta2, 1.0 - beta2, is_adaptive, eps if length > 5.0 else 1.0


# ---------------------------------------------------------------- ASGD


def asgd(p, g, ax, step_size, decay, weight, low, high):
    p = finish(decay * p - step_size * g, low, high)  # the average takes the clipped value
    ax = where(weight, ax + weight * (p - ax), p)
    return p, ax


def asgd_scalars(t, lr, lambd, alpha, t0, low=-inf, high=inf):
    """The weight is 0 while the average is a copy of the parameter."""
    step_size = lr / (1.0 + lambd * lr * (t - 1.0)) ** alpha
    averaged = t - 1.0 - t0
    return step_size, 1.0 - lambd * step_size, 1.0 / averaged if averaged > 1.0 else 0.0, low, high


# ---------------------------------------------------------------- Rprop


def rprop(p, g, prev, step_size, first, eta_minus, eta_plus, shortest, longest, one):
    same = sign(g) * sign(prev)  # 1, 0, or -1 where the sign has changed: the element does not move there
    step_size = where(first, first, step_size)
    step_size = where(same, where(one + same, eta_plus, eta_minus), one) * step_size
    step_size = minimum(longest, step_size)
    step_size = -minimum(-shortest, -step_size)
    prev = where(one + same, g, one + same)
    p = p - step_size * sign(prev)
    return p, prev, step_size


def rprop_scalars(t, lr, eta_minus, eta_plus, shortest, longest):
    return lr if t == 1.0 else 0.0, eta_minus, eta_plus, shortest, longest, 1.0


# ---------------------------------------------------------------- Lion


def lion(p, g, m, lr, beta1, one_minus_beta1, beta2, one_minus_beta2):
    p = p - lr * sign(beta1 * m + one_minus_beta1 * g)
    m = beta2 * m + one_minus_beta2 * g
    return p, m


def lion_scalars(t, lr, beta1, beta2):
    return lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2


# ---------------------------------------------------------------- AdEMAMix


def ademamix(
    p, g, m, v, s, m_step, s_step, beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, one_minus_beta3, eps
):
    m = beta1 * m + one_minus_beta1 * g
    v = beta2 * v + one_minus_beta2 * g * g
    s = beta3 * s + one_minus_beta3 * g
    p = p - (m_step * m + s_step * s) / (sqrt(v) + eps)
    return p, m, v, s


def ademamix_scalars(t, lr, beta1, beta2, beta3, eps, alpha, alpha_warmup, beta3_warmup):
    """During its warm-up 1 / log β₃ is linear in t, and so is the time span that the slow mean covers."""
    root = sqrt(1.0 - beta2**t)
    if t < alpha_warmup:
        alpha = alpha * t / alpha_warmup
    if t < beta3_warmup:
        done = t / beta3_warmup
        ratio = log(max(beta3, 1e-300)) / log(max(beta1, 1e-300))
        beta3 = beta3 ** (1.0 / ((1.0 - done) * ratio + done))
    m_step = lr * root / (1.0 - beta1**t)
    return m_step, lr * root * alpha, beta1, 1.0 - beta1, beta2, 1.0 - beta2, beta3, 1.0 - beta3, eps * root


# ---------------------------------------------------------------- ADOPT


def adopt(p, g, m, v, lr, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, clip):
    u = minimum(clip, g / maximum(sqrt(v), eps))
    u = -minimum(clip, -u)
    m = beta1 * m + one_minus_beta1 * u
    p = p - lr * m
    v = beta2 * v + one_minus_beta2 * g * g
    return p, m, v


def adopt_scalars(t, lr, beta1, beta2, eps, use_clipping: bool):
    """The first step only sets v."""
    clip = (t - 1.0) ** 0.25 if use_clipping else inf
    if t == 1.0:
        lr, beta2, clip = 0.0, 0.0, 0.0
    return lr, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, clip


# ---------------------------------------------------------------- Schedule-Free AdamW


def schedule_free(p, g, v, z, x, first, c, z_step, part, root, beta2, one_minus_beta2, eps, decay, low, high):
    z = where(first, p, z)
    v = beta2 * v + one_minus_beta2 * g * g
    u = root * g / (sqrt(v) + eps)
    if decay:
        u = u + decay * p
    new = finish(z - z_step * u, low, high)  # with z within the bounds, the average is, too
    p = p + c * (z - p) - part * (z - new)
    x = where(first, new, x + c * (new - x))
    return p, v, new, x


def schedule_free_scalars(t, lr, beta1, beta2, eps, decay, warmup_steps, r, weight_lr_power, low=-inf, high=inf):
    """c is the weight of step t in the average, divided by the sum of all weights so far."""
    part = t / warmup_steps if t < warmup_steps else 1.0
    weight = t**r * part**weight_lr_power
    warm = min(t, warmup_steps)
    total = power_sum(t, r) - power_sum(warm, r)
    if warm > 0.0:
        total = total + power_sum(warm, r + weight_lr_power) / warmup_steps**weight_lr_power
    c = weight / total
    root = sqrt(1.0 - beta2**t)
    first = 1.0 if t == 1.0 else 0.0
    return first, c, lr * part, 1.0 - beta1 * (1.0 - c), root, beta2, 1.0 - beta2, eps * root, decay, low, high


def power_sum(n, power):
    """1 + 2**power + … + n**power: term by term up to 16, then by the formula of Euler and Maclaurin."""
    if power == 0.0:
        return n
    k, total, end = 1.0, 0.0, min(n, 16.0)
    while k <= end:
        total = total + k**power
        k = k + 1.0
    if n > end:
        total = total + (n ** (power + 1.0) - end ** (power + 1.0)) / (power + 1.0)
        total = total + (n**power - end**power) / 2.0
        total = total + power * (n ** (power - 1.0) - end ** (power - 1.0)) / 12.0
        third = power * (power - 1.0) * (power - 2.0)
        total = total - third * (n ** (power - 3.0) - end ** (power - 3.0)) / 720.0
        fifth = third * (power - 3.0) * (power - 4.0)
        total = total + fifth * (n ** (power - 5.0) - end ** (power - 5.0)) / 30240.0
    return total


# ---------------------------------------------------------------- averages of weights


def average(p, g, weight, rest):
    p = where(rest, p + weight * (g - p), g)  # p is the average of g; rest = 1 - weight, and if it is 0, p = g exactly
    return (p,)


def average_scalars(t, decay, equal: bool, first=1.0):
    """Until update `first` the average is a copy. Then the weight is 1 - decay, or the same for all updates since."""
    since = max(t - first, 0.0)
    weight = 1.0 / (since + 1.0) if equal or since == 0.0 else 1.0 - decay
    return weight, 1.0 - weight


# ---------------------------------------------------------------- the machine's memory bandwidth, for benchmarks


def stream_0(p, g, scale):
    return (p + scale * g,)


def stream_1(p, g, a, scale):
    return p + scale * g, a + g


def stream_2(p, g, a, b, scale):
    return p + scale * g, a + g, b + g


def stream_3(p, g, a, b, c, scale):
    return p + scale * g, a + g, b + g, c + g


def stream_scalars():
    return (1.0,)


#: rules that move as much memory as others with 0 to 3 states, with little arithmetic; no optimizer uses them
STREAMS = tuple(
    Rule(stream, stream_scalars, states)
    for stream, states in (
        (stream_0, ()),
        (stream_1, ("a",)),
        (stream_2, ("a", "b")),
        (stream_3, ("a", "b", "c")),
    )
)

# ---------------------------------------------------------------- the registry

#: append a new rule at the end: its new hyper-parameters then become the last members of the C options
RULES = {
    rule.name: rule
    for rule in (
        Rule(adam, adam_scalars, ("m", "v"), ("v",), fading=adam_fading),
        Rule(amsgrad, adam_scalars, ("m", "v", "v_max"), ("v", "v_max"), fading=adam_fading),
        Rule(adamax, adamax_scalars, ("m", "u"), ("u",)),
        Rule(adagrad, adagrad_scalars, ("v",), ("v",)),
        Rule(rmsprop, rmsprop_scalars, ("v",), ("v",)),
        Rule(rmsprop_momentum, rmsprop_momentum_scalars, ("v", "b"), ("v",)),
        Rule(rmsprop_centered, rmsprop_scalars, ("v", "m"), ("v",), ("v", "m")),
        Rule(rmsprop_centered_momentum, rmsprop_momentum_scalars, ("v", "m", "b"), ("v",), ("v", "m")),
        Rule(adadelta, adadelta_scalars, ("v", "d"), ("v", "d")),
        Rule(sgd, sgd_scalars, ()),
        Rule(sgd_momentum, sgd_momentum_scalars, ("b",), fading=sgd_momentum_fading),
        Rule(sgd_nesterov, sgd_momentum_scalars, ("b",)),
        Rule(nadam, nadam_scalars, ("m", "v"), ("v",)),
        Rule(radam, radam_scalars, ("m", "v"), ("v",)),
        Rule(asgd, asgd_scalars, ("ax",), (), ("ax",)),
        Rule(rprop, rprop_scalars, ("prev", "step_size"), ("step_size",)),
        Rule(lion, lion_scalars, ("m",)),
        Rule(ademamix, ademamix_scalars, ("m", "v", "s"), ("v",)),
        Rule(adopt, adopt_scalars, ("m", "v"), ("v",)),
        Rule(schedule_free, schedule_free_scalars, ("v", "z", "x"), ("v",), ("z", "x")),
        Rule(average, average_scalars, ()),
    )
}

#: every rule that is compiled, by its name
COMPILED = RULES | {rule.name: rule for rule in STREAMS}

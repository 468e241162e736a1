"""Fits a law of neurons to a recording, with SciPy's minimize, fastadam's Adam, autograd's gradients and bootstrap
errors. Run ``python examples/scipy_physics_fit.py [--out FILE]``. It needs SciPy, autograd, Matplotlib and tqdm.

The recording is that of Matplotlib's first logo. A steady current makes a neuron fire every 72 ms. Between two spikes
its voltage should follow dV/dt = a (V - V_c)² + b. Every system that slowly passes a place near rest does so.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import autograd.numpy as np  # NumPy's functions in a form that autograd can differentiate
from autograd import value_and_grad
from matplotlib import cbook
from matplotlib.figure import Figure
from scipy.optimize import Bounds, OptimizeResult, minimize
from tqdm import tqdm

from fastadam.adapters.scipy import adam

MS = 0.5  # milliseconds between two samples
BEFORE, UNTIL = 112, 4  # the fit uses the samples from 112 to 4 before a spike
TIMES = -MS * np.arange(BEFORE, UNTIL, -1)

NAMES = ("V_c", "rate at V_c", "rate at -30 mV", "V at the end")
UNITS = ("mV", "mV/ms", "mV/ms", "mV")
#: the first guess, and the unit of each element: a step of Adam is about lr of these units
START, SCALE = np.array([-42.0, 0.2, 1.0, -28.0]), np.array([3.0, 0.2, 1.0, 3.0])
#: V_c is below -30 mV. The rate at -30 mV is larger than at V_c. Neither rate is negative
LOW, HIGH = np.array([-50.0, 0.01, 0.6, -np.inf]), np.array([-36.0, 0.5, np.inf, np.inf])
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.55"


def recording() -> np.ndarray:
    """The voltage in mV."""
    with cbook.get_sample_data("membrane.dat") as file:
        return 100.0 * np.frombuffer(file.read(), np.float32).astype(float)


def spikes(voltage: np.ndarray) -> np.ndarray:
    """The samples where the voltage rises above -20 mV, while the neuron fires steadily."""
    rises = 1 + np.flatnonzero((voltage[:-1] < -20) & (voltage[1:] >= -20))
    return rises[(rises > 2600) & (rises < 7100)]


def parabola(x: np.ndarray) -> tuple[Any, Any, Any]:
    """The constants V_c, a and b of the law."""
    v_c, b, fast = x[0], x[1], x[2]
    return v_c, (fast - b) / (-30.0 - v_c) ** 2, b


def voltage_at(x: np.ndarray, t: np.ndarray) -> Any:
    """The solution of the law that ends at x[3]."""
    v_c, a, b = parabola(x)
    height = np.sqrt(b / a)
    return v_c + height / np.tan(np.arctan2(height, x[3] - v_c) + np.sqrt(a * b) * (t[-1] - t))


def fit(mean: np.ndarray, error: np.ndarray, start: np.ndarray, method: Any = adam, **more: Any) -> OptimizeResult:
    """The x with the smallest mean squared deviation, in units of the error of the mean."""

    def chi2(z: np.ndarray) -> Any:
        return np.mean(((voltage_at(z * SCALE, TIMES) - mean) / error) ** 2)

    bounds = Bounds(LOW / SCALE, HIGH / SCALE)
    result = minimize(value_and_grad(chi2), start / SCALE, jac=True, method=method, bounds=bounds, **more)
    result.x = result.x * SCALE
    return result


def bootstrap(intervals: np.ndarray, error: np.ndarray, x: np.ndarray, count: int) -> np.ndarray:
    """Fits to resampled intervals. Their spread shows how much x would change with another recording."""
    rng = np.random.default_rng(0)
    fits = []
    for _ in tqdm(range(count), desc="bootstrap", unit="fit"):
        drawn = intervals[rng.integers(len(intervals), size=len(intervals))]
        fits.append(fit(drawn.mean(axis=0), error, x, tol=1e-3, options={"lr": 0.02}).x)
    return np.array(fits)


def draw(
    voltage: np.ndarray,
    intervals: np.ndarray,
    error: np.ndarray,
    x: np.ndarray,
    fits: np.ndarray,
    losses: list[float],
) -> Figure:
    """The recording; the intervals, their fit and its residuals; the law; the loss; the bootstrapped fits."""
    figure = Figure(figsize=(16, 10), dpi=110, layout="constrained")
    axes = figure.subplot_mosaic("RRR;FPL;FPL;DPB;DPB", height_ratios=[1.1, 1, 1, 0.6, 0.6])
    figure.suptitle(
        "A neuron under a steady current: between two spikes the voltage slows down near V_c\n"
        f"dV/dt = a (V − V_c)² + b: four numbers fitted to {len(intervals)} intervals by Adam in {len(losses)} steps",
        fontsize=14,
    )
    draw_recording(axes["R"], voltage)
    mean = intervals.mean(axis=0)
    draw_fit(axes["F"], axes["D"], intervals, error, voltage_at(x, TIMES))
    draw_law(axes["P"], mean, x, fits)
    axes["L"].loglog(np.arange(1, len(losses) + 1), losses, color=BLUE, linewidth=2)
    axes["L"].set(title="Loss: mean squared deviation / error²", xlabel="step", ylabel="loss")
    axes["L"].grid(alpha=0.25)
    axes["B"].plot(fits[:, 0], 1000 * fits[:, 1], "o", color=GREEN, markersize=5, alpha=0.6, markeredgewidth=0)
    axes["B"].plot(x[0], 1000 * x[1], "+", color="black", markersize=14)
    axes["B"].set(title=f"{len(fits)} bootstrapped fits, and the fit (+)", xlabel="V_c, mV", ylabel="rate at V_c, mV/s")
    return figure


def draw_recording(axes: Any, voltage: np.ndarray) -> None:
    seconds = MS / 1000 * np.arange(len(voltage))
    axes.plot(seconds, voltage, color=GREY, linewidth=0.6)
    for spike in spikes(voltage)[1:]:
        part = slice(spike - BEFORE, spike - UNTIL)
        axes.plot(seconds[part], voltage[part], color=BLUE, linewidth=1.4)
    axes.set(title="The recording, and the intervals used (blue)", xlabel="s", ylabel="mV", xlim=(0, seconds[-1]))


def draw_fit(above: Any, below: Any, intervals: np.ndarray, error: np.ndarray, fitted: np.ndarray) -> None:
    mean = intervals.mean(axis=0)
    above.plot(TIMES, intervals.T, color=BLUE, linewidth=0.6, alpha=0.25)
    above.plot(TIMES, mean, ".", color="black", markersize=5, label="mean")
    above.plot(TIMES, fitted, color=ORANGE, linewidth=2, label="fit")
    above.set(title="The intervals, up to the next spike", ylabel="V, mV")
    above.legend(loc="upper left")
    below.fill_between(
        TIMES, -1000 * error, 1000 * error, color=BLUE, alpha=0.2, linewidth=0, label="error of the mean"
    )
    below.plot(TIMES, 1000 * (mean - fitted), ".", color="black", markersize=5)
    below.axhline(0, color=ORANGE, linewidth=2)
    below.set(xlabel="ms before the spike", ylabel="mean − fit, µV")
    below.legend(loc="upper left")


def draw_law(axes: Any, mean: np.ndarray, x: np.ndarray, fits: np.ndarray) -> None:
    v = np.linspace(mean[0] - 1, mean[-1] + 1, 200)

    def rate(x: np.ndarray) -> np.ndarray:
        v_c, a, b = parabola(x)
        return a * (v - v_c) ** 2 + b

    wide = 5  # samples to either side: each single difference is mostly noise
    slopes = (mean[2 * wide :] - mean[: -2 * wide]) / (2 * wide * MS)
    axes.plot(mean[wide:-wide], slopes, "o", color="black", markersize=4, label="slope of the mean")
    low, high = np.percentile([rate(x) for x in fits], [2.5, 97.5], axis=0)
    axes.fill_between(v, low, high, color=GREEN, alpha=0.35, label="bootstrap, 95%")
    axes.plot(v, rate(x), color=ORANGE, linewidth=2, label="fit")
    axes.axvline(x[0], color=GREY, linestyle=":")
    axes.set(title="The law", xlabel="V, mV", ylabel="dV/dt, mV/ms", ylim=(0, None))
    axes.legend(loc="upper left")


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print each number with its error, compare with L-BFGS-B, draw."""
    parser = argparse.ArgumentParser(description="Fit the quadratic law of a neuron to a recording.")
    parser.add_argument("--out", type=Path, default=Path("physics_fit.png"), help="the picture (default: %(default)s)")
    parser.add_argument("--fits", type=int, default=100, help="bootstrapped fits (default: %(default)s)")
    options = parser.parse_args(arguments)
    voltage = recording()
    intervals = np.array([voltage[spike - BEFORE : spike - UNTIL] for spike in spikes(voltage)[1:]])
    mean, error = intervals.mean(axis=0), intervals.std(axis=0, ddof=1) / np.sqrt(len(intervals))
    losses: list[float] = []

    def callback(intermediate_result: OptimizeResult) -> None:
        losses.append(intermediate_result.fun)

    result = fit(mean, error, START, tol=1e-3, callback=callback, options={"lr": 0.1})
    print(result.message)
    fits = bootstrap(intervals, error, result.x, options.fits)
    for name, value, spread, unit in zip(NAMES, result.x, fits.std(axis=0), UNITS, strict=True):
        print(f"{name:<16}{value:>9.3f} ± {spread:.3f} {unit}")
    off = 1000 * np.sqrt(np.mean((voltage_at(result.x, TIMES) - mean) ** 2))
    print(f"root mean square of mean - fit: {off:.0f} µV; error of the mean: {1000 * error.mean():.0f} µV")
    other = fit(mean, error, START, method="L-BFGS-B")
    print(
        f"L-BFGS-B's fit is off by at most {np.max(np.abs(other.x - result.x) / fits.std(axis=0)):.1g} of these errors"
    )
    draw(voltage, intervals, error, result.x, fits, losses).savefig(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()

"""Whole training runs, stock against fastadam, in each library that it stands in for, and a plain NumPy loop.
`python bench/endtoend.py --out FOLDER` writes README.md, endtoend.json and endtoend.png; thinc and torch may be absent.

Every run is a process of its own; the ways take turns, and medians are quoted. The optimizer's share is the time inside
its step, by the clock around each call.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from report import machine
from sklearn.datasets import load_digits
from tqdm import tqdm

import fastadam
from fastadam.plain import PlainAdam

STOCK, OURS = "stock", "fastadam"


class Clock:
    """The seconds spent in functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y


def numpy_loop(way: str, clock: Clock, width: int, batch: int) -> tuple[float, float]:
    """A network of one hidden layer in plain NumPy, 5 epochs, its gradients in arrays of its own."""
    x, y = digits()
    target = np.eye(10, dtype=np.float32)[y]
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape, np.float32) * 0.1 for shape in ((64, width), (width,), (width, 10), (10,))]
    if way == OURS:
        step = clock.around(fastadam.Adam(params, eps_hat=True).step)
    else:
        plain = [PlainAdam(SimpleNamespace(parameters=p, grad=None)) for p in params]

        def of_all(grads: list[np.ndarray]) -> None:
            for optimizer, g in zip(plain, grads, strict=True):
                optimizer.instance.grad = g
                optimizer.step()

        step = clock.around(of_all)
    start = time.perf_counter()
    for _ in range(5):
        for first in range(0, len(x), batch):
            xb, tb = x[first : first + batch], target[first : first + batch]
            w1, b1, w2, b2 = params
            hidden = np.maximum(xb @ w1 + b1, 0)
            out = np.exp(hidden @ w2 + b2)
            out /= out.sum(axis=1, keepdims=True)
            delta = (out - tb) / len(xb)
            back = (delta @ w2.T) * (hidden > 0)
            step([xb.T @ back, back.sum(0), hidden.T @ delta, delta.sum(0)])
    return time.perf_counter() - start, float(-np.log(out[tb > 0] + 1e-12).mean())


def sklearn_mlp(way: str, clock: Clock, *hidden: int) -> tuple[float, float]:
    """scikit-learn's MLPClassifier, 5 epochs in batches of 32."""
    from sklearn import neural_network
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

    from fastadam.adapters import sklearn as adapter

    warnings.simplefilter("ignore")
    x, y = digits()
    stepped = adapter._Adam if way == OURS else AdamOptimizer
    stepped.update_params = clock.around(stepped.update_params)  # type: ignore[method-assign]
    cls = adapter.MLPClassifier if way == OURS else neural_network.MLPClassifier
    model = cls(hidden, batch_size=32, max_iter=5, random_state=0)
    start = time.perf_counter()
    model.fit(x, y)
    return time.perf_counter() - start, model.loss_


def thinc_model(way: str, clock: Clock, width: int) -> tuple[float, float]:
    """A thinc model of two hidden layers, 5 epochs in batches of 32, thinc's defaults."""
    from thinc.api import Adam, Relu, Softmax, chain, fix_random_seed

    from fastadam.adapters import thinc as adapter

    fix_random_seed(0)
    x, y = digits()
    target = np.eye(10, dtype="f")[y]
    model = chain(Relu(width), Relu(width), Softmax()).initialize(X=x, Y=target)
    optimizer = (adapter.Adam if way == OURS else Adam)(1e-3)
    step, loss = clock.around(optimizer), 0.0
    start = time.perf_counter()
    for _ in range(5):
        for first in range(0, len(x), 32):
            out, back = model.begin_update(x[first : first + 32])
            delta = (out - target[first : first + 32]) / len(out)
            loss = float((delta**2).sum())
            back(delta)
            model.finish_update(step)
            optimizer.step_schedules()
    return time.perf_counter() - start, loss


def torch_model(way: str, clock: Clock, width: int, depth: int) -> tuple[float, float]:
    """A PyTorch network on the CPU, 5 epochs in batches of 32, against torch.optim.Adam(fused=True)."""
    import torch

    from fastadam.adapters import torch as adapter

    torch.manual_seed(0)
    x, y = (torch.from_numpy(array) for array in digits())
    layers = [torch.nn.Linear(64, width), torch.nn.ReLU()]
    for _ in range(depth):
        layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))
    optimizer = adapter.Adam(model.parameters()) if way == OURS else torch.optim.Adam(model.parameters(), fused=True)
    step = clock.around(optimizer.step)
    start = time.perf_counter()
    for _ in range(5):
        for first in range(0, len(x), 32):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[first : first + 32]), y[first : first + 32])
            loss.backward()
            step()
    return time.perf_counter() - start, loss.item()


def scipy_minimize(way: str, clock: Clock, size: int) -> tuple[float, float]:
    """SciPy's minimize of Rosenbrock's function, 2 000 steps: Adam in plain NumPy as the method, or fastadam's."""
    from scipy.optimize import OptimizeResult, minimize, rosen, rosen_der

    from fastadam.adapters import scipy as adapter

    def plain(fun: Any, x0: Any, args: Any = (), jac: Any = None, **_: Any) -> OptimizeResult:
        held = SimpleNamespace(parameters=np.array(x0, float), grad=None)
        optimizer = PlainAdam(held)
        optimizer.alpha = 0.01
        step = clock.around(optimizer.step)
        for _ in range(2000):
            held.grad = jac(held.parameters)
            fun(held.parameters)
            step()
        return OptimizeResult(x=held.parameters, fun=fun(held.parameters))

    x0 = np.linspace(-1.2, 1.2, size)
    start = time.perf_counter()
    if way == OURS:
        fastadam.Adam.step = clock.around(fastadam.Adam.step)  # type: ignore[method-assign]
        options = {"lr": 0.01, "maxiter": 2000, "eps_hat": True}
        result = minimize(rosen, x0, jac=rosen_der, method=adapter.adam, tol=0.0, options=options)
    else:
        result = minimize(rosen, x0, jac=rosen_der, method=plain)
    return time.perf_counter() - start, float(result.fun)


#: what is run: name, the function, and its sizes
CASES: dict[str, tuple[Callable[..., tuple[float, float]], tuple[int, ...]]] = {
    "NumPy loop, 16 hidden": (numpy_loop, (16, 32)),
    "NumPy loop, 512 hidden": (numpy_loop, (512, 32)),
    "NumPy loop, 8192 hidden": (numpy_loop, (8192, 32)),
    "scikit-learn MLP (16,)": (sklearn_mlp, (16,)),
    "scikit-learn MLP (512,)": (sklearn_mlp, (512,)),
    "scikit-learn MLP (512, 512)": (sklearn_mlp, (512, 512)),
    "thinc, 2 × 32 hidden": (thinc_model, (32,)),
    "thinc, 2 × 512 hidden": (thinc_model, (512,)),
    "PyTorch, 64 hidden": (torch_model, (64, 0)),
    "PyTorch, 20 layers of 32": (torch_model, (32, 19)),
    "PyTorch, 3 layers of 512": (torch_model, (512, 2)),
    "SciPy minimize, 10": (scipy_minimize, (10,)),
    "SciPy minimize, 100,000": (scipy_minimize, (100_000,)),
}
#: what runs need beyond that which all of this needs
OPTIONAL = {thinc_model: "thinc", torch_model: "torch"}


def run(case: str, way: str) -> tuple[float, float, float]:
    """Seconds of a whole run, those within the optimizer, and the last loss; for a process of its own."""
    function, sizes = CASES[case]
    clock = Clock()
    seconds, loss = function(way, clock, *sizes)
    return seconds, clock.seconds, loss


def measure(rounds: int) -> list[dict[str, Any]]:
    """Every case, its ways in turn, each run in a fresh process."""
    absent = [function for function, library in OPTIONAL.items() if importlib.util.find_spec(library) is None]
    cases = [case for case, (function, _) in CASES.items() if function not in absent]
    found = []
    with tqdm(total=len(cases) * rounds * 2, unit="run") as bar:
        for case in cases:
            runs: dict[str, list[list[float]]] = {STOCK: [], OURS: []}
            bar.set_postfix_str(case)
            for _ in range(rounds):
                for way, taken in runs.items():
                    command = [sys.executable, __file__, "--case", case, "--way", way]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    taken.append([float(word) for word in done.stdout.split()[-3:]])
                    bar.update()
            found.append({"case": case} | {way: summary(taken) for way, taken in runs.items()})
    return found


def summary(taken: list[list[float]]) -> dict[str, float]:
    """Medians of the rounds, and the quartiles of the whole."""
    seconds, inside, losses = zip(*taken, strict=True)
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    share = statistics.median(part / whole for part, whole in zip(inside, seconds, strict=True))
    return {"seconds": statistics.median(seconds), "low": low, "high": high, "share": share, "loss": losses[0]}


def markdown(facts: dict[str, str], found: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["# Whole training runs\n", "Made by `python bench/endtoend.py` on"]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [
        "",
        "Digits, 5 epochs (SciPy: 2 000 steps on Rosenbrock's function), one process a run, the ways in turn. *Share*",
        "is the part of the run that is spent in the optimizer: with one that takes no time a run would be",
        "1 / (1 − share) times as fast. *Last losses*, stock's and fastadam's, agree but for rounding, which a",
        "training amplifies.\n",
        "Stock is each library's own Adam, in PyTorch with `fused=True`; in the NumPy loop the article's. SciPy has",
        "none: stock is a bare loop there, of the article's Adam in float64, which tests no convergence, keeps no best",
        "point and checks nothing; fastadam's method does all that at every step.\n",
        "| run | stock, s | fastadam, s | faster | share, stock | share, fastadam | last losses |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        stock, ours = row[STOCK], row[OURS]
        cells = [row["case"], *(f"{r['seconds']:.3f} ({r['low']:.3f} – {r['high']:.3f})" for r in (stock, ours))]
        cells += [f"{stock['seconds'] / ours['seconds']:.2f}×", f"{stock['share']:.0%}", f"{ours['share']:.0%}"]
        cells.append(f"{stock['loss']:.4g}, {ours['loss']:.4g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n![whole runs](endtoend.png)\n"


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Each run as two bars, stock = 1: the optimizer's part dark, all else light."""
    figure = Figure(figsize=(10, 0.62 * len(found) + 1.2), layout="constrained", dpi=110)
    axes = figure.subplots()
    for k, row in enumerate(reversed(found)):
        unit = row[STOCK]["seconds"]
        for way, offset, color in ((STOCK, 0.2, "tab:gray"), (OURS, -0.2, "tab:red")):
            length, share = row[way]["seconds"] / unit, row[way]["share"]
            label = {"label": way} if k == 0 else {}
            axes.barh(k + offset, length * share, 0.38, color=color, **label)
            axes.barh(k + offset, length * (1 - share), 0.38, left=length * share, color=color, alpha=0.3)
        faster = unit / row[OURS]["seconds"]
        axes.text(row[OURS]["seconds"] / unit + 0.01, k - 0.2, f"{faster:.2f}×", va="center", fontsize=9)
    axes.set_yticks(range(len(found)), [row["case"] for row in reversed(found)])
    longest = max(row[OURS]["seconds"] / row[STOCK]["seconds"] for row in found)
    axes.set(xlabel="time of the whole run, stock = 1; dark: in the optimizer", xlim=(0, max(1.0, longest) + 0.15))
    figure.legend(loc="outside upper right", ncols=2)
    figure.savefig(path)


def main() -> None:
    """Measure, then write; or, with --case, one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("report-output"), help="folder for the report")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case and way (default: %(default)s)")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=(STOCK, OURS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(*run(options.case, options.way))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    found = measure(options.rounds)
    facts = machine()
    (options.out / "endtoend.json").write_text(json.dumps({"machine": facts, "runs": found}, indent=1) + "\n")
    (options.out / "README.md").write_text(markdown(facts, found))
    draw(found, options.out / "endtoend.png")
    print(f"wrote {options.out}/README.md, endtoend.json, endtoend.png")


if __name__ == "__main__":
    main()

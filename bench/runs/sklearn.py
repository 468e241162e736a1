"""scikit-learn's networks."""

import time
import warnings
from functools import partial

from clock import OURS, Clock, Run, digits


def sklearn_mlp(way: str, clock: Clock, hidden: tuple[int, ...]) -> tuple[float, float]:
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


CASES: dict[str, Run] = {
    f"scikit-learn MLP {hidden}": partial(sklearn_mlp, hidden=hidden) for hidden in ((16,), (512,), (512, 512))
}

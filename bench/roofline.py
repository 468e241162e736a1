"""The machine's limit for a step of any rule: the same arrays read and written, with almost no arithmetic.
It is a rule like any other, compiled by Numba, so it runs through the same plan, tiles and threads.
"""

import sys
from pathlib import Path

from contestants import Arrays, Step

from fastadam.kernel import backends, threads
from fastadam.rule import Rule

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from inside import Plan, state_like


def streams(n_states: int) -> int:
    """How many numbers a step must move for each element: p, g and states are read; p and states are written."""
    return 3 + 2 * n_states


def rule_of(n_states: int) -> Rule:
    """The rule that adds the gradient to all."""
    states = [f"s{k}" for k in range(n_states)]
    text = f"lambda {', '.join(('p', 'g', *states))}: ({', '.join(f'{name} + g' for name in ('p', *states))},)"
    return Rule(eval(text), lambda t: (), tuple(states))


def roofline(params: Arrays, grads: Arrays, n_threads: int | None = None, n_states: int = 2) -> Step:
    """A function that moves the bytes of one step of these arrays, by default of Adam's."""
    rule = rule_of(n_states)
    states = [[state_like(p) for _ in rule.states] for p in params]
    plan = Plan(threads.resolve("n_threads", n_threads))
    plan.lay([(backends.kernel(rule, "numba"), list(params), states)], ["p"] * len(params))
    plan.set_hyper(0, [rule.defaults.get(name, 0.0) for name in rule.hyper])
    return lambda: plan.step(grads)

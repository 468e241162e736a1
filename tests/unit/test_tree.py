"""Structures: names and keys by path, gradients in the same structure, and objects that are not structures."""

import numpy as np
import pytest

from fastadam import tree

A, B, C = np.ones(1), np.ones(2), np.ones(3)


class Alike:
    """Keys that differ, with one repr."""

    def __repr__(self):
        return "alike"


@pytest.mark.parametrize(
    ("given", "keys", "names"),
    [
        (A, ["0"], ["params"]),
        ([A, B], ["0", "1"], ["params[0]", "params[1]"]),
        ({"W": A, "b": B}, ["W", "b"], ["params['W']", "params['b']"]),
        ([("W", A), ("b", B)], ["W", "b"], ["params['W']", "params['b']"]),
        ({1: A, "1": B}, ["1", "'1'"], ["params[1]", "params['1']"]),
        ({"a.b": A, "a": {"b": B}}, ["'a.b'", "'a'.'b'"], ["params['a.b']", "params['a']['b']"]),
        ({"layers": [{"W": A}, (B, C)]}, ["layers.0.W", "layers.1.0", "layers.1.1"], None),
        ((part for part in (A, B)), ["0", "1"], ["params[0]", "params[1]"]),
        ([{"W": A}, {"W": B}], ["0.W", "1.W"], ["params[0]['W']", "params[1]['W']"]),
        ([{"params": A}, {"params": [B]}], ["0.0", "1.0"], ["params[0]['params']", "params[1]['params'][0]"]),
        ([{"params": {"W": A}, "lr": 1}], ["W"], ["params[0]['params']['W']"]),
        ({Alike(): A, Alike(): B}, ["0", "1"], ["params[alike]", "params[alike]"]),
        ({"a": {Alike(): A, Alike(): B}, "b": C}, ["0", "1", "2"], None),
        ([{"params": {"b.c": A}, "name": "a"}, {"params": {"c": B}, "name": "a.b"}], ["0.b.c", "1.c"], None),
        ([{"params": [A], "name": "a"}, {"params": [B]}], ["a.0", "1.0"], None),
    ],
)
def test_names_and_keys(given, keys, names):
    found = tree.read(given)
    assert found.keys == keys
    assert names is None or found.names == names


@pytest.mark.parametrize("given", [A, [A, B], {"W": A, "b": [B, {"c": C}]}, ((A,), (B, C))])
def test_what_is_flattened_can_be_built_again(given):
    found = tree.read(given)
    assert all(one is other for one, other in zip(found.flatten(given), found.arrays, strict=True))
    built = found.unflatten(found.arrays)
    assert all(one is other for one, other in zip(found.flatten(built), found.arrays, strict=True))
    assert all(one is other for one, other in zip(found.read_again(), found.arrays, strict=True))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "at least one array, got an empty list"),
        ({"a": {}}, ValueError, "at least one array"),
        ({A.tobytes()}, TypeError, "a set has no order"),
        ([("W", A), ("W", B)], ValueError, "different names"),
        ([{"params": A}, B], TypeError, r"params\[1\]: expected a group"),
        ([{"params": A}, {"W": B}], ValueError, "with the key 'params'"),
    ],
)
def test_no_structures(given, error, message):
    with pytest.raises(error, match=message):
        tree.read(given)


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"W": A}, r"grads: expected the keys of params; missing: \['layers'\]"),
        ({"W": A, "layers": [B]}, r"grads\['layers'\]: expected 2 gradients"),
        ({"W": A, "layers": B}, r"grads\['layers'\]: expected a sequence like params, got ndarray"),
        ([A, B, C], "grads: expected a mapping like params, got list"),
    ],
)
def test_gradients_of_another_structure(grads, message):
    with pytest.raises((TypeError, ValueError), match=message):
        tree.read({"W": A, "layers": [B, C]}).flatten(grads)


def test_groups_take_gradients_by_group_or_flat():
    found = tree.read([{"params": [A, B]}, {"params": {"c": C}}])
    for grads in ([[A, B], {"c": C}], [A, B, C], [{"params": [A, B]}, {"grads": {"c": C}}]):
        assert all(one is other for one, other in zip(found.flatten(grads), (A, B, C), strict=True))
    with pytest.raises(ValueError, match="expected 2 groups"):
        found.flatten([[A, B], {"c": C}, []])

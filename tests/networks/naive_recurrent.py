"""A recurrent cell, unit by unit in plain Python: slow, and independent of nao_ray and of torch's products."""

import math

FUNCTIONS = {
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "identity": lambda x: x,
}


def highway(row, weight, source, name):
    """One example: ``row`` times ``weight`` ``[len(row)][2H]``, over ``source`` ``[H]``."""
    units = len(source)
    product = [sum(row[k] * weight[k][j] for k in range(len(row))) for j in range(2 * units)]
    gates, candidates = product[:units], product[units:]
    return [
        s + FUNCTIONS["sigmoid"](c) * (FUNCTIONS[name](h) - s)
        for s, c, h in zip(source, gates, candidates, strict=True)
    ]


def outputs(recurrent, concat, w0, nodes, inputs, state, mask=None):
    """``[T][B][H]``; `recurrent`: (activation, source) by node, `inputs` ``[T][B][H]``, `state` ``[B][H]``."""
    steps = []
    for x in inputs:
        state = [
            example(recurrent, concat, w0, nodes, x[b], state[b], mask[b] if mask else [1.0] * len(state[b]))
            for b in range(len(state))
        ]
        steps.append(state)
    return steps


def example(recurrent, concat, w0, nodes, x, before, mask):
    def masked(values):
        return [value * keep for value, keep in zip(values, mask, strict=True)]

    states = [highway(x + masked(before), w0, before, "tanh")]
    for (name, source), weight in zip(recurrent, nodes, strict=True):
        states.append(highway(masked(states[source]), weight, states[source], name))
    return [sum(states[i][j] for i in concat) / len(concat) for j in range(len(before))]

"""The NAO backbone a second time, as plainly as it can be written: one function per sentence of the paper's code.

It shares nothing with nao_ray: it reads the 40 integers itself and takes every weight from the fill rule, which gives
equal tensors to equal shapes, so that neither names nor the order of parameters matter.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

LARGE = {5: "id", 6: "conv1", 7: "conv3", 8: "pair3", 9: "pair7", 10: "max2", 11: "max3", 12: "max5",
         13: "AVG2", 14: "AVG3", 15: "AVG5"}  # fmt: skip  # capitals: the padding counts
SMALL = {0: "sep3", 1: "sep5", 2: "avg3", 3: "max3", 4: "id"}
MIDDLE = {0: "zero", 1: "id", 2: "sep3", 3: "sep5", 4: "sep7", 5: "dil3", 6: "dil5", 7: "dil7", 8: "avg3", 9: "max3"}
TABLES = {"nao_cnn": LARGE, "nao_cnn_small": SMALL, "nao_cnn_middle": MIDDLE}


def uniform(count, shift=0):
    k = np.arange(count, dtype=np.int64) + 1 + shift
    return torch.from_numpy((k * 2654435761 % 2**32) / 2**32 - 0.5)


@cache
def weight(*shape):
    count = int(np.prod(shape))
    return (2 * np.sqrt(3 / (count / shape[0])) * uniform(count)).reshape(shape)


def fill(network):
    """Give a network the weights of the fill rule; batch norm and biases at their neutral values."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() >= 2:
                parameter.copy_(weight(*parameter.shape))
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()


def images(*shape):
    return (4 * uniform(int(np.prod(shape)))).reshape(shape)


def bn(x):
    return x / np.sqrt(1 + 1e-5)  # running mean 0, variance 1, weight 1, bias 0


def conv(x, out, kernel, stride=(1, 1), padding=(0, 0)):
    return F.conv2d(x.contiguous(), weight(out, x.shape[1], *kernel), stride=stride, padding=padding)


def depthwise(x, k, stride, padding, dilation):
    c = x.shape[1]
    return F.conv2d(x.contiguous(), weight(c, 1, k, k), None, stride, padding, dilation, groups=c)


def relu(x):
    return x.clamp(min=0)


def factorized_reduce(x, out):
    shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    first = conv(x[:, :, ::2, ::2], out // 2, (1, 1))
    second = conv(shifted[:, :, ::2, ::2], out // 2, (1, 1))
    return bn(torch.cat([first, second], dim=1))


def apply(op, x, stride):
    c, k, s = x.shape[1], int(op[-1]) if op[-1].isdigit() else 0, stride
    match op[:-1] if k else op:
        case "id":
            return x if s == 1 else factorized_reduce(x, c)
        case "zero":
            return x[:, :, ::s, ::s] * 0.0
        case "conv":
            return bn(conv(relu(x), c, (k, k), (s, s), (k // 2, k // 2)))
        case "pair":
            x = bn(conv(relu(x), c, (1, k), (1, s), (0, k // 2)))
            return bn(conv(relu(x), c, (k, 1), (s, 1), (k // 2, 0)))
        case "sep":
            for step in (s, 1):
                x = bn(conv(depthwise(relu(x), k, step, k // 2, 1), c, (1, 1)))
            return x
        case "dil":
            return bn(conv(depthwise(relu(x), k, s, k - 1, 2), c, (1, 1)))
        case "max" if k == 2:
            return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, s)
        case "AVG" if k == 2:
            return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, s)
        case "max":
            return F.max_pool2d(x, k, s, k // 2)
        case "avg":
            return F.avg_pool2d(x, k, s, k // 2, count_include_pad=False)
        case "AVG":
            return F.avg_pool2d(x, k, s, k // 2, count_include_pad=True)
    raise AssertionError(op)


def cell(numbers, table, before, last, channels, reduction):
    if before.shape[-1] == 2 * last.shape[-1]:
        before = factorized_reduce(relu(before), channels)
    elif before.shape[1] != channels:
        before = bn(conv(relu(before), channels, (1, 1)))
    if last.shape[1] != channels:
        last = bn(conv(relu(last), channels, (1, 1)))
    states, used = [before, last], set()
    for node in range(5):
        total = 0
        for source, op in (numbers[4 * node : 4 * node + 2], numbers[4 * node + 2 : 4 * node + 4]):
            used.add(source)
            total = total + apply(table[op], states[source], 2 if reduction and source < 2 else 1)
        states.append(total)
    loose = [i for i in range(7) if i not in used]
    return torch.cat([factorized_reduce(states[i], channels) if reduction and i < 2 else states[i] for i in loose], 1)


def logits(text, space, x, *, imagenet, cells_per_stage, channels, num_classes):
    numbers, n, f = [int(word) for word in text.split()], cells_per_stage, channels
    if imagenet:
        before = bn(conv(x, f // 2, (3, 3), (2, 2), (1, 1)))
        before = bn(conv(relu(before), f, (3, 3), (2, 2), (1, 1)))
        last = bn(conv(relu(before), f, (3, 3), (2, 2), (1, 1)))
    else:
        before = last = bn(conv(x, 3 * f, (3, 3), (1, 1), (1, 1)))
    for index in range(3 * n + 2):
        reduction = index in (n, 2 * n + 1)
        f *= 2 if reduction else 1
        part = numbers[20:] if reduction else numbers[:20]
        before, last = last, cell(part, TABLES[space], before, last, f, reduction)
    return F.adaptive_avg_pool2d(last, 1).flatten(1) @ weight(num_classes, last.shape[1]).T

"""The backbone of NAO's TensorFlow code beside one written a second time, plainly; its counts are with the recipes'."""

import naive_backbone as naive
import pytest
import torch
import torch.nn.functional as F

import nao_ray
from nao_ray import rng
from nao_ray.spaces.nao_cnn_tf import NaoCnnTf

SPACE = NaoCnnTf()
RANDOM = [SPACE.sample(rng.child(3, "tf", number)).key for number in range(4)]
LEFT_OPEN = " ".join(["1 7 1 5", "2 5 1 13", "1 6 2 8", "3 9 4 5", "1 12 5 14"] * 2)  # input 0 is a loose end


def op(name, x, channels, stride):
    wide = x.shape[1] != channels
    if name in ("conv1", "conv3"):
        k = int(name[-1])
        return naive.bn(naive.conv(naive.relu(x), channels, (k, k), (stride, stride), (k // 2, k // 2)))
    if name.startswith("pair"):
        k = int(name[-1])
        x = naive.bn(naive.conv(naive.relu(x), channels, (1, k), (stride, stride), (0, k // 2)))
        return naive.bn(naive.conv(naive.relu(x), channels, (k, 1), (1, 1), (k // 2, 0)))
    if name != "id":
        kind, k = name[:-1].lower(), int(name[-1])
        if k == 2:
            padded = F.pad(x, (0, 1, 0, 1), mode="replicate") if stride == 1 else x
            x = (F.max_pool2d if kind == "max" else F.avg_pool2d)(padded, 2, stride)
        else:
            pad = k // 2
            x = F.max_pool2d(x, k, stride, pad) if kind == "max" else F.avg_pool2d(x, k, stride, pad, False, False)
        stride = 1
    if not wide and stride == 1:
        return x
    return naive.bn(naive.conv(naive.relu(x), channels, (1, 1), (stride, stride)))


def cell(numbers, before, last, channels, *, reduction, first):
    if not first:
        if before.shape[-1] == 2 * last.shape[-1]:
            before = naive.factorized_reduce(naive.relu(before), channels)
        elif before.shape[1] != channels:
            before = naive.bn(naive.conv(naive.relu(before), channels, (1, 1)))
    states, used = [before, naive.bn(naive.conv(naive.relu(last), channels, (1, 1)))], set()
    for node in range(5):
        pairs = numbers[4 * node : 4 * node + 2], numbers[4 * node + 2 : 4 * node + 4]
        used |= {source for source, _ in pairs}
        strides = [2 if reduction and source < 2 else 1 for source, _ in pairs]
        outs = [op(naive.LARGE[o], states[s], channels, stride) for (s, o), stride in zip(pairs, strides, strict=True)]
        states.append(sum(outs))
    loose = []
    for state in set(range(7)) - used:
        x = states[state]
        if reduction and state < 2:
            x = naive.factorized_reduce(x, channels)
        elif first and state == 0:
            x = naive.bn(naive.conv(x, channels, (1, 1)))
        loose.append(x)
    return torch.cat(loose, dim=1)


def logits(text, x, *, cells_per_stage, channels):
    numbers, n = [int(word) for word in text.split()], cells_per_stage
    before = last = naive.bn(naive.conv(x, 3 * channels, (3, 3), (1, 1), (1, 1)))
    for index in range(3 * n + 2):
        reduction = index in (n, 2 * n + 1)
        channels *= 2 if reduction else 1
        part = numbers[20:] if reduction else numbers[:20]
        before, last = last, cell(part, before, last, channels, reduction=reduction, first=index == 0)
    return naive.relu(last).mean(dim=(2, 3)) @ naive.weight(10, last.shape[1]).T


@pytest.mark.parametrize("text", [SPACE.published["NAONet-TF"], LEFT_OPEN, *RANDOM])
def test_logits_are_those_of_the_plain_network(text):
    network = nao_ray.build_network(text, space="nao_cnn_tf", network="cifar10", cells_per_stage=1, channels=4).double()
    naive.fill(network)
    x = naive.images(2, 3, 16, 16)
    ours = network.eval()(x)
    torch.testing.assert_close(ours, logits(text, x, cells_per_stage=1, channels=4), rtol=1e-9, atol=1e-9)


def test_drop_path_spares_identities_of_another_shape_alone():
    network = nao_ray.build_network(LEFT_OPEN, space="nao_cnn_tf", network="cifar10", cells_per_stage=1, channels=4)
    spared = {type(op).__name__: op.passes for cell in network.cells for node in cell.nodes for op in node}
    assert spared.pop("IdentityConv")
    assert spared.pop("Identity")
    assert not any(spared.values())


def test_the_auxiliary_head_stands_one_cell_after_the_second_reduction():
    network = nao_ray.build_network("NAONet-TF", space="nao_cnn_tf", cells_per_stage=2, channels=4, auxiliary=True)
    assert (network.config.reductions, network.auxiliary_at) == ((2, 5), 6)

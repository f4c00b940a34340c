"""The evaluation networks of DARTS as its code has them, module by module: slow, and independent of nao_ray.

Parameters come in the order of the published modules. `B` batch, `C` channels, `K` classes.
"""

import torch
import torch.nn.functional as F
from torch import nn


def relu_conv_norm(c_in, c_out):
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))


def half_separable(c, k, stride, dilation=1):
    padding = dilation * (k - 1) // 2
    depthwise = nn.Conv2d(c, c, k, stride, padding, dilation, groups=c, bias=False)
    return [nn.ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]


class FactorizedReduce(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv_1 = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x):
        x = F.relu(x)
        moved = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]  # the code fails on odd maps
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(moved)], dim=1))


def operation(name, c, stride):
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if name == "conv_7x1_1x7":
        first = nn.Conv2d(c, c, (1, 7), (1, stride), (0, 3), bias=False)
        second = nn.Conv2d(c, c, (7, 1), (stride, 1), (3, 0), bias=False)
        return nn.Sequential(nn.ReLU(), first, second, nn.BatchNorm2d(c))
    k = int(name[-1])
    if name.startswith("dil_conv"):
        return nn.Sequential(*half_separable(c, k, stride, 2))
    return nn.Sequential(*half_separable(c, k, stride), *half_separable(c, k, 1))


class Cell(nn.Module):
    def __init__(self, pairs, concat, inputs, c, *, reduction, reduction_before):
        super().__init__()
        first = FactorizedReduce if reduction_before else relu_conv_norm
        self.preprocess0, self.preprocess1 = first(inputs[0], c), relu_conv_norm(inputs[1], c)
        self.pairs, self.concat = pairs, concat
        strides = [2 if reduction and index < 2 else 1 for _, index in pairs]
        self.ops = nn.ModuleList(operation(op, c, s) for (op, _), s in zip(pairs, strides, strict=True))
        self.out_channels = c * len(concat)

    def forward(self, s0, s1, masks):
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        outs = []
        for k, ((_, index), op) in enumerate(zip(self.pairs, self.ops, strict=True)):
            out = op(states[index])
            if masks is not None and not isinstance(op, nn.Identity):
                out = out * masks[k]
            outs.append(out)
            if k % 2:
                states.append(outs[-2] + outs[-1])
        return torch.cat([states[index] for index in self.concat], dim=1)


class AuxiliaryHead(nn.Module):
    def __init__(self, c, classes, *, imagenet):
        super().__init__()
        norm = [] if imagenet else [nn.BatchNorm2d(768)]
        self.imagenet = imagenet
        self.features = nn.Sequential(
            nn.Conv2d(c, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 768, 2, bias=False), *norm
        )  # fmt: skip
        self.classifier = nn.Linear(768, classes)

    def forward(self, x):
        x, published = F.relu(x), (7, 7) if self.imagenet else (8, 8)
        if x.shape[2:] == published:
            x = F.avg_pool2d(x, 5, stride=2 if self.imagenet else 3)
        else:
            x = F.adaptive_avg_pool2d(x, 2)
        return self.classifier(F.relu(self.features(x)).flatten(1))


class Network(nn.Module):
    """`genotype`: a mapping of the four fields."""

    def __init__(self, genotype, *, layers, channels, classes, in_channels=3, imagenet=False):
        super().__init__()
        c, self.imagenet = channels, imagenet
        if imagenet:
            self.stem0 = nn.Sequential(
                nn.Conv2d(in_channels, c // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(c // 2), nn.ReLU(),
                nn.Conv2d(c // 2, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c),
            )  # fmt: skip
            self.stem1 = nn.Sequential(nn.ReLU(), nn.Conv2d(c, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c))
            before, last = c, c
        else:
            self.stem = nn.Sequential(nn.Conv2d(in_channels, 3 * c, 3, padding=1, bias=False), nn.BatchNorm2d(3 * c))
            before, last = 3 * c, 3 * c
        self.cells, reduction_before = nn.ModuleList(), imagenet
        for index in range(layers):
            reduction = index in (layers // 3, 2 * layers // 3)
            c = 2 * c if reduction else c
            which = "reduce" if reduction else "normal"
            self.cells.append(Cell(
                genotype[which], genotype[f"{which}_concat"], (before, last), c,
                reduction=reduction, reduction_before=reduction_before,
            ))  # fmt: skip
            before, last, reduction_before = last, self.cells[-1].out_channels, reduction
        self.auxiliary_at = 2 * layers // 3
        self.auxiliary = AuxiliaryHead(self.cells[self.auxiliary_at].out_channels, classes, imagenet=imagenet)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x, masks=None):
        """Logits and those of the auxiliary head; `masks` per cell and edge."""
        s0 = self.stem0(x) if self.imagenet else self.stem(x)
        s1 = self.stem1(s0) if self.imagenet else s0
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, None if masks is None else masks[index])
            if index == self.auxiliary_at:
                auxiliary = self.auxiliary(s1)
        return self.classifier(F.adaptive_avg_pool2d(s1, 1).flatten(1)), auxiliary


# -- the reference's numbers -----------------------------------------------------------------------------------


def u(count, shift=0):
    """The fill rule's numbers ``[count]`` in [-1/2, 1/2)."""
    k = torch.arange(1, count + 1, dtype=torch.int64) + shift
    return ((k * 2654435761) % 2**32).double() / 2**32 - 0.5


def filled(network):
    """The network in float64 with the fill rule's weights."""
    for module in network.double().modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() >= 2:
                fan_in = parameter.numel() // parameter.shape[0]
                parameter.data = (2 * (3 / fan_in) ** 0.5 * u(parameter.numel())).reshape(parameter.shape)
            else:
                parameter.data.fill_(float(isinstance(module, nn.BatchNorm2d) and name == "weight"))
    return network


def images(batch, side):
    return 4 * u(batch * 3 * side * side).reshape(batch, 3, side, side)

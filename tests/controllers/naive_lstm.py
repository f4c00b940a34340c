"""The LSTM policies of ENAS one sequence and one number at a time, as in the authors' code; for comparison."""

from __future__ import annotations

from typing import Any

import numpy as np


class Naive:
    """A given sequence under the parameters of a policy; attributes after `macro` or `micro` has been called."""

    def __init__(self, policy: Any, numbers: list[int]) -> None:
        self.p = {name: value.detach().numpy() for name, value in policy.named_parameters()}
        self.temperature = policy.config.temperature
        self.tc, self.reduce = policy.config.tanh_constant, policy.config.op_tanh_reduce
        self.numbers = numbers
        self.h = self.c = np.zeros((1, policy.config.hidden))
        self.log_prob = self.entropy = self.sampled_entropy = 0.0

    def step(self, x: np.ndarray) -> np.ndarray:
        i, f, o, g = np.split(np.concatenate([x, self.h], axis=1) @ self.p["cell"], 4, axis=1)
        self.c = sigmoid(i) * np.tanh(g) + sigmoid(f) * self.c
        self.h = sigmoid(o) * np.tanh(self.c)
        return self.h

    def take(self, logits: np.ndarray, choice: int) -> None:
        probs = np.exp(logits) / np.exp(logits).sum()
        self.log_prob += float(np.log(probs[choice]))
        self.entropy -= float((probs * np.log(probs)).sum())
        self.sampled_entropy -= float(probs[choice] * np.log(probs[choice]))

    def attention(self, key: np.ndarray) -> float:
        return float((np.tanh(key + self.h @ self.p["query"]) @ self.p["attention"]).item())

    def macro(self, layers: int, target: float) -> tuple[float, float]:
        """Numbers 0..5 and bits; the published skip penalty and the corrected one."""
        left = iter(self.numbers)
        anchors: list[np.ndarray] = []
        published, corrected = [], []
        x = self.p["start"]
        for layer in range(layers):
            self.step(x)
            op = next(left)
            self.take(self.tc * np.tanh(self.h @ self.p["op_head"])[0], op)
            self.step(self.p["op_embedding"][op : op + 1])
            x = self.p["start"]
            if layer:
                total, count, one, two = np.zeros_like(x), 0, 0.0, 0.0
                for anchor in anchors:
                    q = self.attention(anchor @ self.p["key"])
                    pair = self.tc * np.tanh(np.array([-q, q]))
                    bit = next(left)
                    self.take(pair, bit)
                    total, count = total + bit * anchor, count + bit
                    for share, rate in zip(sigmoid(pair), (1 - target, target), strict=True):
                        one += share * np.log(share / rate)
                    for share, rate in zip(np.exp(pair) / np.exp(pair).sum(), (1 - target, target), strict=True):
                        two += share * np.log(share / rate)
                published.append(one)
                corrected.append(two)
                x = total / (1 + count)
            anchors.append(self.h)
        return float(np.mean(published)), float(np.mean(corrected))

    def micro(self) -> int:
        """Both cells, ``index_1 op_1 index_2 op_2`` per node; the number of LSTM steps."""
        steps = 0
        for cell in range(2):
            anchors, keys = [np.zeros_like(self.h)] * 2, []
            for _ in range(2):
                keys.append(self.step(self.p["start"]) @ self.p["key"])
            for node in range(5):
                index_1, op_1, index_2, op_2 = self.numbers[20 * cell + 4 * node :][:4]
                x = self.p["start"]
                for index in (index_1, index_2):
                    self.step(x)
                    self.take(self.tc * np.tanh([self.attention(key) for key in keys]), index)
                    x = anchors[index]
                for op in (op_1, op_2):
                    self.step(x)
                    logits = self.tc / self.reduce * np.tanh(self.h @ self.p["op_head"] + self.p["op_bias"])[0]
                    if cell == 0:
                        logits = logits + np.array([0.25, 0.25, -0.25, -0.25, -0.25])
                    self.take(logits, op)
                    x = self.p["op_embedding"][op : op + 1]
                anchors.append(self.step(x))
                keys.append(self.h @ self.p["key"])
                steps += 5
            steps += 2
        return steps

    def recurrent(self) -> int:
        """``source activation`` per node; the number of LSTM steps."""
        steps, x = 0, self.p["start"]
        anchors, keys = [np.zeros_like(self.h)], [np.zeros_like(self.h)]
        for node in range(1, len(self.numbers) // 2 + 1):
            source, op = self.numbers[2 * node - 2 :][:2]
            h = self.step(x)
            q = np.array([self.attention(key) for key in keys]) / self.temperature
            far = np.array([(node - j) ** 2 for j in range(node)])
            self.take(self.tc * np.tanh(q) - far / 6, source)
            x = anchors[source] / (0.1 + node - source)
            anchors.append(h)
            keys.append(h @ self.p["key"])
            self.step(x)
            self.take(self.tc * np.tanh(self.h @ self.p["op_embedding"].T / self.temperature)[0], op)
            x = self.p["op_embedding"][op : op + 1]
            steps += 2
        return steps


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))

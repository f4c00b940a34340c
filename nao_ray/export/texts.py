"""The code of language models around a recurrent cell."""

from __future__ import annotations

import re

from nao_ray.export.writing import Written, call, constructor, docstring, indented
from nao_ray.networks.recurrent_network import RecurrentConfig, RecurrentNetwork

_ACTIVATIONS = {"tanh": "torch.tanh", "relu": "torch.relu", "sigmoid": "torch.sigmoid", "identity": "identity"}
_OWN = {"embedding", "w0", "decoder_bias"}


def write_language_model(network: RecurrentNetwork) -> Written:
    """A language model of one cell."""
    config, nodes = network.config, network.cell.nodes
    pieces = {"highway"} | {"identity" for (edge,) in nodes if edge.op == "identity"}
    if _masks(config):
        pieces.add("mask")
    return Written(
        ["\n".join(_class(network))],
        pieces,
        "logits, hidden = network(tokens)  # [B, T] -> [B, T, vocabulary], and [B, H] for the tokens that follow",
        "torch.zeros(2, 5, dtype=torch.int64)",
        lambda name: re.sub(r"^nodes\.(\d+)$", lambda at: f"w{int(at[1]) + 1}", name),
    )


def _masks(config: RecurrentConfig) -> bool:
    shares = (config.dropout, config.dropout_hidden, config.dropout_input, config.dropout_embedding)
    return any((*shares, config.dropout_words))


def _class(network: RecurrentNetwork) -> list[str]:
    config, cell = network.config, network.cell
    penalty = bool(config.activation_penalty or config.slowness_penalty)
    init = [
        "self.embedding = nn.Parameter(torch.empty(vocabulary, hidden))  # also the decoder's matrix",
        "self.w0 = nn.Parameter(torch.empty(2 * hidden, 2 * hidden))",
        *(
            f"self.w{number} = nn.Parameter(torch.empty(hidden, 2 * hidden))"
            for number in range(1, len(cell.nodes) + 1)
        ),
        *(["self.decoder_bias = nn.Parameter(torch.zeros(vocabulary))"] if config.decoder_bias else []),
        "for parameter in self.parameters():",
        "    if parameter.dim() > 1:",
        f"        nn.init.uniform_(parameter, -{config.init_range:g}, {config.init_range:g})",
    ]
    result = "tuple[Tensor, ...]" if penalty else "tuple[Tensor, Tensor]"
    told = ["In training the third result is a penalty to be added to the loss."] * penalty
    return [
        "class Network(nn.Module):",
        *indented(
            docstring("A language model: tied embedding, a recurrent cell of highway units, a decoder.", told), 1
        ),
        "",
        *indented(constructor(hidden=config.hidden, vocabulary=config.vocabulary), 1),
        "        super().__init__()",
        *indented(init),
        "",
        *indented(_step(network), 1),
        "",
        f"    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> {result}:",
        '        """Tokens [B, T], the state [B, H] before them -> logits [B, T, vocabulary], the state after them."""',
        *indented(_forward(config, penalty=penalty)),
    ]


def _step(network: RecurrentNetwork) -> list[str]:
    cell, dropped = network.cell, bool(network.config.dropout_hidden)
    times = " * kept" if dropped else ""
    lines = [f"s0 = highway(torch.cat((x, hidden{times}), dim=1) @ self.w0, hidden, torch.tanh)"]
    for number, (edge,) in enumerate(cell.nodes, 1):
        source = f"s{edge.source}"
        product = f"({source}{times})" if dropped else source
        lines.append(f"s{number} = highway({product} @ self.w{number}, {source}, {_ACTIVATIONS[edge.op]})")
    lines += (
        call("return torch.stack((", [f"s{state}" for state in cell.output], ")).mean(dim=0)")
        if len(cell.output) > 1
        else [f"return s{cell.output[0]}"]
    )
    kept = ", kept: Tensor | float" if dropped else ""
    more = "; `kept` masks hidden units" if dropped else ""
    return [
        f"def step(self, x: Tensor, hidden: Tensor{kept}) -> Tensor:",
        f'    """One word [B, H], and the state [B, H] before it -> the state after it{more}."""',
        *indented(lines, 1),
    ]


def _forward(config: RecurrentConfig, *, penalty: bool) -> list[str]:
    lines = ["inputs = F.embedding(tokens.t(), self.embedding)  # [T, B, H]"]
    if config.dropout_words:
        lines += [
            "if self.training:  # whole words of the vocabulary",
            f"    words = mask(inputs, (len(self.embedding), 1), {config.dropout_words:g})",
            "    inputs = inputs * F.embedding(tokens.t(), words)",
        ]
    lines += _dropped("inputs", config.dropout_embedding)
    lines += ["if hidden is None:", "    hidden = inputs.new_zeros(inputs.shape[1:])"]
    lines += _dropped("inputs", config.dropout_input)
    kept = ""
    if config.dropout_hidden:
        share = f"{config.dropout_hidden:g}"
        lines.append(f"kept = mask(hidden, hidden.shape, {share}) if self.training else 1.0")
        kept = ", kept"
    lines += [
        "states = []",
        "for x in inputs:",
        f"    hidden = self.step(x, hidden{kept})",
        "    states.append(hidden)",
        "raw = torch.stack(states)" if penalty else "outputs = torch.stack(states)",
    ]
    if penalty:
        lines.append("outputs = raw")
    lines += _dropped("outputs", config.dropout)
    bias = ", self.decoder_bias" if config.decoder_bias else ""
    lines.append(f"logits = F.linear(outputs.transpose(0, 1), self.embedding{bias})")
    if penalty:
        lines += [
            "if self.training:",
            f"    penalty = {config.activation_penalty:g} * outputs.square().mean()",
            "    if len(raw) > 1:",
            f"        penalty = penalty + {config.slowness_penalty:g} * raw.diff(dim=0).square().mean()",
            "    return logits, hidden, penalty",
        ]
    return [*lines, "return logits, hidden"]


def _dropped(name: str, share: float) -> list[str]:
    """The same units at all words of a text, in training."""
    if not share:
        return []
    return ["if self.training:", f"    {name} = {name} * mask({name}, {name}.shape[1:], {share:g})"]

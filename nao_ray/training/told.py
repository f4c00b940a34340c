"""Recipes for people: what each trains, what came of it where it was published, and who says so. Imports without torch.

Sources: the README and the code of NAO (Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233), of NAO_pytorch
(the same, and Luo, Qin, Chen, arXiv 1909.10815), DARTS (Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055), ENAS (Pham,
Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268) and enas_lm of google-research. None of the published trainings has
been run here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """What a published training came to."""

    genotype: str
    """Published name."""
    score: str
    """On the test split, of ImageNet on the validation split, which is tested there."""
    num_params: int
    """Of this network, without the auxiliary head."""


@dataclass(frozen=True, slots=True)
class Told:
    """A recipe in words."""

    what: str
    source: str = ""
    """Where the results are from; empty: there are none."""
    network: str = ""
    """Of the results: the shapes they are trained for."""
    results: tuple[Result, ...] = ()

    def command(self, name: str) -> str:
        """That runs the training of this name."""
        task = f"{self.network} --set task.path=FOLDER"
        return f"nao-ray train {self.results[0].genotype} --recipe {name} --task {task}"


_NAO, _PYTORCH, _DARTS = "README of NAO (TensorFlow)", "README of NAO_pytorch", "Liu et al., arXiv 1806.09055"
_ENAS, _ENAS_LM = "Pham et al., arXiv 1802.03268, and its code", "enas_lm of google-research"

TOLD: dict[str, Told] = {
    "paper_search": Told("children of NAO's search without shared weights; 25 of a cosine of 100 epochs"),
    "paper_shared": Told("shared weights of NAO_pytorch, V1 and V2"),
    "darts_search": Told("weights of DARTS' relaxed supernet"),
    "short": Told("children of some seconds on a CPU core"),
    "short_digits": Told("the same for handwritten digits, which are not mirrored"),
    "fast_cifar10": Told("colour images in a hundredth of the published epochs"),
    "fast_fashion": Told("the same in grey, at a small size"),
    "nao_cifar10": Told(
        "NAONet-A and NAONet-B of 36 channels on CIFAR-10",
        _PYTORCH,
        "cifar10",
        (Result("NAONet-A", "2.48 % error", 11_470_150), Result("NAONet-B", "2.93 % error", 2_921_302)),
    ),
    "nao_cifar10_128": Told(
        "NAONet-A of 128 channels on CIFAR-10",
        _PYTORCH,
        "cifar10",
        (Result("NAONet-A", "1.93 % error", 144_576_394),),
    ),
    "nao_v2_cifar10": Told(
        "NAONet-V2 of 36 channels on CIFAR-10",
        f"{_PYTORCH}; 2.60 % in arXiv 1909.10815",
        "cifar10",
        (Result("NAONet-V2", "2.57 % error", 4_387_654),),
    ),
    "nao_tf_cifar10": Told(
        "NAONet in the TensorFlow backbone, 128 channels, on CIFAR-10",
        f"{_NAO}; its checkpoint has 2.06 %",
        "cifar10",
        (Result("NAONet-TF", "2.10 % error", 145_247_882),),
    ),
    "nao_cifar100": Told(
        "the same on CIFAR-100",
        f"{_NAO}; its checkpoint has 14.81 %",
        "cifar100",
        (Result("NAONet-TF", "14.80 % error", 145_386_212),),
    ),
    "nao_ws_cifar10": Told(
        "NAONet-WS in ENAS's backbone, without cutout, on CIFAR-10",
        f"{_NAO}; 3.53 % in the paper",
        "cifar10",
        (Result("NAONet-WS-TF", "3.50 % error", 2_466_252),),
    ),
    "nao_imagenet": Told(
        "NAONet-A on ImageNet",
        _PYTORCH,
        "imagenet",
        (Result("NAONet-A", "25.7 % top-1, 8.2 % top-5 error", 11_353_831),),
    ),
    "nao_v2_imagenet": Told(
        "NAONet-V2 on ImageNet",
        _PYTORCH,
        "imagenet",
        (Result("NAONet-V2", "25.5 % top-1, 8.2 % top-5 error", 7_026_850),),
    ),
    "darts_cifar10": Told(
        "cells of DARTS, NASNet and AmoebaNet on CIFAR-10",
        f"{_DARTS}; DARTS_V1 in its version 1",
        "cifar10",
        (
            Result("DARTS_V2", "2.76 ± 0.09 % error (n = 10)", 3_349_342),
            Result("DARTS_V1", "2.83 ± 0.06 % error", 3_169_414),
            Result("NASNet", "2.83 % error (of 3.1 M, as it says: that is 32 channels)", 3_830_950),
            Result("AmoebaNet", "3.12 % error", 3_145_078),
        ),
    ),
    "darts_imagenet": Told(
        "cells of DARTS on ImageNet",
        _DARTS,
        "imagenet",
        (Result("DARTS_V2", "26.7 % top-1, 8.7 % top-5 error", 4_718_752),),
    ),
    "enas_micro_cifar10": Told(
        "ENAS's micro cells on CIFAR-10, without cutout",
        f"{_ENAS}, whose 4.6 M parameters its script does not give; 2.89 % with recipe.cutout=16",
        "cifar10",
        (Result("ENAS-micro", "3.54 % error", 3_894_372),),
    ),
    "enas_macro_cifar10": Told(
        "ENAS's macro network on CIFAR-10, without cutout",
        "what the author of ENAS's code expects of it; there separable convolutions are ordinary ones: 42,559,392",
        "cifar10",
        (Result("ENAS-macro", "about 3.9 % error", 30_947_424),),
    ),
    "nao_ptb": Told(
        "cells of NAO and NAO-WS on the Penn Treebank",
        _NAO,
        "ptb",
        (
            Result("NAO-RNN", "test perplexity 56.02", 27_295_000),
            Result("NAO-WS-RNN", "test perplexity 56.80, 56.66 in the text", 27_295_000),
        ),
    ),
    "nao_wikitext2": Told(
        "the cell of NAO on WikiText-2",
        _NAO,
        "wikitext2",
        (Result("NAO-RNN", "test perplexity 67.10", 36_067_878),),
    ),
    "nao_ws_rnn": Told("shared weights of NAO-WS on texts"),
    "darts_ptb": Told(
        "recurrent cells of DARTS on the Penn Treebank",
        _DARTS,
        "ptb",
        (
            Result("DARTS-RNN", "perplexity 58.1 valid, 55.7 test", 22_960_000),
            Result("ENAS-RNN-DARTS", "perplexity 60.8 valid, 58.6 test (of 24 M, as it says)", 27_295_000),
        ),
    ),
    "darts_wikitext2": Told(
        "recurrent cells of DARTS on WikiText-2",
        _DARTS,
        "wikitext2",
        (Result("DARTS-RNN", "perplexity 71.2 valid, 69.6 test", 33_127_878),),
    ),
    "darts_rnn_search": Told("weights of DARTS' relaxed recurrent supernet"),
    "enas_ptb": Told(
        "the cell of ENAS on the Penn Treebank, as on GPUs",
        f"{_ENAS_LM}, n = 10",
        "ptb",
        (Result("ENAS-RNN", "test perplexity 57.3 ± 0.1", 20_800_000),),
    ),
    "enas_ptb_tpu": Told(
        "the same as on TPUs: 850 units, the mean of the nodes that no other reads",
        f"{_ENAS_LM}, n = 10",
        "ptb",
        (Result("ENAS-RNN-loose-ends", "test perplexity 56.1 ± 0.1", 22_950_000),),
    ),
    "enas_rnn_search": Told("shared weights of ENAS's search on texts"),
    "short_text": Told("texts in minutes of a CPU core"),
}
"""By the recipe's name."""

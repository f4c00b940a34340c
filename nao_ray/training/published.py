"""Recipes and full trainings by name, as settings: what each has other than the defaults."""

from __future__ import annotations

from typing import Any

# The final training of NAO_pytorch V1 (README and script of NAONet-A, N = 6, F = 36).
_NAO_FINAL: dict[str, Any] = {
    "lr": 0.025,
    "cosine_epochs": None,
    "weight_decay": 3e-4,
    "dropout": 0.4,
    "drop_path_keep": 0.8,
    "cutout": 16,
    "score": "last",
}
# NAO and DARTS on ImageNet: 224x224, a rate that falls to 0.97 of itself with every epoch, nothing dropped; two codes,
# one recipe. n workers take n times the batch and n times the rate.
_IMAGENET: dict[str, Any] = {
    "batch": 128,
    "per_worker": True,
    "lr": 0.1,
    "decay": "step",
    "cosine_epochs": None,
    "rate_schedule": "epoch",
    "weight_decay": 3e-5,
    "drop_path_keep": 1.0,
    "label_smoothing": 0.1,
    "crop_padding": 0,
    "crop_area": 0.08,
    "colour_jitter": 0.4,
    "hue_jitter": 0.2,
    "score": "last",
}
# Of NAO's TensorFlow code, whose network is another too (space `nao_cnn_tf`).
_NAO_TF: dict[str, Any] = {
    **_NAO_FINAL,
    "lr": 0.024,
    "weight_decay": 5e-4,
    "drop_path_keep": 0.7,
    "standardise": "image",
    "cutout_at": "corner",
}
# What the final trainings of ENAS share: its L2 term has no factor 1/2, hence twice its 2e-4, and its clipping never
# took effect.
_ENAS_FINAL: dict[str, Any] = {
    "lr": 0.05,
    "cosine_epochs": 10,
    "restart_factor": 2,
    "nesterov": True,
    "weight_decay": 4e-4,
    "clip_norm": None,
    "score": "last",
}
# Ours: the best within a hundredth of the published epochs. One cycle, steps made orthogonal, smoothed labels, none of
# the regularisers that only pay in longer trainings. Chosen by validation, on 2,000 images.
_FAST: dict[str, Any] = {
    "batch": 64,
    "lr": 0.3,
    "decay": "linear",
    "rise": 0.2,
    "cosine_epochs": None,
    "nesterov": True,
    "orthogonal": 0.1,
    "auxiliary_weight": 0.0,
    "drop_path_keep": 1.0,
    "label_smoothing": 0.1,
    "averaging": "tail",
    "averaging_share": 0.1,
    "score": "last",
}
_ENAS_MICRO: dict[str, Any] = {**_ENAS_FINAL, "batch": 144, "lr_end": 0.0001, "dropout": 0.2, "drop_path_keep": 0.6}
IMAGE_RECIPES: dict[str, dict[str, Any]] = {
    "paper_search": {},
    # Shared weights of NAO_pytorch V1 (one cosine over the 150 epochs) and V2 (one per iteration of 50).
    "paper_shared": {
        "batch": 64,
        "lr": 0.025,
        "lr_end": 0.001,
        "cosine_epochs": None,
        "weight_decay": 3e-4,
        "auxiliary_weight": 0.0,
        "drop_path_keep": 0.9,
        "score": "last",
    },
    # Weights of DARTS' relaxed supernet (train_search.py; Liu, Simonyan, Yang, arXiv 1806.09055).
    "darts_search": {
        "batch": 64,
        "lr": 0.025,
        "lr_end": 0.001,
        "rate_schedule": "epoch",
        "cosine_epochs": None,
        "weight_decay": 3e-4,
        "auxiliary_weight": 0.0,
        "drop_path_keep": 1.0,
        "score": "last",
    },
    # Ours, for children of some seconds on a CPU core: a whole cosine within the epochs trained, a higher learning rate
    # (few steps), and none of the regularisers that only pay in longer trainings.
    "short": {
        "batch": 64,
        "lr": 0.1,
        "cosine_epochs": None,
        "warmup_epochs": 1.0,
        "nesterov": True,
        "auxiliary_weight": 0.0,
        "drop_path_keep": 1.0,
        "score": "last",
    },
    # The same for handwritten digits, which a mirror turns into none and a crop of four pixels out of eight destroys.
    "short_digits": {
        "batch": 64,
        "lr": 0.1,
        "cosine_epochs": None,
        "warmup_epochs": 1.0,
        "nesterov": True,
        "auxiliary_weight": 0.0,
        "drop_path_keep": 1.0,
        "crop_padding": 1,
        "flip": False,
        "score": "last",
    },
    "fast_cifar10": _FAST,
    "fast_fashion": _FAST,
    "nao_cifar10": _NAO_FINAL,
    # NAONet-A of F = 128, and NAONet-V2 of F = 36 (NAO_pytorch V1 and V2).
    "nao_cifar10_128": {**_NAO_FINAL, "weight_decay": 5e-4, "drop_path_keep": 0.7},
    "nao_v2_cifar10": {**_NAO_FINAL, "weight_decay": 5e-4},
    "nao_tf_cifar10": _NAO_TF,
    "nao_cifar100": {**_NAO_TF, "dropout": 0.2, "drop_path_keep": 0.6},
    "nao_imagenet": _IMAGENET,
    "nao_v2_imagenet": _IMAGENET,
    # The final training of DARTS on CIFAR-10, with `--auxiliary` and `--cutout` as published.
    "darts_cifar10": {
        "batch": 96,
        "lr": 0.025,
        "rate_schedule": "epoch",
        "cosine_epochs": None,
        "weight_decay": 3e-4,
        "drop_path_keep": 0.8,
        "drop_path_schedule": "epoch",
        "cutout": 16,
        "score": "last",
    },
    "darts_imagenet": _IMAGENET,
    "enas_micro_cifar10": _ENAS_MICRO,
    "nao_ws_cifar10": _ENAS_MICRO,  # in ENAS's code
    "enas_macro_cifar10": {
        **_ENAS_FINAL,
        "batch": 100,
        "lr_end": 0.001,
        "dropout": 0.5,
        "drop_path_keep": 1.0,
        "auxiliary_weight": 0.0,
    },
}

# The language models of NAO (Luo et al., arXiv 1808.07233, and its PyTorch code of recurrent cells): a constant rate,
# and averaged weights in the end.
_NAO_TEXT: dict[str, Any] = {
    "batch": 64,
    "lr": 20.0,
    "lr_end": 20.0,
    "cosine_epochs": None,
    "momentum": 0.0,
    "weight_decay": 8e-7,
    "clip_norm": 0.25,
    "segments": "normal",
    "dropout": 0.75,
    "dropout_hidden": 0.25,
    "dropout_input": 0.75,
    "dropout_embedding": 0.2,
    "slowness_penalty": 1e-3,
    "averaging": "nonmonotone",
    "restarts": 5,
    "score": "last",
}
# Shared weights and relaxed supernets of 300 units: weights of the last step, windows of 35 or 17.
_TEXT_SEARCH: dict[str, Any] = {
    **_NAO_TEXT,
    "batch": 256,
    "weight_decay": 5e-7,
    "segments": "halved",
    "averaging": "none",
    "restarts": 0,
}
TEXT_RECIPES: dict[str, dict[str, Any]] = {
    "nao_ptb": _NAO_TEXT,
    "nao_wikitext2": {**_NAO_TEXT, "weight_decay": 5e-7, "dropout_hidden": 0.15},
    "nao_ws_rnn": {**_TEXT_SEARCH, "lr": 0.25, "lr_end": 0.25, "clip_norm": 10.0},
    # Liu, Simonyan, Yang, arXiv 1806.09055.
    "darts_ptb": {**_NAO_TEXT, "dropout_words": 0.1},
    "darts_wikitext2": {**_NAO_TEXT, "weight_decay": 5e-7, "dropout_hidden": 0.15, "dropout_words": 0.1},
    "darts_rnn_search": _TEXT_SEARCH,
    # enas_lm of google-research, on a GPU; its decay is of the sum of squares without a factor 1/2, hence twice 8e-7.
    "enas_ptb": {
        **_NAO_TEXT,
        "weight_decay": 1.6e-6,
        "segments": "truncated",
        "dropout": 0.75,
        "dropout_hidden": 0.225,
        "dropout_input": 0.725,
        "dropout_embedding": 0.175,
        "dropout_words": 0.125,
        "activation_penalty": 0.7,
        "slowness_penalty": 0.0,
        "averaging_patience": 10,
    },
    # The same on a TPU: 200,000 steps, of which all but the first 2,000 are averaged.
    "enas_ptb_tpu": {
        **_NAO_TEXT,
        "weight_decay": 1.6e-6,
        "segments": "fixed",
        "dropout_words": 0.15,
        "slowness_penalty": 0.0,
        "averaging": "tail",
        "averaging_share": 0.99,
    },
    # Its decay is of fourth powers of some of the weights, which is as good as none.
    "enas_rnn_search": {
        **_TEXT_SEARCH,
        "batch": 128,
        "weight_decay": 0.0,
        "clip_norm": 0.1,
        "segments": "truncated",
        "dropout_words": 0.1,
        "slowness_penalty": 1.0,
    },
    # Ours, for trainings of some minutes on a CPU core: few steps, so small batches, a rate that falls to nothing, and
    # little that only pays in long trainings.
    "short_text": {
        **_NAO_TEXT,
        "batch": 20,
        "lr_end": 0.5,
        "segments": "fixed",
        "dropout": 0.2,
        "dropout_hidden": 0.0,
        "dropout_input": 0.2,
        "dropout_embedding": 0.0,
        "slowness_penalty": 0.0,
        "averaging": "none",
        "restarts": 1,
    },
}
RECIPES: dict[str, dict[str, Any]] = {**IMAGE_RECIPES, **TEXT_RECIPES}
"""What each recipe changes of the defaults of its family."""

_SMALL: dict[str, Any] = {"size": {"cells_per_stage": 1, "layers": 5, "channels": 8}, "epochs": 10, "data": "train"}
FULL_TRAININGS: dict[str, dict[str, Any]] = {
    "nao_cifar10": {"size": {"cells_per_stage": 6, "channels": 36}, "epochs": 600},
    "nao_cifar10_128": {"size": {"cells_per_stage": 6, "channels": 128}, "epochs": 600},
    "nao_v2_cifar10": {"size": {"cells_per_stage": 6, "channels": 36}, "epochs": 600},
    "nao_tf_cifar10": {"size": {"cells_per_stage": 6, "channels": 128}, "epochs": 600},
    "nao_cifar100": {"size": {"cells_per_stage": 6, "channels": 128}, "epochs": 600},
    "nao_ws_cifar10": {"size": {"cells_per_stage": 5, "channels": 36}, "epochs": 630},
    "darts_cifar10": {"size": {"layers": 20, "channels": 36}, "epochs": 600},
    "enas_micro_cifar10": {"size": {"cells_per_stage": 5, "channels": 36}, "epochs": 630},
    "enas_macro_cifar10": {"size": {"channels": 96}, "epochs": 310},
    "nao_imagenet": {"size": {"cells_per_stage": 4, "channels": 42}, "epochs": 250},
    "nao_v2_imagenet": {"size": {"cells_per_stage": 4, "channels": 52}, "epochs": 250},
    "darts_imagenet": {"size": {"layers": 14, "channels": 48}, "epochs": 250},
    "fast_cifar10": {"size": {"cells_per_stage": 6, "layers": 20, "channels": 36}, "epochs": 6},
    "fast_fashion": {"size": {"cells_per_stage": 1, "layers": 5, "channels": 16}, "epochs": 6},
    "short": _SMALL,
    "short_digits": _SMALL,
    "nao_ptb": {"size": {"hidden": 850}, "epochs": 4000, "data": "train"},
    "nao_wikitext2": {"size": {"hidden": 700}, "epochs": 2000, "data": "train"},
    "darts_ptb": {"size": {"hidden": 850}, "epochs": 8000, "data": "train"},
    "darts_wikitext2": {"size": {"hidden": 700}, "epochs": 8000, "data": "train"},
    "enas_ptb": {"size": {"hidden": 800}, "epochs": 3000, "data": "train"},
    "enas_ptb_tpu": {"size": {"hidden": 850}, "epochs": 482, "data": "train"},
    "short_text": {"size": {"hidden": 100}, "epochs": 10, "data": "train"},
}
"""By the name of their recipe, with sizes for any networks that have one of that name; `told.py` says what came of
them. The published ones of images train on all that a search may see (`data: all`); those of texts need validation, by
which averaging begins. Luo et al., arXiv 1808.07233 and 1909.10815; Liu, Simonyan, Yang, arXiv 1806.09055; Pham, Guan,
Zoph, Le, Dean, arXiv 1802.03268."""

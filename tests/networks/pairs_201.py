"""Modules of our networks of NAS-Bench-201 beside those of a naive one."""


def pairs(ours, naive, of_cell):
    """Every module with weights of both; `of_cell` gives those of a cell of ours and of its like."""
    modules = [
        (ours.stem, naive.stem[0]),
        (ours.stem_norm, naive.stem[1]),
        (ours.norm, naive.norm),
        (ours.classifier, naive.head),
    ]
    for mine, its in zip(ours.blocks, naive.blocks, strict=True):
        modules += [(mine.conv1, its[0][1]), (mine.norm1, its[0][2]), (mine.shortcut, its[2][1])]
        modules += [(mine.conv2.conv, its[1][1]), (mine.conv2.norm, its[1][2])]
    for mine, its in zip(ours.stages, naive.stages, strict=True):
        for cell, other in zip(mine, its, strict=True):
            modules += of_cell(cell, other)
    return modules

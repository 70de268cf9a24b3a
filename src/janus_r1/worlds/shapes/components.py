"""Connected components of a mask, run by run: the verifier looks at thousands of pictures a minute."""

from __future__ import annotations

import numpy as np


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """4-connected components of bool [H, W]: labels [H, W], from 1 in reading order, and how many there are."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).view(np.int8), axis=1)
    rows, begins = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    roots = _roots(rows.tolist(), begins.tolist(), ends.tolist())
    found, label = np.unique(np.array(roots, dtype=np.int64), return_inverse=True)
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[mask] = np.repeat(label + 1, ends - begins)  # a mask's pixels in reading order are its runs in order
    return labels, len(found)


def _roots(rows: list[int], begins: list[int], ends: list[int]) -> list[int]:
    """For every run of a row's pixels the first run that it hangs together with."""
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = run = parents[parents[run]]
        return run

    above = 0
    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] <= begins[run]):
            above += 1
        touching = above
        while rows[touching] == row - 1 and begins[touching] < ends[run]:
            one, other = sorted((root(touching), root(run)))
            parents[other] = one
            touching += 1
    return [root(run) for run in range(len(rows))]

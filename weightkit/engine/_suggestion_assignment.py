"""The best assignment of a small matrix of scores, and by how much it beats the best one without a given pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_LARGEST_EXACT = 420
"""Up to so many open rows all alternatives are weighed; above it exchanges of two, and one left out, only."""
_LARGEST_SOLVED = 1_000_000
"""Above so many pairs of one shape only those are paired that are each other's best."""
_CLEAR = 8.0
"""A row that no exchange of less touches is decided."""
_MOST_NEAR = 50


def assign(scores: np.ndarray, rivals_within: float) -> tuple[list[int], list[float], list[list[int]]]:
    """For each row its column or -1, the margin of that choice, and the columns it could have had for little more.

    ``scores`` ``(rows, columns)``: what a pair adds; a row or column left alone adds 0. The margin of a row is how much
    the best assignment loses when that row must choose otherwise. The third list holds per row all choices of
    assignments within ``rivals_within`` of the best, its own first; -1 is being left alone.
    """
    import numpy as np

    rows, columns = scores.shape
    if rows * columns > _LARGEST_SOLVED:
        return _best_of_each(scores, rivals_within)
    size = rows + columns
    cost = np.zeros((size, size))
    cost[:rows, :columns] = -scores
    chosen, row_price, column_price = _shortest_paths(cost)
    reduced = np.maximum(cost - row_price[:, None] - column_price[None, :], 0.0)
    exchange = reduced[:, chosen]
    np.fill_diagonal(exchange, np.inf)
    open_ = np.flatnonzero((exchange.min(axis=1) < _CLEAR) & (exchange.min(axis=0) < _CLEAR))
    np.fill_diagonal(exchange, 0.0)
    back = _short_distances(exchange, rows)
    if len(open_) <= _LARGEST_EXACT:  # no way of less than _CLEAR leads over the others
        inner = np.ix_(open_, open_)
        back[inner] = _distances(exchange[inner].copy())
    cycle = exchange + back.T
    # being left alone is one choice, whichever of the equal spare rows and columns stands for it
    alone_row, alone_column = np.arange(size) >= rows, chosen >= columns
    cycle[np.ix_(alone_column, alone_column)] = np.inf
    cycle[alone_row] = np.inf
    np.fill_diagonal(cycle, np.inf)
    margins = cycle.min(axis=1)
    options = []
    for row in range(rows):
        own = int(chosen[row])
        near = np.flatnonzero(cycle[row] < rivals_within)
        ranked = near[np.argsort(cycle[row, near], kind="stable")]
        found = [own if own < columns else -1]
        found += [int(chosen[k]) if chosen[k] < columns else -1 for k in ranked]
        options.append(list(dict.fromkeys(found)))
    result = [int(column) if column < columns else -1 for column in chosen[:rows]]
    return result, [float(margin) for margin in margins[:rows]], options


def _best_of_each(scores: np.ndarray, rivals_within: float) -> tuple[list[int], list[float], list[list[int]]]:
    """`assign` for very many: the margin is by how much a pair beats the other choices of its row and its column."""
    import numpy as np

    best = scores.argmax(axis=1)
    result, margins, options = [], [], []
    first_of_column = scores.argmax(axis=0)
    two_of_column = np.partition(scores, -2, axis=0)[-2:] if len(scores) > 1 else np.vstack([scores - np.inf, scores])
    for row, column in enumerate(best):
        line = scores[row]
        top = line[column]
        near = np.flatnonzero(line > top - rivals_within)[:_MOST_NEAR]
        second = np.partition(line, -2)[-2] if len(line) > 1 else -np.inf
        mine = first_of_column[column] == row and top > 0
        rival = two_of_column[0, column]
        margins.append(float(min(top, top - second, top - rival)) if mine else 0.0)
        result.append(int(column) if mine else -1)
        options.append(list(dict.fromkeys([int(column), *map(int, near)])))
    return result, margins, options


def _shortest_paths(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cheapest perfect matching and the prices that prove it. Kuhn 1955, in the form of Jonker & Volgenant 1987."""
    import numpy as np

    size = len(cost)
    row_price = np.zeros(size + 1)
    column_price = np.zeros(size + 1)
    owner = np.full(size + 1, size)
    for row in range(size):
        owner[size] = row
        column = size
        least = np.full(size, np.inf)
        way = np.full(size, size)
        done = np.zeros(size + 1, bool)
        while owner[column] != size or column == size:
            done[column] = True
            current = owner[column]
            open_ = ~done[:size]
            offered = cost[current] - row_price[current] - column_price[:size]
            better = open_ & (offered < least)
            least[better] = offered[better]
            way[better] = column
            waiting = np.where(open_, least, np.inf)
            step = waiting.min()
            ties = np.flatnonzero(waiting <= step + 1e-12)
            free = ties[owner[ties] == size]
            following = int(free[0] if len(free) else ties[0])
            row_price[owner[done]] += step
            column_price[done] -= step
            least[open_] -= step
            column = following
        while column != size:
            before = int(way[column])
            owner[column] = owner[before]
            column = before
        owner[size] = size
    chosen = np.empty(size, int)
    chosen[owner[:size]] = np.arange(size)
    return chosen, row_price[:size], column_price[:size]


def _distances(length: np.ndarray) -> np.ndarray:
    """The shortest way between every two nodes. Floyd 1962."""
    import numpy as np

    for middle in range(len(length)):
        np.minimum(length, length[:, middle, None] + length[None, middle, :], out=length)
    return length


def _short_distances(length: np.ndarray, rows: int) -> np.ndarray:
    """The shortest way of one step, or of two by way of a spare row."""
    import numpy as np

    found = length.copy()
    by_spare = length[:, rows:].min(axis=1)
    from_spare = length[rows:].min(axis=0)
    result: np.ndarray = np.minimum(found, by_spare[:, None] + from_spare[None, :])
    return result

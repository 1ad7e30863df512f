"""Kernel regression: scikit-learn's kernel ridge, its Nyström approximation, and the whole solved densely at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import KernelCenterer

from hist2scrna.fitting.closed_form import kernel as regressions
from hist2scrna.fitting.closed_form.donors import Donors
from hist2scrna.fitting.closed_form.kernel import PENALTIES, Space, regress, to_kernel_space

pytestmark = pytest.mark.numeric


@dataclass
class Dense:
    """Tables that are held whole: of spots and, unless they are seen otherwise, of these as one to predict is seen."""

    spaces: list[Space]
    tables: list[np.ndarray]
    others: list[np.ndarray] | None = None

    @property
    def one_look(self) -> bool:
        return self.others is None

    def spots(self, rows: np.ndarray) -> list[np.ndarray]:
        return [table[rows] for table in self.tables]

    def seen(self, rows: np.ndarray) -> list[np.ndarray]:
        return [table[rows] for table in (self.tables if self.others is None else self.others)]


@pytest.fixture
def regression() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4))
    y = np.stack([np.sin(x[:, 0]) + 0.3 * rng.normal(size=90), x[:, 1] * x[:, 2], rng.normal(size=90)], axis=1) + 5
    return x, y, np.repeat(np.arange(3), 30)


ONE_DONOR = Donors(np.zeros(90, dtype=np.int64))


def test_with_every_spot_a_landmark_it_is_kernel_ridge(regression) -> None:
    x, y, group = regression
    kernel = np.exp(-0.2 * np.square(x[:, None] - x).sum(axis=2))
    solved = regress(Dense([Space("dual", True, to_kernel_space(kernel))], [kernel]), y, group, ONE_DONOR)
    centered, mean = KernelCenterer().fit_transform(kernel), y.mean(axis=0)
    for i, penalty in enumerate(np.array(PENALTIES)[solved.chosen[0]]):
        theirs = KernelRidge(alpha=penalty, kernel="precomputed").fit(centered, y[:, i] - mean[i])
        mine = kernel @ solved.weights[0][:, i] + solved.offset[i]
        np.testing.assert_allclose(mine, theirs.predict(centered) + mean[i], atol=1e-5)
        errors = []
        for number, candidate in enumerate(PENALTIES):
            left_out = np.empty(len(y))
            for rest, left in GroupKFold(3).split(x, groups=group):
                own = KernelRidge(alpha=candidate, kernel="precomputed")
                own.fit(centered[np.ix_(rest, rest)], y[rest, i] - y[rest, i].mean())
                left_out[left] = own.predict(centered[np.ix_(left, rest)]) + y[rest, i].mean()
            errors.append(np.square(left_out - y[:, i]).mean())
            # The level of the donor is known.
            left_out += mean[i] - left_out.mean()
            assert solved.error[number, i] == pytest.approx(np.square(left_out - y[:, i]).mean(), abs=1e-5)
            if candidate == penalty:
                np.testing.assert_allclose(solved.left_out[:, i], left_out, atol=1e-5)
        # Two penalties may be equally good up to rounding.
        assert errors[list(PENALTIES).index(penalty)] <= min(errors) * (1 + 1e-5)
    # Noise is shrunk further than any signal.
    assert solved.chosen[0, 2] > solved.chosen[0, :2].max() + 1


def test_with_fewer_landmarks_it_is_nystroem(regression) -> None:
    x, y, group = regression
    theirs = Nystroem(gamma=0.2, n_components=20, random_state=0).fit(x)
    kernel = np.exp(-0.2 * np.square(x[:, None] - theirs.components_).sum(axis=2))
    to_space = to_kernel_space(kernel[theirs.component_indices_])
    solved = regress(Dense([Space("dual", True, to_space)], [kernel]), y, group, ONE_DONOR)
    for i, penalty in enumerate(np.array(PENALTIES)[solved.chosen[0]]):
        # With an intercept, which centers rows and targets.
        ridge = Ridge(penalty).fit(theirs.transform(x), y[:, i])
        mine = kernel @ solved.weights[0][:, i] + solved.offset[i]
        np.testing.assert_allclose(mine, ridge.predict(theirs.transform(x)), atol=1e-4)


def solved_at_once(tables, others, spaces, targets, group, donors):
    """The same regressions, every table and every prediction held whole: left out, error by penalty, weights."""
    level, within = donors.means(targets), donors.centered(targets)
    depth = sum(space.of_depth for space in spaces)
    left_out, tried, fitted = level[donors.code], np.tile(level[donors.code], (len(PENALTIES), 1, 1)), []
    for table, other, space in zip(tables, others, spaces, strict=True):
        share = np.full(targets.shape[1], 1 / len(spaces))
        share[0] = space.of_depth / depth
        z, seen = donors.centered(space.of(table)), donors.centered(space.of(other))
        own = np.empty((len(PENALTIES), *targets.shape))
        for rest, left in GroupKFold(min(5, len(np.unique(group)))).split(z, groups=group):
            for number, penalty in enumerate(PENALTIES):
                gram = z[rest].T @ z[rest] + penalty * np.eye(z.shape[1])
                weights = np.linalg.solve(gram, z[rest].T @ (within[rest] - within[rest].mean(axis=0)))
                own[number, left] = seen[left] @ weights + within[rest].mean(axis=0)
        chosen = np.square(own - within).mean(axis=1).argmin(axis=0)
        own = np.stack([donors.centered(each) for each in own])
        left_out = left_out + share * own[chosen, :, np.arange(targets.shape[1])].T
        tried += share * own
        penalty = np.array(PENALTIES)[chosen]
        columns = [
            np.linalg.solve(z.T @ z + p * np.eye(z.shape[1]), z.T @ y) for p, y in zip(penalty, within.T, strict=True)
        ]
        fitted.append(space.weights(np.stack(columns, axis=1)) * share)
    return left_out, np.square(tried - targets).mean(axis=1), fitted


@pytest.mark.parametrize("looks", [1, 2])
def test_in_blocks_of_rows_it_is_what_is_solved_at_once(monkeypatch, looks) -> None:
    monkeypatch.setattr(regressions, "ROWS", 7)
    rng = np.random.default_rng(0)
    n, n_donors = 150, 3
    code = rng.permutation(np.repeat([0, 1, 3], n // n_donors))
    donors = Donors(code)
    x = rng.normal(size=(n, 5)) + code[:, None]
    y = np.stack([x[:, 0], np.sin(x[:, 1]), x[:, 2] + rng.normal(size=n)], axis=1) + 2.0 * code[:, None]
    # Sections, of which a donor has several; more than are left out one by one.
    group = 10 * code + rng.integers(0, 3, n)
    landmarks = x[:40]
    kernels, lines = [], []
    for seen in (x, x + 0.2 * rng.normal(size=x.shape))[:looks]:
        kernels.append(np.exp(-0.1 * np.square(seen[:, None] - landmarks).sum(axis=2)))
        lines.append(seen)
    spaces = [Space("dual", False, to_kernel_space(kernels[0][:40])), Space("slopes", True, 0.3)]
    tables, others = [kernels[0], lines[0]], [kernels[-1], lines[-1]]
    mine = regress(Dense(spaces, tables, others if looks > 1 else None), y, group, donors)
    left_out, error, weights = solved_at_once(tables, others, spaces, y, group, donors)
    np.testing.assert_allclose(mine.left_out, left_out, atol=1e-6)
    np.testing.assert_allclose(mine.error, error, rtol=1e-6)
    for table, own, theirs in zip(tables, mine.weights, weights, strict=True):
        np.testing.assert_allclose(table @ own, table @ theirs, atol=1e-6)
    # Depth is not from the kernel; each donor is at its level.
    assert not mine.weights[0][:, 0].any()
    predicted = sum(table @ own for table, own in zip(tables, mine.weights, strict=True)) + mine.offset
    present = np.array([0, 1, 3])
    np.testing.assert_allclose(donors.means(predicted)[present].mean(axis=0), donors.means(y)[present].mean(axis=0))

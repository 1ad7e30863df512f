"""Kernel regression: scikit-learn's kernel ridge with every spot a landmark, its Nyström approximation with fewer."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict

from hist2scrna.fitting.closed_form.kernel import PENALTIES, regress, to_kernel_space

pytestmark = pytest.mark.numeric


@pytest.fixture
def regression() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4))
    y = np.stack([np.sin(x[:, 0]) + 0.3 * rng.normal(size=90), x[:, 1] * x[:, 2], rng.normal(size=90)], axis=1) + 5
    return x, y, np.repeat(np.arange(3), 30)


def test_with_every_spot_a_landmark_it_is_kernel_ridge(regression) -> None:
    x, y, group = regression
    kernel = np.exp(-0.2 * np.square(x[:, None] - x).sum(axis=2))
    to_space = to_kernel_space(kernel)
    solved = regress(kernel @ to_space, kernel @ to_space, y, group)
    penalties = np.array(PENALTIES)[solved.chosen]
    dual = to_space @ solved.weights
    for i, penalty in enumerate(penalties):
        center = y[:, i].mean()
        theirs = KernelRidge(alpha=penalty, kernel="precomputed").fit(kernel, y[:, i] - center)
        np.testing.assert_allclose(kernel @ dual[:, i], theirs.predict(kernel), atol=1e-5)
        assert solved.offset[i] == pytest.approx(center)
        errors = []
        for candidate in PENALTIES:
            left_out = np.empty(len(y))
            for rest, left in GroupKFold(3).split(x, groups=group):
                own = KernelRidge(alpha=candidate, kernel="rbf", gamma=0.2)
                own.fit(x[rest], y[rest, i] - y[rest, i].mean())
                left_out[left] = own.predict(x[left]) + y[rest, i].mean()
            errors.append(np.square(left_out - y[:, i]).mean())
            np.testing.assert_allclose(solved.left_out[len(errors) - 1, :, i], left_out, atol=1e-5)
            if candidate == penalty:
                np.testing.assert_allclose(solved.best_left_out[:, i], left_out, atol=1e-5)
        # Two penalties may be equally good up to rounding.
        assert errors[list(PENALTIES).index(penalty)] <= min(errors) * (1 + 1e-5)
    # Noise is shrunk further than any signal.
    assert penalties[2] > 10 * penalties[:2].max()


def test_with_fewer_landmarks_it_is_nystroem(regression) -> None:
    x, y, group = regression
    theirs = Nystroem(gamma=0.2, n_components=20, random_state=0).fit(x)
    kernel = np.exp(-0.2 * np.square(x[:, None] - theirs.components_).sum(axis=2))
    to_space = to_kernel_space(kernel[theirs.component_indices_])
    solved = regress(kernel @ to_space, kernel @ to_space, y, group)
    for i, penalty in enumerate(np.array(PENALTIES)[solved.chosen]):
        ridge = Ridge(penalty, fit_intercept=False)
        left_out = cross_val_predict(
            ridge, theirs.transform(x), y[:, i] - y[:, i].mean(), groups=group, cv=GroupKFold(3)
        )
        ridge.fit(theirs.transform(x), y[:, i] - y[:, i].mean())
        np.testing.assert_allclose(
            kernel @ to_space @ solved.weights[:, i], ridge.predict(theirs.transform(x)), atol=1e-4
        )
        assert np.corrcoef(left_out, solved.best_left_out[:, i])[0, 1] > 0.99 or i == 2

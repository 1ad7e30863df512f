from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mean_poisson_deviance

from hist2scrna.zinb import NB, ZINB, Poisson

pytestmark = pytest.mark.numeric

EDGE = float(np.log(1e8))
LOGS = st.floats(-EDGE, EDGE)
LOGITS = st.floats(-50, 50)
MODERATE = st.floats(-3, 5)
PARAMETERS = {
    "poisson": (Poisson, (7.5,)),
    "nb": (NB, (7.5, 1.3)),
    "nb-heavy": (NB, (3.0, 0.2)),
    "zinb": (ZINB, (7.5, 1.3, 0.4)),
    "zinb-sparse": (ZINB, (0.3, 5.0, 0.9)),
}
any_distribution = pytest.mark.parametrize(("cls", "natural"), PARAMETERS.values(), ids=PARAMETERS)


def made(cls, natural):
    return cls.from_parameters(*(np.float64(value) for value in natural))


def doubles(*values, grad=False):
    return [torch.tensor(value, dtype=torch.float64, requires_grad=grad) for value in values]


def exact(x, log_mu, log_theta=None, logits=None):
    """The defining formulas at 60 digits."""
    mu = mpmath.exp(log_mu)
    if log_theta is None:
        return x * log_mu - mu - mpmath.loggamma(x + 1)
    theta = mpmath.exp(log_theta)
    value = mpmath.loggamma(x + theta) - mpmath.loggamma(theta) - mpmath.loggamma(x + 1)
    value += theta * mpmath.log(theta / (theta + mu)) + x * mpmath.log(mu / (theta + mu))
    if logits is None:
        return value
    dropout, present = 1 / (1 + mpmath.exp(-logits)), 1 / (1 + mpmath.exp(logits))
    return mpmath.log(present) + value if x else mpmath.log(dropout + present * mpmath.exp(value))


@st.composite
def cases(draw):
    """Counts of zero, near the mean, or anywhere up to 1e6, with parameters over the whole range."""
    log_mu, log_theta, logits = draw(LOGS), draw(LOGS), draw(LOGITS)
    near = int(min(np.exp(log_mu) * draw(st.floats(0, 3)), 1e6))
    return draw(st.sampled_from([0, near, draw(st.integers(0, 10**6))])), (log_mu, log_theta, logits)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(cases(), st.sampled_from([(Poisson, 1), (NB, 2), (ZINB, 3)]))
@example((0, (-EDGE, 0.7, 0.3)), (ZINB, 3))  # log P(0) is tiny, yet the sum of two terms near log(1/2)
def test_values_and_gradients_are_those_of_the_formula_over_the_whole_range(case, kind):
    (x, values), (cls, n) = case, kind
    parameters = doubles(*values[:n], grad=True)
    log_prob = cls(*parameters).log_prob(x)
    log_prob.backward()
    with mpmath.workdps(60):
        truth = [mpmath.mpf(value) for value in values[:n]]
        assert log_prob.item() == pytest.approx(float(exact(x, *truth)), rel=1e-9, abs=1e-300)
        for i, parameter in enumerate(parameters):
            slope = mpmath.diff(lambda v, i=i: exact(x, *truth[:i], v, *truth[i + 1 :]), truth[i])
            assert parameter.grad.item() == pytest.approx(float(slope), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_is_finite_and_float32_is_accurate_at_the_edges_and_within(dtype):
    logs = torch.linspace(-EDGE, EDGE, 25).tolist() + [0.0, float(np.log(1e3)), float(np.log(1e7))]
    x = torch.tensor([0.0, 1, 2, 7, 8, 9, 50, 1e3, 999_000, 1e6])
    grid = torch.cartesian_prod(x, *[torch.tensor(logs)] * 2, torch.tensor([-50.0, -5, 0, 5, 50])).to(dtype)
    # Counts about the mean, where the terms of the naive formula cancel most.
    near = grid.clone()
    near[:, 0] = (near[:, 1].exp() * (1 + 0.01 * near[:, 3])).clamp(0, 1e6).floor()
    x, *parameters = torch.cat([grid, near]).T.contiguous()
    for cls, n in ((Poisson, 1), (NB, 2), (ZINB, 3)):
        leaves = [parameter.clone().requires_grad_() for parameter in parameters[:n]]
        wide = [parameter.double() for parameter in parameters[:n]]
        log_prob = cls(*leaves).log_prob(x)
        log_prob.sum().backward()
        assert log_prob.dtype == dtype
        assert log_prob.isfinite().all()
        assert all(leaf.grad.isfinite().all() for leaf in leaves)
        assert (cls(x.clamp(min=1).log(), *leaves[1:]).deviance(x) >= 0).all()
        truth = cls(*wide).log_prob(x)
        assert ((log_prob - truth).abs() / truth.abs().clamp(min=1)).max() < 2e-5
        deviance = cls(*leaves).deviance(x)
        assert (deviance >= 0).all()
        assert deviance.isfinite().all()


@pytest.mark.parametrize("theta", [1e3, 1e7])
def test_float32_at_large_theta_where_the_closed_form_fails(theta):
    x, mu = np.array([0, 3, 40, 55, 70]), 50.0
    truth = stats.nbinom.logpmf(x, theta, theta / (theta + mu))
    found = NB.from_parameters(torch.tensor(mu), torch.tensor(theta)).log_prob(x)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, truth, rtol=2e-6)


def test_grid_agrees_with_scipy_in_float64():
    x = np.arange(0, 60)[:, None, None, None]
    mu, theta = np.array([1e-3, 0.1, 1, 20, 1e3])[:, None, None], np.array([0.05, 1, 30, 1e4])[:, None]
    dropout = np.array([1e-6, 0.3, 0.99])
    nb = stats.nbinom.logpmf(x, theta, theta / (theta + mu))
    with np.errstate(divide="ignore"):
        inflated = np.logaddexp(np.log1p(-dropout) + nb, np.where(x == 0, np.log(dropout), -np.inf))
    zinb = ZINB.from_parameters(mu, theta, dropout)
    assert zinb.shape == (5, 4, 3)
    # SciPy subtracts logarithms of gamma functions of up to 8e4, each rounded.
    lost = 4 * np.spacing(8e4)
    np.testing.assert_allclose(zinb.log_prob(x), inflated, rtol=1e-9, atol=lost)
    np.testing.assert_allclose(NB.from_parameters(mu, theta).log_prob(x), nb, rtol=1e-9, atol=lost)
    np.testing.assert_allclose(Poisson.from_parameters(mu).log_prob(x), stats.poisson.logpmf(x, mu), rtol=1e-9)
    np.testing.assert_allclose(zinb.p_zero, np.exp(inflated[0]), rtol=1e-9)


@any_distribution
def test_probabilities_sum_to_one_and_moments_are_those_of_the_sums(cls, natural):
    distribution, x = made(cls, natural), np.arange(2000)
    p = distribution.log_prob(x).exp().numpy()
    mean = (x * p).sum()
    assert p.sum() == pytest.approx(1, abs=1e-10)
    assert distribution.mean.item() == pytest.approx(mean, rel=1e-9)
    assert distribution.variance.item() == pytest.approx(((x - mean) ** 2 * p).sum(), rel=1e-9)
    assert distribution.p_zero.item() == pytest.approx(p[0], rel=1e-12)
    np.testing.assert_allclose(distribution.cdf(x), np.cumsum(p), rtol=1e-10)
    assert distribution.cdf(-0.5) == 0
    assert distribution.cdf(3.7) == distribution.cdf(3)


SCALES = np.array([0, 1e-3, 0.4, 7.0, 1e6])


@any_distribution
def test_expected_log_is_the_sum_over_all_counts(cls, natural, expected_log):
    mu, *rest = natural
    theta, dropout = rest[0] if rest else None, rest[1] if len(rest) > 1 else 0.0
    truth = [expected_log(scale, mu, theta, dropout) for scale in SCALES]
    np.testing.assert_allclose(made(cls, natural).expected_log1p(SCALES), truth, rtol=1e-6)
    narrow = cls.from_parameters(*natural).expected_log1p(torch.tensor(SCALES))
    assert narrow.dtype == torch.float32
    np.testing.assert_allclose(narrow, truth, rtol=2e-6)


def test_expected_log_of_tables_of_spots_and_genes(expected_log):
    rng = np.random.default_rng(0)
    mu, theta, dropout = rng.gamma(0.5, 20, (6, 4)), rng.gamma(1, 2, 4) + 0.2, rng.random((6, 4))
    scale = 1e4 / rng.gamma(2, 100, (6, 1))
    found = ZINB.from_parameters(mu, theta, dropout).expected_log1p(scale)
    np.testing.assert_allclose(found, expected_log(scale, mu, theta, dropout), rtol=1e-6)
    assert ZINB.from_parameters(0.5, theta, dropout).expected_log1p(3.0).shape == (6, 4)
    assert NB.from_parameters(mu[:0], theta).expected_log1p(scale[:0]).shape == (0, 4)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(LOGS, LOGS, LOGS, st.booleans())
@example(EDGE, EDGE, -EDGE, True)  # nearly all zeros, the others huge
@example(-EDGE, -EDGE, EDGE, True)
def test_expected_log_is_exact_over_the_whole_range(log_scale, log_mu, log_theta, is_poisson):
    """The same integral, by adaptive Gauss-Legendre quadrature at 20 digits."""
    with mpmath.workdps(20):
        scale, mu, theta = (mpmath.exp(value) for value in (log_scale, log_mu, log_theta))

        def integrand(u):
            exponent = -mu * mpmath.expm1(-scale * mpmath.exp(u))
            exponent = exponent if is_poisson else theta * mpmath.log1p(exponent / theta)
            return -mpmath.expm1(-exponent) * mpmath.exp(-mpmath.exp(u))

        ends = np.linspace(-75 - 2 * EDGE, 4, 40).tolist()
        truth = float(mpmath.quad(integrand, ends, maxdegree=5))
    for dtype, rtol in ((torch.float64, 1e-6), (torch.float32, 3e-6)):
        logs = [torch.tensor(value, dtype=dtype) for value in (log_mu, log_theta)]
        found = (Poisson(logs[0]) if is_poisson else NB(*logs)).expected_log1p(
            torch.tensor(log_scale, dtype=dtype).exp()
        )
        assert found.item() == pytest.approx(truth, rel=rtol)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(LOGS, LOGS, LOGS, LOGITS)
def test_expected_log_rises_with_the_mean_and_stays_below_the_log_of_the_mean(log_scale, log_mu, log_theta, logits):
    def expected(log_mu):
        return ZINB(*doubles(log_mu, log_theta, logits)).expected_log1p(scale).item()

    scale, mean = np.exp(log_scale), ZINB(*doubles(log_mu, log_theta, logits)).mean.item()
    assert 0 < expected(log_mu) <= np.log1p(scale * mean) * (1 + 1e-6)  # Jensen's inequality
    assert expected(log_mu + 0.01) > expected(log_mu) * (1 - 1e-6)
    assert expected(log_mu + 3) > expected(log_mu)


def test_limits_of_the_expected_log():
    nothing = ZINB.from_parameters(np.float64(7.0), 2.0, 1.0).expected_log1p(3.0)
    assert nothing.item() == 0
    assert made(NB, (7.0, 2.0)).expected_log1p(0.0).item() == 0
    for scale in (1e-3, 5.0):
        limit = made(Poisson, (7.0,)).expected_log1p(scale).item()
        assert made(NB, (7.0, 1e8)).expected_log1p(scale).item() == pytest.approx(limit, rel=1e-6)
        # Counts that hardly vary have the logarithm of their mean.
        many = made(Poisson, (1e8,)).expected_log1p(scale / 1e8).item()
        assert many == pytest.approx(np.log1p(scale), rel=1e-6)
    lost = Poisson(torch.tensor([0.0, np.nan])).expected_log1p(1.0)
    assert lost.isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="scale must be finite and not negative. Found -1.0 to 2.0"):
        Poisson(0.0).expected_log1p(np.array([2.0, -1.0]))


def test_parameters_are_given_back_in_natural_units():
    # Python floats take the width of the arrays that they meet, with all their digits.
    zinb = ZINB.from_parameters(np.float64(7.5), 1.3, 0.4)
    assert zinb.quantile(0.7).dtype == torch.float64
    assert [value.item() for value in (zinb.mu, zinb.theta, zinb.dropout)] == pytest.approx([7.5, 1.3, 0.4], rel=1e-14)
    poisson = made(Poisson, (7.5,))
    assert [value.item() for value in (poisson.mu, poisson.theta, poisson.dropout)] == pytest.approx([7.5, np.inf, 0])


@pytest.mark.parametrize(
    ("mu", "theta", "k"), [(1e8, 1e-8, 0), (1e3, 1e8, 850), (50, 1e8, 20), (1e6, 1, 10), (1e-8, 1, 1)]
)
def test_cdf_at_the_extremes(mu, theta, k):
    with mpmath.workdps(40):
        logs = mpmath.log(mu), mpmath.log(theta)
        truth = float(sum(mpmath.exp(exact(x, *logs)) for x in range(k + 1)))
    assert made(NB, (mu, theta)).cdf(k).item() == pytest.approx(truth, rel=1e-9)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(0, 1), MODERATE, MODERATE, MODERATE, st.sampled_from([1, 2, 3]), st.booleans())
def test_quantile_is_the_inverse_of_the_cdf(q, log_mu, log_theta, logits, n, is_wide):
    dtype = torch.float64 if is_wide else torch.float32
    parameters = torch.tensor([log_mu, log_theta, logits], dtype=dtype)[:n]
    distribution = (Poisson, NB, ZINB)[n - 1](*parameters)
    k, level = distribution.quantile(q), torch.tensor(q, dtype=dtype)
    assert k == k.floor().clamp(min=0)
    assert distribution.cdf(k) >= level
    assert k == 0 or distribution.cdf(k - 1) < level


def test_quantile_agrees_with_scipy_and_keeps_the_broadcast_shape():
    q, mu, theta = (
        np.array([0.025, 0.1, 0.5, 0.9, 0.999])[:, None, None],
        np.array([0.2, 5, 3e4])[:, None],
        np.array([0.3, 40]),
    )
    found = NB.from_parameters(mu, theta).quantile(q)
    np.testing.assert_array_equal(found, stats.nbinom.ppf(q, theta, theta / (theta + mu)))
    np.testing.assert_array_equal(Poisson.from_parameters(mu).quantile(q), stats.poisson.ppf(q, mu))
    assert made(ZINB, (5.0, 1.0, 1.0)).quantile([0.0, 0.5, 1.0]).tolist() == [0, 0, 0]
    assert NB(torch.tensor([0.0, torch.nan]), torch.tensor(0.0)).quantile(0.5).isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match=r"q must lie in \[0, 1\], found -0.5"):
        made(Poisson, (2.0,)).quantile([-0.5, 0.5])


@any_distribution
def test_samples_have_the_moments_and_the_zeros_of_the_distribution(cls, natural):
    distribution, n = made(cls, natural), 200_000
    x = distribution.sample(torch.Generator().manual_seed(1), (n,))
    p = distribution.log_prob(np.arange(4000)).exp()
    fourth = (p * (torch.arange(4000) - distribution.mean) ** 4).sum()
    variance, p_zero = distribution.variance, distribution.p_zero
    assert x.dtype == torch.float64
    assert torch.equal(x, x.floor())
    assert abs(x.mean() - distribution.mean) < 4 * (variance / n).sqrt()
    assert abs(x.var() - variance) < 4 * ((fourth - variance**2) / n).sqrt()
    assert abs((x == 0).double().mean() - p_zero) < 4 * (p_zero * (1 - p_zero) / n).sqrt()


def test_samples_follow_the_generator_and_stay_finite_in_float32():
    logs = torch.linspace(-EDGE, EDGE, 9)
    zinb = ZINB(logs[:, None], logs, torch.tensor(0.0))
    x, again, other = (zinb.sample(torch.Generator().manual_seed(seed), (50,)) for seed in (3, 3, 4))
    assert (x.shape, x.dtype) == ((50, 9, 9), torch.float32)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert ((x >= 0) & x.isfinite()).all()
    largest = Poisson(logs[-1:]).sample(torch.Generator().manual_seed(3), (20_000,))
    assert largest.double().var().item() == pytest.approx(1e8, rel=0.05)


def test_limits():
    x, mu = torch.arange(40), torch.tensor([0.3, 4.0, 25.0], dtype=torch.float64)[:, None].log()
    poisson, nb, steep = Poisson(mu), NB(mu, 0.7), NB(mu, np.log(1e12))
    torch.testing.assert_close(steep.log_prob(x), poisson.log_prob(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ZINB(mu, 0.7, -60.0).log_prob(x), nb.log_prob(x), rtol=1e-12, atol=0)
    certain = ZINB.from_parameters(mu.exp(), np.exp(0.7), 0.0)
    torch.testing.assert_close(certain.log_prob(x), nb.log_prob(x), rtol=1e-12, atol=0)
    assert (certain.dropout == 0).all()
    empty = ZINB.from_parameters(mu.exp(), 1.0, 1.0)
    assert (empty.p_zero == 1).all()
    assert (empty.mean == 0).all()
    assert empty.log_prob(x).isfinite().all()
    assert (empty.sample(sample_shape=(20,)) == 0).all()


def test_deviance_of_poisson_and_nb_is_the_textbook_one():
    families = pytest.importorskip("statsmodels.genmod.families")
    rng = np.random.default_rng(0)
    x, mu, theta = rng.poisson(6, 500) * rng.integers(0, 2, 500), rng.gamma(2, 3, 500), 2.5
    poisson = Poisson.from_parameters(mu).deviance(x)
    assert poisson.mean().item() == pytest.approx(mean_poisson_deviance(x, mu), rel=1e-12)
    nb = NB.from_parameters(mu, theta).deviance(x)
    assert nb.sum().item() == pytest.approx(families.NegativeBinomial(alpha=1 / theta).deviance(x, mu), rel=1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 300), MODERATE, MODERATE, st.floats(-20, 20))
def test_deviance_of_zinb_is_that_from_the_best_mean_and_dropout(x, log_mu, log_theta, logits):
    parameters = doubles(log_mu, log_theta, logits)
    theta = np.exp(log_theta)
    best = stats.nbinom.logpmf(x, theta, theta / (theta + x)) if x else 0.0
    zinb = ZINB(*parameters)
    assert zinb.deviance(x).item() == pytest.approx(2 * (best - zinb.log_prob(x).item()), rel=1e-7, abs=1e-7)
    assert zinb.deviance(x) >= 0
    if x:
        perfect = ZINB.from_parameters(np.float64(x), theta, 0.0)
        assert perfect.deviance(x).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("method", ["log_prob", "deviance", "expected_log1p"])
def test_autocast_and_half_precision_change_nothing(method):
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(shape, generator=generator) for shape in ((8, 5), (5,), (8, 5))]
    x = torch.randint(0, 6, (8, 5), generator=generator)
    plain = getattr(ZINB(*parameters), method)(x)
    assert plain.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(getattr(ZINB(*parameters), method)(x), plain)
    halves = [parameter.bfloat16() for parameter in parameters]
    raised = getattr(ZINB(*(half.float() for half in halves)), method)(x)
    assert torch.equal(getattr(ZINB(*halves), method)(x), raised)


@pytest.mark.parametrize("method", ["log_prob", "deviance", "expected_log1p"])
def test_gradients_are_summed_over_broadcast_dimensions_and_pass_gradcheck(method):
    x = torch.tensor([[0.0, 3.0, 1.0], [12.0, 0.0, 40.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 1), (3,), ())
    parameters = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    for cls, n in ((Poisson, 1), (NB, 2), (ZINB, 3)):
        assert torch.autograd.gradcheck(lambda *p, cls=cls: getattr(cls(*p), method)(x), parameters[:n])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 1.0, 0.5), "mu must be positive and finite. Found 0.0, 1 such of 1"),
        ((np.array([1.0, np.nan]), 1.0, 0.5), "mu must be positive and finite. Found nan, 1 such of 2"),
        ((1.0, -2.0, 0.5), "theta must be positive and finite. Found -2.0"),
        ((1.0, 1.0, 1.5), r"dropout must be in \[0, 1\]; logits go to the constructor. Found 1.5"),
        ((np.ones((2, 3)), np.ones(4), 0.5), r"Shapes must broadcast.*'log_mu': \(2, 3\), 'log_theta': \(4,\)"),
    ],
)
def test_bad_parameters_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        ZINB.from_parameters(*values)


def test_agrees_with_scvi():
    scvi = pytest.importorskip("scvi.distributions", reason="scvi-tools is not installed", exc_type=ImportError)
    x = torch.arange(200.0, dtype=torch.float64)[:, None, None, None]
    mu, theta = doubles([[[0.5]], [[8.0]], [[90.0]]], [[0.3], [2.0], [60.0]])
    logits = torch.tensor([-4.0, 0.0, 3.0], dtype=torch.float64)
    theirs = scvi.ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=logits)
    ours = ZINB(mu.log(), theta.log(), logits)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.mean, theirs.mean.expand(ours.shape), rtol=1e-12, atol=0)
    nb = scvi.NegativeBinomial(mu=mu, theta=theta)
    torch.testing.assert_close(NB(mu.log(), theta.log()).log_prob(x), nb.log_prob(x), rtol=1e-6, atol=0)
    torch.testing.assert_close(NB(mu.log(), theta.log()).variance, nb.variance, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rate", [0.2, 20.0])
@pytest.mark.parametrize("n_parameters", [1, 2, 3])
def test_slopes_are_those_of_the_formula_differentiated_step_by_step(rate, n_parameters):
    """Over more rows than a block has, with few zeros and with many; dispersions by gene."""
    generator = torch.Generator().manual_seed(0)
    n, genes = 300, 400
    x = torch.poisson(torch.full((n, genes), rate, dtype=torch.float64), generator=generator)
    shapes = [(n, genes), (genes,), (n, genes)][:n_parameters]
    given = [torch.randn(shape, dtype=torch.float64, generator=generator) + np.log(rate) for shape in shapes]

    def formula(log_mu, log_theta=None, logits=None):
        if log_theta is None:
            return x * log_mu - log_mu.exp() - torch.lgamma(x + 1)
        theta, log_total = log_theta.exp(), torch.logaddexp(log_mu, log_theta)
        value = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        value = value + theta * (log_theta - log_total) + x * (log_mu - log_total)
        if logits is None:
            return value
        dropped = torch.nn.functional.logsigmoid(logits)
        kept = torch.nn.functional.logsigmoid(-logits) + value
        return torch.where(x == 0, torch.logaddexp(dropped, kept), kept)

    weights = torch.randn(n, genes, dtype=torch.float64, generator=generator)
    found, expected = ([p.clone().requires_grad_() for p in given] for _ in range(2))
    ours, theirs = (Poisson, NB, ZINB)[n_parameters - 1](*found).log_prob(x), formula(*expected)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-8)


def test_a_count_that_is_nan_is_not_taken_for_zero():
    value = ZINB(torch.zeros(2), torch.zeros(2), torch.zeros(2)).log_prob(torch.tensor([0.0, torch.nan]))
    assert torch.isfinite(value[0]) and torch.isnan(value[1])

"""A model meets AnnData with other identifiers: genes are matched by a column of `.var`, and the log says so."""

from __future__ import annotations

import numpy as np
import pytest
from builders import fast

from hist2scrna.tl import evaluate, fit, predict

QUIET = {"progress": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def model(make_section):
    return fit(make_section(), **fast(genes=["g3", "g1", "g8"], validation=0))


def renamed(adata, column):
    adata.var[column] = list(adata.var_names)
    adata.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    return adata


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "gene_ids"])
@pytest.mark.parametrize("copy", [False, True])
def test_genes_are_matched_by_a_column(model, make_section, caplog, column, copy):
    expected = predict(make_section("s1", seed=1), model, **QUIET)
    adata = renamed(make_section("s1", seed=1), column)
    with caplog.at_level("INFO", "hist2scrna"):
        out = predict(adata, model, copy=copy, **QUIET)
    assert f"genes are matched by adata.var['{column}']: it names 3 of the 3 genes" in caplog.text
    assert (out is adata) is not copy
    for gene in model.genes:
        place = list(out.var[column]).index(gene)
        assert out.var_names[place].startswith("ENSG") and out.var["hist2scrna_modeled"].iloc[place]
        np.testing.assert_array_equal(
            out.layers["hist2scrna_mean"][:, place], expected[:, gene].layers["hist2scrna_mean"].ravel()
        )
    assert out.var["hist2scrna_modeled"].sum() == 3


def test_scores_are_those_under_the_names_of_the_training(model, make_section):
    tables = []
    for change in (lambda adata: adata, lambda adata: renamed(adata, "feature_name")):
        adata = change(make_section("s1", seed=1))
        for given in (adata.copy(), predict(adata, model, **QUIET)):
            tables.append(evaluate(given, model, progress=False))
    for table in tables[1:]:
        np.testing.assert_allclose(table.genes["mse"], tables[0].genes["mse"], rtol=1e-5)
        assert table.results["split"]["held_out"] and table.results["baselines"]["fitted_on"] == "training"


def test_a_name_that_occurs_twice_tells_no_gene(model, make_section, caplog):
    adata = renamed(make_section(), "feature_name")
    adata.var["feature_name"] = ["g3" if name == "g0" else name for name in adata.var["feature_name"]]
    with caplog.at_level("INFO", "hist2scrna"):
        out = predict(adata, model, **QUIET)
    assert "adata lacks 1 of the 3 genes" in caplog.text
    assert list(out.var_names) == ["g3", "ENSG00000000001", "ENSG00000000008"]


def test_names_win_where_they_name_all(model, make_section, caplog):
    adata = make_section()
    adata.var["feature_name"] = list(adata.var_names[::-1])
    with caplog.at_level("INFO", "hist2scrna"):
        predict(adata, model, **QUIET)
    assert "matched by" not in caplog.text
    assert list(adata.var_names[adata.var["hist2scrna_modeled"]]) == ["g1", "g3", "g8"]


def test_genes_to_train_on_are_met_with_the_column_that_has_them(make_section):
    with pytest.raises(KeyError, match=r"adata\.var\['feature_name'\] holds 2 of them.*adata\.var_names = "):
        fit(renamed(make_section(), "feature_name"), **fast(genes=["g0", "g1"]))


@pytest.mark.parametrize(
    ("trained", "here", "said"),
    [
        (["Gnas", "Actb"], ["GNAS", "ACTB"], r"2 of them are there in another case, such as 'GNAS' for 'Gnas'"),
        (
            ["ENSG00000087460", "ENSG00000075624"],
            ["ENSG00000087460.12", "ENSG00000075624.3"],
            r"2 of them are there with another version, such as 'ENSG00000087460.12' for 'ENSG00000087460'",
        ),
        (
            ["GNAS", "ACTB"],
            ["ENSG00000087460", "ENSG00000075624"],
            r"They are symbols \('GNAS'\), adata.var_names are Ensembl identifiers .* into adata.var\['gene_symbols'\]",
        ),
        (
            ["ENSG00000087460", "ENSG00000075624"],
            ["GNAS", "ACTB"],
            r"They are Ensembl identifiers .* are symbols \('GNAS'\). .* into adata.var\['gene_ids'\]",
        ),
    ],
)
def test_names_that_are_written_otherwise_are_a_warning_and_to_evaluate_an_error(make_section, trained, here, said):
    train, test = make_section(n_genes=2), make_section("s1", n_genes=2, seed=1)
    train.var_names, test.var_names = trained, here
    model = fit(train, **fast(validation=0))
    with pytest.warns(UserWarning, match="adata.var_names lacks 2 of the 2 genes of the model.*" + said):
        predict(test, model, **QUIET)
    with pytest.raises(ValueError, match="None of the 2 predicted genes.*" + said):
        evaluate(test, model, progress=False)


def test_other_genes_are_no_warning_and_a_slide_without_genes_has_nothing_to_score(model, make_section, recwarn):
    adata = make_section("s1", seed=1)
    adata.var_names = [f"h{i}" for i in range(adata.n_vars)]
    predict(adata, model, **QUIET)
    assert not [str(w.message) for w in recwarn if "lacks" in str(w.message)]
    with pytest.raises(ValueError, match="adata has no genes, so there is nothing to score"):
        evaluate(adata[:, []].copy(), model, progress=False)

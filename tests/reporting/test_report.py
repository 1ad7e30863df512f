"""The page of an evaluation: what it holds, that it fetches nothing, and that it works in a real browser."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse
from typer.testing import CliRunner

import hist2scrna
from hist2scrna import keys, pl
from hist2scrna.cli import app
from hist2scrna.evaluation.result import Evaluation
from hist2scrna.reporting.figures import PLOTS
from hist2scrna.tl import evaluate

NAMES = keys.OutputKeys()
N_SPOTS, N_GENES = 40, 60
SCRIPT = "<script>document.title='broken'</script>"
HOSTILE = [SCRIPT, "</script><b>bold</b>", 'a,"b"', "<img src=x onerror=throw(1)>", "&amp;", "{{ 7 * 7 }}", "CONSTANT"]


def section() -> ad.AnnData:
    """ZINB counts with their parameters as the prediction; names that a careless page would take for code."""
    rng = np.random.default_rng(3)
    mu = rng.gamma(1.5, 2.0, N_GENES) * rng.gamma(4, 0.25, (N_SPOTS, N_GENES))
    theta, dropout = np.full(mu.shape, 5.0), np.full(mu.shape, 0.1)
    counts = rng.negative_binomial(theta, theta / (theta + mu)) * (rng.random(mu.shape) > dropout)
    counts[:, len(HOSTILE)] += 1
    counts[:, HOSTILE.index("CONSTANT")] = 0
    layers = {"mean": (1 - dropout) * mu, "mu": mu, "dispersion": theta, "dropout": dropout}
    kinds = rng.choice(["<b>tumor</b>", "stroma"], N_SPOTS)
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {
                "library_id": pd.Categorical(["<i>s0</i>"] * N_SPOTS),
                "cell_type": pd.Categorical(kinds),
                NAMES.cell_type: pd.Categorical(np.where(rng.random(N_SPOTS) < 0.8, kinds, "stroma")),
                NAMES.cell_type_confidence: rng.uniform(0.5, 1, N_SPOTS),
            },
            index=[f"spot{i}" for i in range(N_SPOTS)],
        ),
        var=pd.DataFrame({NAMES.modeled: True}, index=HOSTILE + [f"GENE{i}" for i in range(N_GENES - len(HOSTILE))]),
        layers={NAMES.layer(name): values.astype(np.float32) for name, values in layers.items()},
        obsm={keys.SPATIAL: np.stack([np.arange(N_SPOTS) % 8, np.arange(N_SPOTS) // 8], axis=1) * 50.0},
        uns={
            NAMES.parameters: {
                "model": "made up",
                "preset": "large",
                "likelihood": "zinb",
                "scale": "counts",
                "library_size": "own",
            }
        },
    )


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(section(), labels_key="cell_type", progress=False)


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory) -> Path:
    return hist2scrna.report(evaluation, tmp_path_factory.mktemp("report") / "page.html")


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Leave the pictures out, which take most of the time."""
    absent = {"heading": "", "caption": "", "wide": False, "reason": "left out by the test"}
    monkeypatch.setattr("hist2scrna.reporting.page.draw_all", lambda *_: {p.name: absent for p in PLOTS})


class Page(HTMLParser):
    """Elements of a page, and the text in each."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[int, ...], str]] = []
        self.stack: list[int] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "input"):
            self.stack.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.stack.pop()][0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self.stack), data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def inside(self, number: int) -> str:
        return "".join(text for stack, text in self.texts if number in stack)

    def by_id(self, name: str) -> int:
        (number,) = (i for i, (_, attributes) in enumerate(self.elements) if attributes.get("id") == name)
        return number

    def genes(self) -> dict[str, Any]:
        return json.loads(self.inside(self.by_id("gene-data")))


# -- what the page holds ----------------------------------------------------------------------------------------------
def test_every_gene_and_number_is_in_the_page(page, evaluation) -> None:
    columns = Page(page).genes()["columns"]
    assert columns["gene"] == list(evaluation.genes.index)
    assert set(columns) == {"gene", *evaluation.genes.columns}
    for name in evaluation.genes.select_dtypes("number"):
        shown = np.array([np.nan if v is None else v for v in columns[name]])
        np.testing.assert_allclose(shown, evaluation.genes[name], rtol=1e-5)
    assert columns["pearson"][HOSTILE.index("CONSTANT")] is None


def test_headline_is_that_of_the_evaluation(page, evaluation) -> None:
    parsed = Page(page)
    for name in (
        "pearson",
        "score_over_ceiling",
        "beats_depth_baseline",
        "beats_mean_baseline",
        "depth_partial",
        "spread_ratio",
    ):
        tag, attributes = parsed.elements[parsed.by_id(name) + 1]
        assert (tag, float(attributes["value"] or "nan")) == ("data", evaluation.headline[name])
    head = evaluation.headline
    assert parsed.inside(parsed.by_id("pearson")).strip() == f"{head['pearson']:.3f}"
    bars = [a["style"] for tag, a in parsed.elements if tag == "div" and a.get("class") == "bar"]
    widths = [float(str(style).split("width:")[1].rstrip("%")) for style in bars]
    values = np.array([head["mean_baseline"], head["depth_baseline"], head["pearson"], head["noise_ceiling"]])
    np.testing.assert_allclose(widths, 100 * np.abs(values) / (values.max() - min(0, values.min())), atol=0.01)


def test_page_fetches_nothing(page) -> None:
    parsed = Page(page)
    for tag, attributes in parsed.elements:
        for name, value in attributes.items():
            assert name not in ("srcset", "action", "poster", "background") and not name.startswith("on"), (tag, name)
            if name == "src":
                assert str(value).startswith("data:image/")
            if name == "href":
                assert str(value).startswith("#")
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in parsed.elements}
    outside = "".join(text for _, text in parsed.texts)
    for word in ("http:", "https:", "//www", "url(", "@import", "fetch(", "XMLHttpRequest"):
        assert word not in outside
    (policy,) = (a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    script = parsed.inside(max(i for i, (tag, _) in enumerate(parsed.elements) if tag == "script"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in str(policy) and f"script-src 'sha256-{digest}'" in str(policy)


def test_names_from_data_are_no_code(page) -> None:
    parsed = Page(page)
    assert len(parsed.all("script")) == 2
    assert parsed.all("i") == [] and len(parsed.all("img")) == sum("alt" in a for a in parsed.all("img"))
    heading = next(i for i, (tag, _) in enumerate(parsed.elements) if tag == "h1")
    assert parsed.inside(heading) == "made up on <i>s0</i>"
    assert "<b>tumor</b>" in parsed.inside(parsed.by_id("types"))
    assert "<b>tumor</b>" not in parsed.text and "<b>bold</b>" not in parsed.text


@pytest.mark.usefixtures("undrawn")
def test_titles_and_paths_are_escaped_too(evaluation, tmp_path) -> None:
    source = tmp_path / "a <b> & 'c'.json"
    evaluation.to_json(source)
    parsed = Page(hist2scrna.report(source, tmp_path / "x.html", title="<u>&"))
    assert parsed.all("u") == [] and parsed.all("b") == []
    assert "hist2scrna report 'a <b> & '" in parsed.inside(parsed.by_id("reproduce"))


def test_structure_is_that_of_a_document(page) -> None:
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.elements]
    for landmark in ("header", "nav", "main", "footer", "h1", "title"):
        assert tags.count(landmark) == 1, landmark
    assert parsed.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3")]
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    identifiers = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    asked = [str(a["href"])[1:] for a in parsed.all("a")] + [
        a["aria-labelledby"] for _, a in parsed.elements if "aria-labelledby" in a
    ]
    assert set(asked) <= set(identifiers)
    assert parsed.stack == []


def test_every_plot_is_drawn_with_words_beside_it(page) -> None:
    parsed = Page(page)
    plots = set(pl.__all__) - {"spatial_compare", "history", "benchmark", "attention"}
    assert {str(a["id"]).removeprefix("figure-") for a in parsed.all("figure")} == plots
    pictures = parsed.all("img")
    assert len(pictures) == len(plots) == len(parsed.all("figcaption"))
    for picture in pictures:
        assert len(str(picture["alt"])) > 30
        kind, _, content = str(picture["src"]).partition(";base64,")
        data = base64.b64decode(content, validate=True)
        if kind == "data:image/svg+xml":
            assert ElementTree.fromstring(data).tag.endswith("svg")
        else:
            assert Image.open(io.BytesIO(data)).size > (300, 200)


def test_what_cannot_be_drawn_is_named_with_the_reason(evaluation, tmp_path) -> None:
    bare = Evaluation({**evaluation.results, "cell_types": {}}, evaluation.genes)
    parsed = Page(hist2scrna.report(bare, tmp_path / "bare.html"))
    for name, reason in (("scatter", "holds no data for plots"), ("ranked_genes", "holds no data for plots")):
        assert reason in parsed.inside(parsed.by_id(f"figure-{name}"))
    assert "types" not in [a.get("id") for _, a in parsed.elements]
    with pytest.raises(ValueError, match="holds no data for plots"):
        pl.scatter(bare)


def test_the_preset_stands_beside_the_model(page) -> None:
    assert "made up, preset large, likelihood zinb" in Page(page).inside(Page(page).by_id("done"))


def test_penalties_of_a_model_in_closed_form_are_drawn(evaluation, tmp_path) -> None:
    tried = pd.DataFrame({"penalty": [0.1, 1.0, 10.0], "validation_loss": [0.9, 0.8, 0.95]})
    parsed = Page(hist2scrna.report(evaluation, tmp_path / "x.html", history=tried))
    said = parsed.inside(parsed.by_id("figure-history"))
    assert "closed form" in said and "Not drawn" not in said


def test_history_is_drawn_if_given(evaluation, tmp_path) -> None:
    losses = pd.DataFrame({"train_loss": [3.0, 2.0, 1.5], "validation_loss": [3.0, 2.2, 2.4]})
    parsed = Page(hist2scrna.report(evaluation, tmp_path / "x.html", history=losses))
    assert "epoch" in parsed.inside(parsed.by_id("figure-history"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": {"held_out": False, "statement": "NOT HELD OUT: 40 of 40 spots."}}, "NOT HELD OUT: 40 of 40 spots."),
        ({"headline": {"collapsed": True}}, "hardly varies"),
        ({"split": {"held_out": None, "statement": "unknown: never checked."}}, "Unknown: never checked."),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_what_must_not_be_overlooked_is_loud(evaluation, tmp_path, changes, said) -> None:
    results = dict(evaluation.results)
    calm = {
        "split": {**results["split"], "held_out": True},
        "baselines": {**results["baselines"], "fitted_on": "training"},
    }
    results |= calm
    quiet = Page(hist2scrna.report(Evaluation(results, evaluation.genes), tmp_path / "calm.html"))
    assert not [a for a in quiet.all("div") if str(a.get("class")).startswith("alarm")]
    results |= {key: {**results[key], **value} for key, value in changes.items()}
    loud = Page(hist2scrna.report(Evaluation(results, evaluation.genes), tmp_path / "loud.html"))
    alarms = [i for i, (_, a) in enumerate(loud.elements) if str(a.get("class")).startswith("alarm ")]
    assert len(alarms) == 1 and said in loud.inside(alarms[0])
    assert alarms[0] < loud.by_id("headline")


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_scored_is_a_limit(evaluation, tmp_path) -> None:
    results = {**evaluation.results, "not_scored": {"Moran's I": "no <coordinates>"}}
    parsed = Page(hist2scrna.report(Evaluation(results, evaluation.genes), tmp_path / "x.html"))
    assert "Moran's I was not scored: No <coordinates>." in parsed.inside(parsed.by_id("limits"))


@pytest.mark.usefixtures("undrawn")
def test_numbers_that_are_not_defined_are_no_numbers(evaluation, tmp_path) -> None:
    head = dict.fromkeys(evaluation.headline) | {"scale": "log_normalized", "collapsed": False}
    parsed = Page(
        hist2scrna.report(Evaluation({**evaluation.results, "headline": head}, evaluation.genes), tmp_path / "x")
    )
    assert parsed.inside(parsed.by_id("pearson")).strip() == "–"


# -- files ------------------------------------------------------------------------------------------------------------
def test_json_and_object_give_the_same_page_every_time(evaluation, page, tmp_path) -> None:
    evaluation.to_json(tmp_path / "evaluation.json")
    first = hist2scrna.report(tmp_path / "evaluation.json", tmp_path / "new" / "page.html")
    assert first.read_bytes() == page.read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_page_replaces_a_file_only_when_complete(evaluation, tmp_path, monkeypatch) -> None:
    out = tmp_path / "page.html"
    out.write_text("old")
    damaged = Evaluation({k: v for k, v in evaluation.results.items() if k != "split"}, evaluation.genes)
    with pytest.raises(ValueError, match="split"):
        hist2scrna.report(damaged, out)
    assert out.read_text() == "old"

    def fail(source: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk full"):
        patched.setattr("hist2scrna.files.os.replace", fail)
        hist2scrna.report(evaluation, out)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"] and out.read_text() == "old"
    assert hist2scrna.report(evaluation, str(out)) == out
    assert out.read_text().startswith("<!doctype html>")


def test_out_must_be_a_file(evaluation, tmp_path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder"):
        hist2scrna.report(evaluation, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no ordinary file"):
        hist2scrna.report(evaluation, tmp_path / "pipe")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema_version": 1, "genes": []}', b"\xff\xfe\x00", None])
@pytest.mark.usefixtures("undrawn")
def test_damaged_json_is_refused_by_name(evaluation, tmp_path, content) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(evaluation.to_json().encode()[:5000] if content is None else content)
    with pytest.raises(ValueError, match="broken.json"):
        hist2scrna.report(path, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_what_is_no_evaluation_is_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="absent.json"):
        hist2scrna.report(tmp_path / "absent.json", tmp_path / "x.html")
    with pytest.raises(TypeError, match="found int"):
        hist2scrna.report(3, tmp_path / "x.html")  # type: ignore[arg-type]


@pytest.mark.usefixtures("undrawn")
def test_command_line(evaluation, tmp_path) -> None:
    evaluation.to_json(tmp_path / "e.json")
    out = tmp_path / "R.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "e.json"), "--out", str(out), "--title", "Mine"])
    assert done.exit_code == 0 and done.stdout.replace("\n", "") == f"Wrote {out}"
    assert "<h1>Mine</h1>" in out.read_text(encoding="utf-8")
    (tmp_path / "bad.json").write_text("{")
    for arguments in ([str(tmp_path / "none.json")], [str(tmp_path / "bad.json")]):
        failed = CliRunner().invoke(app, ["report", *arguments, "--out", str(tmp_path / "no.html")])
        assert failed.exit_code == 1 and failed.stdout == ""
        assert failed.stderr.startswith("Error: ") and failed.stderr.count("\n") == 1
    assert not (tmp_path / "no.html").exists()


# -- in a browser -----------------------------------------------------------------------------------------------------
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
FLAGS += ("disable-component-update", "disable-sync", "disable-dev-shm-usage", "remote-debugging-pipe")
TROUBLE = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
SECONDS = 60


# Where an element is, once a frame has been drawn with it in view.
CENTER = """async (element) => {
  element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}"""


class Browser:
    """Chromium without a window, spoken to in its DevTools protocol over two pipes (its descriptors 3 and 4)."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs, self.requests = os.pipe()
        self.answers, back = os.pipe()

        def give_pipes() -> None:
            high = os.dup2(theirs, 103), os.dup2(back, 104)
            os.dup2(high[0], 3), os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, *(f"--{flag}" for flag in FLAGS), f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=give_pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(back)
        self.buffer, self.sent, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            assert select.select([self.answers], [], [], SECONDS)[0], "the browser does not answer"
            part = os.read(self.answers, 1 << 20)
            assert part, f"the browser has gone, exit code {self.process.poll()}"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.requests, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def load(self, path: Path) -> None:
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def run(self, code: str) -> Any:
        """Value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        """A real click, on the middle of an element."""
        x, y = self.run(f"({CENTER})(document.querySelector({json.dumps(selector)}))")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.run("(() => { const s = document.getElementById('search'); s.focus(); s.select(); })()")
        self.press("Delete", 46)
        self.send("Input.insertText", text=text)

    def rows(self, column: str) -> list[str]:
        heads = self.run("[...document.querySelectorAll('#gene-table thead button')].map((b) => b.textContent)")
        place = heads.index(column)
        return self.run(
            f"[...document.querySelectorAll('#gene-table tbody tr')].map((r) => r.cells[{place}].textContent)"
        )

    def sort_by(self, column: str) -> str:
        heads = self.run("[...document.querySelectorAll('#gene-table thead button')].map((b) => b.textContent)")
        self.click(f"#gene-table thead th:nth-child({heads.index(column) + 1}) button")
        return self.run(f"document.querySelectorAll('#gene-table thead th')[{heads.index(column)}].ariaSort")

    def trouble(self) -> list[dict[str, Any]]:
        self.run("new Promise((done) => setTimeout(done, 50))")
        return [event for event in self.events if event["method"] in TROUBLE]

    def media(self, **features: str) -> None:
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", features=given)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium here to show the page; looked for {', '.join(BROWSERS)}")
    started = Browser(program, tmp_path_factory.mktemp("profile"))
    yield started
    started.session = ""
    started.send("Browser.close")
    started.process.wait(SECONDS)
    os.close(started.requests)
    os.close(started.answers)


@pytest.fixture
def shown(browser, page) -> Browser:
    browser.send("Emulation.clearDeviceMetricsOverride")
    browser.media()
    browser.load(page)
    return browser


def as_numbers(cells: list[str]) -> np.ndarray:
    return np.array([np.nan if cell == "–" else float(cell) for cell in cells])


def test_page_loads_without_complaints(shown, evaluation) -> None:
    assert shown.trouble() == []
    assert shown.run("document.title").startswith("made up on <i>s0</i>")
    assert shown.run("[...document.images].every((i) => i.complete && i.naturalWidth > 100)")
    assert shown.run("performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:')).length") == 0
    best = evaluation.genes["pearson"].nlargest(25)
    np.testing.assert_allclose(as_numbers(shown.rows("Pearson")), best, atol=5.1e-4)
    assert shown.run("document.getElementById('found').textContent") == f"{N_GENES} genes"


def test_a_browser_would_tell_of_trouble(shown, page, tmp_path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace('"use strict";', '"use strict"; '), encoding="utf-8")
    shown.load(broken)
    assert shown.trouble()
    assert shown.run("document.querySelectorAll('#gene-table button').length") == 0


def test_headings_sort_numerically_with_undefined_last(shown, evaluation) -> None:
    table = evaluation.genes
    for heading, column in (("log-likelihood", "log_likelihood"), ("mean", "truth_mean"), ("Pearson", "pearson")):
        directions = {}
        for _ in range(2):
            direction = shown.sort_by(heading)
            directions[direction] = shown.rows("gene")
        assert set(directions) == {"ascending", "descending"}
        for direction, genes in directions.items():
            expected = table[column].sort_values(ascending=direction == "ascending", na_position="last")
            np.testing.assert_allclose(table.loc[genes, column], expected.head(25), rtol=1e-5)
    pages = []
    for _ in range(3):
        pages += shown.rows("Pearson")
        shown.click("#next")
    values = as_numbers(pages)
    assert len(values) == N_GENES and np.isnan(values[-1]) and not np.isnan(values[:-1]).any()
    assert shown.run("document.getElementById('next').disabled")
    shown.sort_by("level")
    by_level = pd.Categorical(table["level"], ["low", "medium", "high"], ordered=True).sort_values()
    assert shown.rows("level") == list(by_level[:25])
    assert shown.trouble() == []


def test_headings_work_from_the_keyboard(shown) -> None:
    shown.run("document.querySelector('#gene-table thead button').focus()")
    shown.press("Enter", 13)
    assert shown.run("document.querySelector('#gene-table thead th').ariaSort") == "ascending"
    genes = shown.rows("gene")
    plain = [int(g.removeprefix("GENE")) for g in genes if g.startswith("GENE")]
    assert plain == sorted(plain) and len(plain) > 10


def test_search_filters_rows(shown, evaluation) -> None:
    shown.type("gene1")
    wanted = {g for g in evaluation.genes.index if "gene1" in g.lower()}
    assert set(shown.rows("gene")) == wanted
    assert shown.run("document.getElementById('found').textContent") == f"{len(wanted)} of {N_GENES} genes"
    shown.type("GENE2, constant")
    assert "CONSTANT" in shown.rows("gene") and shown.rows("gene")[-1] == "CONSTANT"
    shown.type("no such gene!")
    shown.type("<script>")
    assert shown.rows("gene") == [SCRIPT]
    shown.type("")
    assert len(shown.rows("gene")) == 25
    assert shown.trouble() == [] and "broken" not in shown.run("document.title")


def test_scale_changes_the_columns(shown, evaluation) -> None:
    shown.run("(s => { s.value = '_counts'; s.dispatchEvent(new Event('change')); })(document.getElementById('scale'))")
    expected = evaluation.genes["pearson_counts"].nlargest(25)
    np.testing.assert_allclose(as_numbers(shown.rows("Pearson")), expected, atol=5.1e-4)


CATCH_DOWNLOAD = """
void (window.made = new Promise((done) => { URL.createObjectURL = (b) => (b.text().then(done), "#"); }));
HTMLAnchorElement.prototype.click = function () { window.named = this.download; };
"""


def test_csv_holds_the_genes_found_and_all_columns(shown, evaluation) -> None:
    shown.run(CATCH_DOWNLOAD)
    shown.type('"b"')
    shown.click("#download")
    rows = list(csv.DictReader(io.StringIO(shown.run("window.made"), newline="")))
    assert shown.run("window.named") == "genes.csv"
    assert [row["gene"] for row in rows] == ['a,"b"']
    assert set(rows[0]) == {"gene", *evaluation.genes.columns}
    assert float(rows[0]["pearson"]) == pytest.approx(evaluation.genes.loc['a,"b"', "pearson"], rel=1e-5)


CONTRASTS = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const color = rgb(getComputedStyle(element).backgroundColor);
    return color.length < 4 || color[3] === 1 ? color : behind(element.parentElement);
  };
  return [...document.querySelectorAll("h1, h2, p, a, dt, dd, td, th, li, button, pre, figcaption, summary, .none")]
    .filter((e) => e.textContent.trim() && e.getClientRects().length && !e.disabled)
    .map((e) => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_schemes(shown, scheme) -> None:
    shown.media(prefers_color_scheme=scheme)
    page, paper = shown.run(
        "[document.body, document.querySelector('.paper')].map((e) => getComputedStyle(e).backgroundColor)"
    )
    brightness = sum(int(v) for v in page.removeprefix("rgb(").rstrip(")").split(","))
    assert (brightness < 150) == (scheme == "dark")
    assert paper == "rgb(255, 255, 255)"
    contrasts = shown.run(CONTRASTS)
    # WCAG 2.2, 1.4.3 (AA).
    assert len(contrasts) > 200 and min(contrasts) >= 4.5


def test_phone_width_needs_no_sideways_scrolling(shown) -> None:
    shown.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    assert shown.run("document.documentElement.scrollWidth") <= 360
    assert shown.run("document.querySelector('#gene-table').getBoundingClientRect().width") > 360


def test_page_prints_light_and_without_controls(shown) -> None:
    shown.send(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert shown.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.run("document.getElementById('search').getClientRects().length") == 0
    pdf = base64.b64decode(shown.send("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")
    shown.send("Emulation.setEmulatedMedia", media="")


@pytest.mark.usefixtures("undrawn")
def test_tens_of_thousands_of_genes_are_shown_a_page_at_a_time(browser, evaluation, tmp_path) -> None:
    many = evaluation.genes.iloc[np.arange(20_000) % N_GENES].copy()
    many.index = pd.Index([f"ENSG{i:011d}" for i in range(len(many))], name="gene")
    browser.load(hist2scrna.report(Evaluation(evaluation.results, many), tmp_path / "many.html"))
    assert len(browser.rows("gene")) == 25
    browser.type("ensg00000019999")
    assert browser.rows("gene") == ["ENSG00000019999"]
    assert browser.trouble() == []

"""Reports say what the trace says, label what is scripted, and stay whole whatever a model wrote."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bilevel.v1 import outer_pb2, trace_pb2

from clients import wording
from clients.report import RunRecord, write_report
from clients.report.chart import HEIGHT, WIDTH, best_so_far, run_chart
from clients.report.export import configuration_hash, head_json, results_tsv
from clients.report.page import render_page
from tests.clients.conftest import usage


class Links(HTMLParser):
    """Collects what a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [v or "" for name, v in attributes if name in ("src", "href", "xlink:href", "action")]


def parsed(page: str) -> Links:
    links = Links()
    links.feed(page)
    return links


def test_the_page_is_self_contained(bare: RunRecord, bilevel: RunRecord) -> None:
    page = render_page([bare, bilevel])
    links = parsed(page)
    assert "script" not in links.tags
    assert "img" not in links.tags
    assert all(reference.startswith("#") for reference in links.references)
    assert "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page


def test_text_of_models_is_escaped(bilevel: RunRecord) -> None:
    page = render_page([bilevel])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;smaller&lt;/b&gt; batches" in page


def test_scripted_answers_are_labelled_at_the_top(bilevel: RunRecord) -> None:
    assert "The scripted researcher answered here" in render_page([bilevel])


def test_the_share_of_time_without_an_evaluation_is_on_the_page(bare: RunRecord, bilevel: RunRecord) -> None:
    page, summary = render_page([bare, bilevel]), bilevel.summary()
    assert 0 < summary.waiting_share < 1
    row = page[page.index('<th scope="row">no evaluation ran</th>') :].partition("</tr>")[0]
    for record in (bare, bilevel):
        s = record.summary()
        assert f"{s.waiting_share:.0%} of {wording.duration(s.wall_seconds)}" in row
        assert f"{s.paused_share:.0%} paused for the outer loop or a person" in row
    assert page.count("<dt>no evaluation ran</dt>") == 2


def test_a_run_of_a_real_model_carries_no_such_label(bare: RunRecord) -> None:
    events = []
    for event in bare.events:
        copy = trace_pb2.TraceEvent()
        copy.CopyFrom(event)
        if copy.WhichOneof("event") == "model_called":
            copy.model_called.scripted, copy.model_called.model = False, "a-model"
        events.append(copy)
    page = render_page([RunRecord(events)])
    assert "scripted researcher" not in page
    assert "a-model" in render_page([RunRecord(events), bare])


def test_the_page_shows_mechanism_dialogue_and_confirmation(bilevel: RunRecord) -> None:
    page = render_page([bilevel])
    for text in ("turn-round", "7 changed decision", "seccomp", "4. generate", "guidance", "95 % interval", "9d3a51"):
        assert text in page, text


def test_unknown_cost_is_shown_as_unknown(bilevel: RunRecord) -> None:
    assert ">unknown<" in render_page([bilevel])


def test_a_run_without_any_measurement_gives_a_page_all_the_same(bare: RunRecord, tmp_path: Path) -> None:
    started = RunRecord(bare.events[:3])
    assert "Nothing has been measured yet." in render_page([started])
    assert write_report([started], tmp_path).png.exists()


def test_results_have_karpathys_columns_and_no_sentinel(bare: RunRecord) -> None:
    lines = [line.split("\t") for line in results_tsv(bare).splitlines()]
    assert lines[0] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert len(lines) == 32
    assert all(len(line) == 5 for line in lines)
    crashed = [line for line in lines if line[3] == "crash"]
    assert [line[1] for line in crashed] == [""]
    assert "0.000000" not in results_tsv(bare)


def test_equal_configurations_have_equal_hashes(bare: RunRecord) -> None:
    trials = bare.history.trials
    assert configuration_hash(trials[3].configuration) != configuration_hash(trials[2].configuration)
    assert len(configuration_hash(trials[0].configuration)) == 7


def test_the_best_so_far_never_gets_worse(bilevel: RunRecord) -> None:
    metrics = [metric for _, metric in best_so_far(bilevel)]
    assert metrics == sorted(metrics, reverse=True)


def test_everything_drawn_lies_inside_the_chart(bilevel: RunRecord) -> None:
    chart = run_chart(bilevel)
    assert chart is not None
    assert all(0 <= mark.x <= WIDTH and 0 <= mark.y <= HEIGHT for mark in chart.marks)
    assert {mark.kind for mark in chart.marks} == {"kept", "discarded", "failed"}
    assert any(mark.beyond for mark in chart.marks)
    assert {moment.kind for moment in chart.moments} == {"configuration", "mechanism"}


def test_a_report_on_several_runs_gives_each_its_own_table(bare: RunRecord, bilevel: RunRecord, tmp_path: Path) -> None:
    files = write_report([bare, bilevel], tmp_path)
    assert [path.parent.name for path in files.tables] == ["bare1", "bi1"]
    assert files.png.read_bytes().startswith(b"\x89PNG")
    export = json.loads(files.exports[1].read_text())
    assert export["format"] == "bilevel-run/1"
    assert len(export["events"]) == len(bilevel.events)
    assert export["summary"]["changed_decisions"] == 7


def test_a_folder_that_cannot_be_written_is_named(bare: RunRecord, tmp_path: Path) -> None:
    from service_kit.errors import ServiceError

    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match=r"--out: must be a place that can be written.*file"):
        write_report([bare], tmp_path / "file" / "report")


def test_the_scripted_researcher_has_no_cost_and_an_unknown_price_stays_unknown() -> None:
    assert wording.cost(0.0, scripted=True) == "none (scripted)"
    assert wording.cost(None, scripted=True) == wording.UNKNOWN
    assert wording.cost(0.0) == "$0.0000"


@pytest.mark.parametrize(
    ("cost", "scripted", "said"), [(0.0, True, None), (0.0, False, 0.0), (None, False, None), (0.5, True, 0.5)]
)
def test_json_says_null_where_no_price_applies(cost: float | None, scripted: bool, said: float | None) -> None:
    call = trace_pb2.ModelCalled(purpose="propose", model="m", usage=usage(cost=cost), scripted=scripted)
    record = RunRecord([trace_pb2.TraceEvent(run="runs/r", sequence=1, model_called=call)])
    assert record.summary().to_json()["cost_usd"] == said
    for head in (
        trace_pb2.Run(usage=call.usage, scripted=scripted),
        outer_pb2.Campaign(usage=call.usage, scripted=scripted),
    ):
        assert head_json(head)["usage"].get("cost_usd") == said

"""The Data page: what the adapter learns from and is judged on: examples, distributions, and what the audit found.

It shows what `prepare` wrote and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from html import escape

import altair as alt
import streamlit as st

from dashboard.components.compare_filters import TYPING_PAUSE
from dashboard.components.example_wall import example_wall, finding_wall, record_table
from dashboard.components.markup import facts, headline, state_banner
from dashboard.current_run import current_store
from loupe.dataset_view import NO_VALUE, attributes_of, broken_photos, counts, examples, matching
from loupe.paths import SPLITS
from loupe.records import CaptionRecord, DatasetManifest
from loupe.run_state import run_state
from loupe.run_store import RunStore

EXAMPLES, DISTRIBUTIONS, FINDINGS = "Examples", "Distributions", "Findings"
EXAMPLES_PER_PAGE, FINDINGS_PER_PAGE = 48, 12
SHOWN_UNASKED = ("train", "val")
UNSEEN = "A test photo. To look at it, pick the split test among the examples."
SPLIT_COLOURS = {"train": "#2f7fc4", "val": "#e69f00", "test": "#009e73"}
MAX_VALUES = 20


def show(store: RunStore) -> None:
    """Show the page."""
    dataset = store.dataset()
    if banner := state_banner(run_state(store)):
        st.html(banner)
    if dataset is None:
        missing = "<code>dvc repro prepare</code> reads the source, checks every photo and splits the examples."
        st.html(headline("No dataset yet", missing))
        return
    records = examples(store)
    named = ", ".join(f"{dataset.n_examples.get(split, 0)} {split}" for split in SPLITS)
    st.html(headline(f"{named} examples") + facts(_facts(dataset)))
    view = st.segmented_control(
        "Show", [EXAMPLES, DISTRIBUTIONS, FINDINGS], key="show", default=EXAMPLES, bind="query-params", required=True
    )
    if view == DISTRIBUTIONS:
        _show_distributions(records)
    elif view == FINDINGS:
        _show_findings(dataset, records)
    else:
        _show_examples(dataset, records)


def _facts(dataset: DatasetManifest) -> dict[str, str]:
    return {
        "Source": dataset.source,
        "Rows in the source": str(dataset.n_rows),
        "Selected": str(dataset.n_selected),
        "Photos missing": str(dataset.n_missing),
        "Photos that cannot be used": str(len(dataset.rejected)),
        "Malformed rows": str(len(dataset.malformed_rows)),
        "Findings": str(len(dataset.findings)),
        "Side of the prepared pictures": f"{dataset.resolution_px} px",
    }


def _show_examples(dataset: DatasetManifest, records: tuple[CaptionRecord, ...]) -> None:
    columns = st.columns([3, 2, 2, 3])
    words, split_pick, attribute_pick, value_pick = columns
    query = words.text_input(
        "Search captions and attributes",
        key="q",
        bind="query-params",
        live=TYPING_PAUSE,
        type="search",
        placeholder="navy summer",
    )
    splits = split_pick.pills("Split", list(SPLITS), key="split", selection_mode="multi", bind="query-params")
    attributes = attributes_of(records)
    attribute = attribute_pick.selectbox(
        "Attribute", attributes, index=None, key="attribute", bind="query-params", placeholder="any"
    )
    values: list[str] = []
    if attribute:
        present = sorted({record.attributes.get(attribute, NO_VALUE) for record in records})
        values = value_pick.multiselect("Values", present, key="value", bind="query-params", placeholder="all values")
    found = matching(
        records, query=query or "", splits=splits or SHOWN_UNASKED, attribute=attribute or "", values=values
    )
    if not found:
        st.html('<p class="lp-empty">No example passes these filters.</p>')
        return
    aside = "" if splits else "; test photos appear only when you pick that split, to stay unseen while you choose"
    st.html(f'<p class="lp-note">{len(found)} of {len(records)} examples{aside}</p>')
    wall, n_pages = st.container(), -(-len(found) // EXAMPLES_PER_PAGE)
    page = st.pagination(n_pages, key="page", bind="query-params") if n_pages > 1 else 1
    with wall:
        shown = found[(page - 1) * EXAMPLES_PER_PAGE : page * EXAMPLES_PER_PAGE]
        broken = broken_photos(current_store(), shown)
        st.html(example_wall(shown, broken, resolution_px=dataset.resolution_px))


def _show_distributions(records: tuple[CaptionRecord, ...]) -> None:
    attributes = attributes_of(records)
    if not attributes:
        st.html('<p class="lp-empty">The examples carry no attribute that differs between them.</p>')
        return
    st.html(
        '<p class="lp-note">Share of each split. Where the bars of one value differ much, the splits are not alike and '
        "scores on val say less about what was trained on.</p>"
    )
    for start in range(0, len(attributes), 2):
        for place, name in zip(st.columns(2), attributes[start : start + 2], strict=False):
            with place:
                st.html(f'<h3 class="lp-chart">{escape(name.replace("_", " ").capitalize())}</h3>')
                st.altair_chart(_bars(records, name), width="stretch", alt=f"Share of each {name} by split")


def _bars(records: tuple[CaptionRecord, ...], attribute: str) -> alt.Chart:
    by_split = counts(records, attribute)
    total: Counter[str] = sum(by_split.values(), Counter())
    values = [value for value, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))][:MAX_VALUES]
    if all(value.isdecimal() for value in values):
        values.sort()
    data = [
        {"value": value, "split": split, "share": 100 * own[value] / own.total(), "examples": own[value]}
        for split, own in by_split.items()
        for value in values
    ]
    more = f" (the {MAX_VALUES} most common of {len(total)})" if len(total) > MAX_VALUES else ""
    return (
        alt.Chart(alt.Data(values=data))
        .mark_bar()
        .encode(
            x=alt.X(
                "value:N",
                sort=values,
                title=f"{attribute.replace('_', ' ')}{more}",
                axis=alt.Axis(labelAngle=-40, labelOverlap=False),
            ),
            xOffset=alt.XOffset("split:N", sort=list(SPLITS)),
            y=alt.Y("share:Q", title="% of the split"),
            color=alt.Color(
                "split:N",
                sort=list(SPLITS),
                scale=alt.Scale(domain=list(SPLIT_COLOURS), range=list(SPLIT_COLOURS.values())),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=["value:N", "split:N", "examples:Q", alt.Tooltip("share:Q", format=".1f", title="% of the split")],
        )
        .properties(height=300)
    )


def _show_findings(dataset: DatasetManifest, records: tuple[CaptionRecord, ...]) -> None:
    kinds = Counter(finding.kind for finding in dataset.findings)
    if kinds:
        chosen = st.pills(
            "Kind", list(kinds), key="kind", selection_mode="multi", bind="query-params",
            format_func=lambda kind: f"{kind} ({kinds[kind]})",
        )  # fmt: skip
        findings = [finding for finding in dataset.findings if not chosen or finding.kind in chosen]
        wall, n_pages = st.container(), -(-len(findings) // FINDINGS_PER_PAGE)
        page = st.pagination(n_pages, key="page", bind="query-params") if n_pages > 1 else 1
        with wall:
            st.html('<p class="lp-note">Worth a look before training; nothing was left out for these.</p>')
            shown = findings[(page - 1) * FINDINGS_PER_PAGE : page * FINDINGS_PER_PAGE]
            by_id = {record.image_id: record for record in records}
            named = {image_id for finding in shown for image_id in finding.image_ids}
            known = [by_id[name] for name in sorted(named & by_id.keys())]
            broken = broken_photos(current_store(), [record for record in known if record.split in SHOWN_UNASKED])
            broken |= {record.image_id: UNSEEN for record in known if record.split not in SHOWN_UNASKED}
            st.html(finding_wall(shown, by_id, broken, resolution_px=dataset.resolution_px))
    else:
        st.html('<p class="lp-note">The audit found nothing worth a look among the pictures.</p>')
    if dataset.rejected:
        lines = [(item.image_id, item.reason, item.detail) for item in dataset.rejected]
        st.html(f"<h2>Photos that cannot be used</h2>{record_table(('id', 'reason', 'detail'), lines)}")
    if dataset.malformed_rows:
        rows = [(row.line, row.n_cells, row.image_id, row.action) for row in dataset.malformed_rows]
        st.html(f"<h2>Malformed rows of the source</h2>{record_table(('line', 'cells', 'id', 'what was done'), rows)}")
    if dataset.missing_ids:
        missing = [(image_id,) for image_id in dataset.missing_ids]
        st.html(f"<h2>Photos that are not there</h2>{record_table(('id',), missing)}")


show(current_store())

"""The decision as one HTML file that opens anywhere: no server, no script, no network. Reads only, through RunStore.

Verdict, scores, curves, pictures of base model and recommended checkpoint in their original bytes, the final result,
votes, and provenance by hash. The same run gives the same bytes: it holds no date.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from html import escape

from loupe.errors import PipelineError
from loupe.final_html import final_note, final_table, gates_on_test
from loupe.nearest_html import NEAREST_NOTE, nearest_pairs, nearest_table
from loupe.records import BASE_STEP, PromptRecord
from loupe.report_svg import score_svg
from loupe.run_samples import SampleView
from loupe.run_state import run_state
from loupe.run_store import RunStore
from loupe.score_html import score_table
from loupe.vote_html import agreement_table, strength_note, strength_table
from loupe.vote_results import vote_results
from loupe.votes import vote_book
from loupe.wording import decision_and_why, direction, step_label

MAX_PROMPTS = 8
"""Without a choice, this many prompts are shown."""
_STYLE = """
:root { color-scheme: light dark; --lp-ink: light-dark(#1b1c1e, #ecebe8); --lp-soft: light-dark(#5b5f66, #a6a9af);
--lp-line: light-dark(#dcdddf, #35383d); --lp-page: light-dark(#fbfbfa, #151618);
--lp-accent: light-dark(#0b63ad, #6db7f2);
--lp-tint: light-dark(#e9f1f9, #1a2733); --lp-warn: light-dark(#8a5200, #f0b45a); }
body { font: 16px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums lining-nums; color: var(--lp-ink);
background: var(--lp-page); max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: clamp(1.7rem, 4vw, 2.4rem); line-height: 1.1; letter-spacing: -.02em; margin: 0 0 .6rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; } h3 { font-size: .95rem; margin: 0; } h3 small { font-weight: 400; }
.lead { font-size: 1.08rem; max-width: 46rem; margin: 0; } small { color: var(--lp-soft); font-size: .8rem; }
.note { color: var(--lp-soft); font-size: .9rem; max-width: 50rem; margin: .2rem 0 .6rem; }
ul.note { padding-left: 1.1rem; } summary { cursor: pointer; margin: .8rem 0; }
.warn { border-left: 3px solid var(--lp-warn); padding: .3rem .8rem; margin: 1rem 0; }
.lp-scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: right; vertical-align: top; padding: .45rem .8rem; border-bottom: 1px solid var(--lp-line); }
th { font-weight: 600; } th:first-child, .text { text-align: left; }
th small, td small { display: block; font-weight: 400; }
td small.of { display: inline; } tfoot * { color: var(--lp-soft); font-weight: 400; }
.chosen > * { background: var(--lp-tint); }
.gate { color: var(--lp-warn); max-width: 14rem; }
.lp-chip { display: table; margin-top: .15rem; white-space: nowrap; font-size: .72rem;
font-weight: 600; padding: .1rem .45rem;
border-radius: 10px; color: var(--lp-page); background: var(--lp-accent); }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1rem 1.5rem; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--lp-soft); } .grid { stroke: var(--lp-line); }
.line { fill: none; stroke: var(--lp-accent); stroke-width: 2; } .point { fill: var(--lp-accent); }
.bar { stroke: var(--lp-accent); stroke-width: 5; opacity: .4; } .band { fill: var(--lp-soft); opacity: .22; }
.null { stroke: var(--lp-soft); stroke-dasharray: 5 4; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr));
gap: 1.4rem 2rem; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr));
grid-template-rows: 1fr auto; gap: .4rem .8rem; }
.pair h3 { grid-column: 1 / -1; } .pair img { display: block; width: 100%; border-radius: 3px; } figure { margin: 0; }
figcaption small { display: block; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1.2rem; font-size: .88rem; }
dt { color: var(--lp-soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


def report_html(store: RunStore, *, prompt_ids: Collection[str] = ()) -> str:
    """Return the file's text; `prompt_ids` are the prompts whose pictures it shows (unknown ones are passed over).

    Raises PipelineError when nothing has been decided and measured yet.
    """
    if not store.scores() and store.selection() is None:
        raise PipelineError("There is nothing to report yet: no scores and no recommendation. Run: dvc repro select")
    title, reason = decision(store)
    lead, why = decision_and_why(reason)
    sections = (
        _state_note(store),
        _gates_note(store),
        _score_section(store),
        _curve_section(store),
        _picture_section(store, prompt_ids),
        _nearest_section(store),
        _final_section(store),
        _vote_section(store),
        _provenance_section(store),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'\">\n<title>{escape(title)} · Loupe</title><style>{_STYLE}</style></head>\n<body>\n"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{_listed(why)}\n'
        + "\n".join(filter(None, sections))
        + "\n</body></html>\n"
    )


def decision(store: RunStore) -> tuple[str, str]:
    """Return the recommendation as a title and its reason."""
    selection = store.selection()
    if selection is None:
        return "No recommendation yet", "The scores below are there; the stage select has not judged them."
    if selection.verdict == "selected":
        return f"Ship {step_label(selection.step).lower()}", selection.reason
    return "No clear winner", selection.reason


def _listed(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="note">{items}</ul>' if items else ""


def _state_note(store: RunStore) -> str:
    state = run_state(store)
    return "" if state.kind == "complete" else f'<p class="warn">{escape(state.summary)}</p>'


def _gates_note(store: RunStore) -> str:
    failed = gates_on_test(store.final(), store.selection())
    return f'<p class="warn">{escape(failed)}</p>' if failed else ""


def _score_section(store: RunStore) -> str:
    rows, evaluation = store.scores(), store.evaluation()
    if not rows:
        return ""
    metrics, selection, absent = store.metrics(), store.selection(), evaluation.absent if evaluation else {}
    few = [column for column in metrics if column.spec.headline]
    note = "Below each score its 95 % interval and its paired difference to the base model."
    whole = score_table(rows, metrics, selection, absent)
    every = f"<details><summary>All {len(metrics)} scores</summary>{whole}</details>"
    return (
        f'<h2>Scores</h2><p class="note">{note}</p>{score_table(rows, few or metrics, selection, absent)}'
        f"{every if 0 < len(few) < len(metrics) else ''}"
    )


def _curve_section(store: RunStore) -> str:
    rows, selection = store.scores(), store.selection()
    figures = []
    for column in store.metrics():
        drawn = score_svg(column, rows, chosen=selection.step if selection else None)
        if drawn:
            null = "; grey: real against real" if column.null else ""
            head = f"{escape(column.spec.label)}<br><small>{direction(column.spec)}{null}</small>"
            figures.append(f"<figure><h3>{head}</h3>{drawn}</figure>")
    return f'<h2>Scores over the training steps</h2><div class="curves">{"".join(figures)}</div>' if figures else ""


def _picture_section(store: RunStore, prompt_ids: Collection[str]) -> str:
    selection = store.selection()
    steps = store.steps()
    chosen = selection.step if selection and selection.step in steps else steps[-1] if steps else BASE_STEP
    if chosen == BASE_STEP:
        return ""
    asked = [prompt for prompt in store.prompts() if prompt.prompt_id in prompt_ids]
    prompts = asked or list(store.prompts()[:MAX_PROMPTS])
    pairs = [_pair(store, prompt, (BASE_STEP, chosen)) for prompt in prompts]
    note = "Same prompt and same seed, the files' own bytes."
    return (
        f'<h2>Base model and {step_label(chosen).lower()}</h2><p class="note">{note}</p>'
        f'<div class="pairs">{"".join(pairs)}</div>'
    )


def _pair(store: RunStore, prompt: PromptRecord, steps: Sequence[int]) -> str:
    found = {
        sample.step: sample
        for sample in store.samples(prompt_ids={prompt.prompt_id}, seed_indices={0}, steps=set(steps))
    }
    figures = "".join(_figure(store, step, found.get(step), prompt.text) for step in steps)
    return f'<div class="pair"><h3>{escape(prompt.text)}</h3>{figures}</div>'


def _figure(store: RunStore, step: int, sample: SampleView | None, text: str) -> str:
    caption = step_label(step)
    file = store.sample_file(sample.sha256) if sample and sample.sha256 else None
    try:
        content = file.read_bytes() if file else None
    except OSError:
        content = None
    if content is None or sample is None:
        reason = sample.reason if sample and sample.reason else "the picture is not there"
        return f"<figure><p>{escape(reason)}</p><figcaption>{caption}</figcaption></figure>"
    data = base64.b64encode(content).decode("ascii")
    alt = escape(f"{caption}: {text}", quote=True)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{alt}"><figcaption>{caption} '
        f"<small>SHA-256 {sample.sha256[:12] if sample.sha256 else ''}…</small></figcaption></figure>"
    )


def _nearest_section(store: RunStore) -> str:
    table = nearest_table(nearest_pairs(store))
    return f'<h2>Nearest training photos</h2><p class="note">{NEAREST_NOTE}</p>{table}' if table else ""


def _final_section(store: RunStore) -> str:
    final = store.final()
    if not final:
        return ""
    note = escape(final_note(final, store.looks()))
    return (
        f'<h2>Final result on the test split</h2><p class="note">{note}</p>{final_table(final | store.final_scores())}'
    )


def _vote_section(store: RunStore) -> str:
    try:
        votes = vote_book(store.paths.root).votes()
    except PipelineError as error:
        return f'<h2>Votes</h2><p class="warn">{escape(str(error))}</p>'
    results = vote_results(store, votes)
    if not results.strengths.rows:
        return ""
    names = len({vote.reviewer for vote in results.votes})
    alpha = "" if results.alpha is None else f" Agreement of the reviewers: Krippendorff's α = {results.alpha:.2f}."
    count = f"{len(results.votes)} blind answers of {names} reviewer{'s' if names != 1 else ''}.{alpha}"
    return (
        f'<h2>What people prefer</h2><p class="note">{escape(count)} {escape(strength_note(results.strengths))}</p>'
        f"{strength_table(results)}<h2>Do the metrics agree with people?</h2>{agreement_table(results.metrics)}"
    )


def _provenance_section(store: RunStore) -> str:
    facts: list[tuple[str, str]] = []
    checkpoints, samples, evaluation = store.checkpoints_manifest(), store.samples_manifest(), store.evaluation()
    selection, dataset = store.selection(), store.dataset()
    if checkpoints:
        base = checkpoints.base_model
        revision = f", revision {base.revision}" if base.revision else ""
        facts.append(("Base model", f"{base.name}{revision}, SHA-256 {base.sha256}"))
        adapters = [info for info in checkpoints.checkpoints if selection and info.step == selection.step]
        facts += [
            ("Adapter", f"{info.folder}, rank {info.rank}, alpha {info.alpha:g}, SHA-256 {info.sha256}")
            for info in adapters
        ]
        facts.append(("Training fingerprint", checkpoints.fingerprint))
    if dataset:
        counts = ", ".join(f"{count} {split}" for split, count in dataset.n_examples.items())
        facts.append(("Dataset", f"{dataset.source}, {dataset.resolution_px} px: {counts}"))
        facts += [(f"Captions, {split}", f"SHA-256 {sha256}") for split, sha256 in dataset.captions_sha256.items()]
    if samples:
        facts.append(
            (
                "Pictures",
                f"{samples.sampler}, {samples.num_inference_steps} steps, guidance {samples.guidance_scale:g}, "
                f"{samples.width_px} × {samples.height_px} px",
            )
        )
    if evaluation:
        facts += [(f"Extractor, {e.role}", f"{e.name}, SHA-256 {e.sha256}") for e in evaluation.extractors]
        facts.append(("Versions", ", ".join(f"{name} {v}" for name, v in evaluation.library_versions.items())))
    for name in ("params.yaml", "dvc.lock"):
        sha256 = store.files.sha256(store.paths.root / name)
        if sha256:
            facts.append((name, f"SHA-256 {sha256}"))
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f"<h2>Where it comes from</h2><dl>{items}</dl>"

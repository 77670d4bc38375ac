"""Captions of catalogue rows from a template. It fills in words; it does not count tokens or look at photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from loupe.errors import PipelineError, nearest_names, problems_message

TEMPLATE_FIELDS = ("article_type", "colour", "gender", "season", "usage", "year", "brand")
# A brand keeps its spelling; everything else is ordinary English in the middle of a sentence.
_AS_WRITTEN = frozenset({"brand", "year"})


@dataclass(frozen=True, slots=True)
class CaptionTemplate:
    """A caption's clauses, which commas separate, and the fields that each needs."""

    clauses: tuple[tuple[str, frozenset[str]], ...]

    def caption(self, attributes: Mapping[str, str]) -> str:
        """Return the caption; a clause with a field that `attributes` lacks is left out."""
        values = {key: value if key in _AS_WRITTEN else value.lower() for key, value in attributes.items() if value}
        clauses = [clause.format_map(values) for clause, fields in self.clauses if fields <= values.keys()]
        return ", ".join(clause for clause in clauses if clause)


def parse_template(text: str) -> CaptionTemplate:
    """Split a template such as 'a photo of {colour} shoes, {brand} brand'; unknown fields are a PipelineError."""
    problems = []
    clauses = []
    for clause in text.split(","):
        try:
            fields = [field for _, field, _, _ in Formatter().parse(clause) if field is not None]
            plain = all(not spec and not conversion for _, _, spec, conversion in Formatter().parse(clause))
        except ValueError as error:
            problems.append(f"{clause.strip()!r}: {error}; write a literal brace twice, as {{{{ or }}}}")
            continue
        problems += [_unknown(field) for field in fields if field not in TEMPLATE_FIELDS]
        if not plain:
            problems.append(f"{clause.strip()!r}: only plain fields such as {{colour}} are known, without ':' or '!'")
        clauses.append((clause.strip(), frozenset(fields)))
    if problems:
        raise PipelineError(problems_message("params.yaml data.caption_template", problems))
    return CaptionTemplate(clauses=tuple(clauses))


def _unknown(field: str) -> str:
    nearest = nearest_names(field, TEMPLATE_FIELDS, limit=1)
    hint = f"did you mean {{{nearest[0]}}}?" if nearest else f"known: {', '.join(TEMPLATE_FIELDS)}"
    return f"unknown field {{{field}}}; {hint}"

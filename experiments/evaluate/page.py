"""The report page of an evaluation directory, from the results that lie there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.evaluate.subject import Suite
from jukejax.evaluation import report, report_page


def write_page(suites: Mapping[str, Suite], out: Path) -> Path:
    """Writes `out`/index.html with a section for each suite that has a result."""
    sections, models = [], []
    for name, suite in suites.items():
        record = report.read_record(out, name)
        # an older definition has other keys
        if record is None or record["source"].get("definition") != suite.definition:
            continue
        result: dict[str, Any] = record["result"]
        models.append(result["model"])
        shown = suite.tables(result), suite.figures(result)
        facts = [("model", result["model"]), *report_page.facts(record)]
        sections.append(report_page.Section(name, suite.title, suite.about, facts, *shown))
    return report_page.write_report(out, f"Evaluation of {models[0]}" if models else "", sections)

"""The tables of documents are what the rows in the repository give."""

from __future__ import annotations

from pathlib import Path

import documents
import pytest

from benchmarks import discrete_tables, experiment_tables, trust_region_table, tuning_table
from itrpo.results.frames import read_results

ROOT = Path(__file__).parents[2]
ROWS = {
    "sets": ROOT / "docs" / "report" / "rows" / "tuning.parquet",
    "mazes": ROOT / "benchmarks" / "results" / "tuning_mazes.parquet",
}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "report" / "rows").glob("*.parquet")), ids=lambda path: path.stem
)
def test_packed_runs_are_of_their_plan(path: Path) -> None:
    """Else the report shows them in tables of their own."""
    assert set(read_results([path]).runs["plan"]) == {path.stem}


def test_a_table_is_put_where_the_document_has_its_name(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("ahead\n<!-- sums -->\n\nold\n\n<!-- end of sums -->\nbehind\n")
    documents.write(document, "sums", "| 1 |\n")
    assert document.read_text() == "ahead\n<!-- sums -->\n\n| 1 |\n\n<!-- end of sums -->\nbehind\n"
    with pytest.raises(ValueError, match="one <!-- means -->"):
        documents.write(document, "means", "| 2 |\n")
    assert documents.split(document, "sums")[1] == "| 1 |"


def test_the_trust_region_tables() -> None:
    found = trust_region_table.tables(ROOT / "docs" / "report" / "rows" / "trust_region.parquet")
    assert documents.split(trust_region_table.DOC, trust_region_table.NAME)[1] == found.strip()


@pytest.mark.parametrize("name", ROWS)
def test_the_tables_of_searches(name: str) -> None:
    search = tuning_table.SEARCHES[name]
    assert documents.split(tuning_table.DOC, search.name)[1] == tuning_table.table(ROWS[name], search).strip()


@pytest.mark.parametrize("table", experiment_tables.TABLES, ids=lambda table: table.rows)
def test_tables_2_and_3(table: experiment_tables.Table) -> None:
    assert documents.split(experiment_tables.DOC, table.rows)[1] == experiment_tables.lines(table).strip()


@pytest.mark.parametrize("name", discrete_tables.TABLES)
def test_the_tables_over_choices(name: str) -> None:
    document, table = discrete_tables.TABLES[name]
    assert documents.split(document, name)[1] == table().strip()

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def statements(text):
    """The statements of the first SQL block under "The SQL API"."""
    _, _, section = text.partition("## The SQL API\n")
    section, _, _ = section.partition("\n## ")
    block = re.search(r"```sql\n(.*?)```", section, re.DOTALL)
    return [part.strip() for part in re.split(r";[^\n']*\n", block[1]) if part.strip()] if block else []


def test_the_statements_of_a_block_are_told_apart():
    text = "```sql\nselect 0;\n```\n## The SQL API\n\n```sql\n-- why\nselect ';' as a,\n    2;\nselect 3; -- so\n```\n## More\n"
    assert statements(text) == ["-- why\nselect ';' as a,\n    2", "select 3"]
    assert statements("## The SQL API\n\n## More\n```sql\nselect 0;\n```\n") == []


def test_the_session_in_the_readme_answers_an_application(shop):
    session = statements(README.read_text())
    assert session
    # As `make psql`: ids are those of the shop.
    shop.execute("select set_config('souk.pseudonym_key', %s, false)", ["ab" * 32])
    shop.execute("set role souk_app")
    for statement in session:
        found = shop.execute(statement)
        assert found.description is None or found.fetchall(), f"nothing comes back: {statement}"

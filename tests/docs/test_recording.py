"""The terminal recording in README."""

from tests.docs.recording import SVG, draw, record, without_process_ids


async def test_the_recording_shows_what_the_program_prints() -> None:
    """A picture of an older version promises what a newcomer does not get. `make docs` draws it anew."""
    drawn = SVG.read_text(encoding="utf-8")
    assert without_process_ids(drawn) == without_process_ids(draw(await record()))
    assert len(drawn) < 60_000

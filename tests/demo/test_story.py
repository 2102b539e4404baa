"""The demonstration's reading of the log."""

import json
from pathlib import Path

from rotator.demo.story import Story


def line(event: str, level: str = "info", **fields: object) -> str:
    return json.dumps({"timestamp": "2026-03-01T00:00:00.5Z", "event": event, "level": level, **fields}) + "\n"


def test_a_life_is_counted_from_its_announcement_to_its_retirement(tmp_path: Path) -> None:
    """The very first key takes over from nobody, so its life is not a whole one."""
    story = Story(tmp_path / "log")
    with story.log.open("w") as log:
        for event, kid in [
            ("key.made", "first"),
            ("key.made", "second"),
            ("key.activated", "first"),
            ("key.demoted", "first"),
            ("key.activated", "second"),
            ("key.retired", "first"),
        ]:
            log.write(line(event, kid=kid))
    sentences = [sentence for _, sentence in story.follow()]
    assert [len(kids) for kids in (story.announced, story.took_over, story.retired)] == [2, 1, 1]
    assert not story.full_life_seen
    assert "key second took over from first, which still verifies" in sentences

    with story.log.open("a") as log:
        log.write(line("key.retired", kid="second"))
    story.follow()
    assert story.full_life_seen


def test_a_token_that_replaces_none_was_not_rotated(tmp_path: Path) -> None:
    """And a line that comes twice counts once, as the log is written at least once."""
    story = Story(tmp_path / "log")
    issued = [line("token.issued", workspace="acme", sequence=number, kid="first") for number in (1, 2, 2)]
    story.log.write_text("".join(issued))
    story.follow()
    assert story.rotated == {("acme", "2")}


def test_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """What is half written now is read the next time; what is no event is passed over."""
    story = Story(tmp_path / "log")
    text = "Traceback (most recent call last):\n[1]\n{}\n" + line("daemon.ready")
    story.log.write_text(text[:-5])
    assert story.follow() == []
    assert not story.ready
    story.log.write_text(text)
    assert [found.event for found, _ in story.follow()] == ["daemon.ready"]
    assert story.ready
    assert story.follow() == []


def test_what_goes_wrong_is_told_and_cannot_steer_the_terminal(tmp_path: Path) -> None:
    story = Story(tmp_path / "log")
    story.log.write_text(line("publish.failed", "error", problem="disk \x1b[31mfull\nmore", keyset="default"))
    ((found, sentence),) = story.follow()
    assert sentence == "error: publish.failed: disk [31mfull"
    assert found.subject == "default    disk [31mfull"


def test_a_grace_period_of_seconds_is_no_news(tmp_path: Path) -> None:
    """The config warns of it, rightly, anywhere but here."""
    story = Story(tmp_path / "log")
    story.log.write_text(line("config.warning", "warning", problem="grace_period 5s") + line("token.delivered"))
    assert [sentence for _, sentence in story.follow()] == ["", ""]
    assert list(story.lines) == []

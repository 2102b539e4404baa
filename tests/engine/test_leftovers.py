"""Files of workspaces and sinks that left the config: kept unless the config said otherwise, and then only ours go."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.core.events import EventName
from rotator.core.model import WorkspaceId
from rotator.core.policy import FileSink, Policy
from tests.engine.site import DAY, HOUR, MINUTE, Site, without

ACME = WorkspaceId("acme")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    found.policy = found.usual("acme", *(f"w{number}" for number in range(12)))
    yield found
    found.assert_sound()
    found.close()


def deleting(policy: Policy, name: str = "acme") -> Policy:
    """Return a policy whose files go with their workspace or sink."""
    wanted = policy.workspaces[WorkspaceId(name)]
    sinks = tuple(replace(sink, deletes=True) for sink in wanted.sinks if isinstance(sink, FileSink))
    return replace(policy, workspaces={**policy.workspaces, wanted.id: replace(wanted, sinks=sinks)})


def path(site: Site, name: str = "acme") -> Path:
    return Path(site.sink(name).path)


def remembered(site: Site) -> str:
    return str(site.query("SELECT deletes FROM workspaces WHERE id = 'acme'")[0][0])


def deleted(site: Site) -> list[object]:
    return [row.event.details["sink"] for row in site.events(EventName.FILE_DELETED)]


def last_applied(site: Site) -> object:
    return site.events(EventName.CONFIG_APPLIED)[-1].event.details["files_left"]


def test_a_file_stays_unless_the_config_says_otherwise_and_that_is_told(site: Site) -> None:
    site.main.start()
    held = path(site).read_text()
    site.main.load(without(site.policy, "acme"))
    assert path(site).read_text() == held
    assert last_applied(site) == 1
    assert deleted(site) == []


def test_a_file_goes_with_its_workspace(site: Site) -> None:
    site.main.start(deleting(site.policy))
    assert path(site).exists()
    site.main.load(without(site.policy, "acme"))
    assert not path(site).exists()
    assert path(site, "w1").exists()
    assert deleted(site) == [f"file:{path(site)}"]
    assert last_applied(site) == 0
    assert remembered(site) == ""


def test_a_file_goes_with_its_sink(site: Site) -> None:
    site.main.start(deleting(site.policy))
    bare = replace(site.policy.workspaces[ACME], sinks=(replace(site.sink("elsewhere"), deletes=True),))
    site.main.load(replace(site.policy, workspaces={**site.policy.workspaces, ACME: bare}))
    assert not path(site).exists()
    assert path(site, "elsewhere").exists()
    assert remembered(site) == f'["file:{path(site, "elsewhere")}"]', "its next removal"


def test_the_choice_of_now_counts(site: Site) -> None:
    """It can be made, and taken back, as long as the file is in the config."""
    whole = site.policy
    site.main.start()
    site.main.load(deleting(whole))
    assert remembered(site)
    site.main.load(whole)
    assert remembered(site) == ""
    site.main.load(without(whole, "acme"))
    assert path(site).exists()


@pytest.mark.parametrize("content", ["somebody's own\n", '{"token": 5}', '{"token": "x.y.z"}', "TOKEN=\n", "{"])
def test_a_file_that_holds_something_else_stays(site: Site, content: str) -> None:
    site.main.start(deleting(site.policy))
    path(site).write_text(content)
    site.main.load(without(site.policy, "acme"))
    assert path(site).read_text() == content
    assert remembered(site) == "", "it is nothing of ours, now and later"
    (left,) = site.log.named("file.left")
    assert left["problem"] == "it holds something else than a token that was written there"


def test_whatever_else_is_at_its_path_stays(site: Site, tmp_path: Path) -> None:
    site.main.start(deleting(site.policy))
    other = tmp_path / "other"
    path(site).rename(other)
    path(site).symlink_to(other)
    site.main.load(without(site.policy, "acme"))
    assert path(site).is_symlink()
    assert other.exists()


def test_a_file_that_another_sink_names_stays(site: Site) -> None:
    """As when a workspace gets a new id: its file is to hold the token of the new one, and be there without a break."""
    site.main.start(deleting(site.policy))
    site.main.post.failing.add(str(path(site)))
    renamed = replace(site.policy.workspaces[ACME], id=WorkspaceId("acme-2"))
    rest = without(site.policy, "acme")
    site.main.load(replace(rest, workspaces={**rest.workspaces, renamed.id: renamed}))
    assert path(site).exists()
    assert "a sink in the config has the same path" in str(site.log.named("file.left"))


def test_a_file_that_is_gone_already_is_no_problem(site: Site) -> None:
    site.main.start(deleting(site.policy))
    path(site).unlink()
    path(site).parent.rmdir() if not list(path(site).parent.iterdir()) else None
    site.main.load(without(site.policy, "acme"))
    assert remembered(site) == ""
    assert deleted(site) == [f"file:{path(site)}"]


def test_what_cannot_be_deleted_is_tried_again_and_named(site: Site) -> None:
    site.main.start(deleting(site.policy))
    site.main.post.failing.add(str(path(site)))
    site.main.load(without(site.policy, "acme"))
    subject = f"leftover:acme:file:{path(site)}"
    assert site.main.run.faults[subject] == "the sink is out of order"
    site.advance(MINUTE)
    assert path(site).exists()
    site.main.post.failing.clear()
    site.advance(HOUR)
    assert not path(site).exists()
    assert subject not in site.main.run.faults


def test_a_stop_amid_it_leaves_it_to_the_next_start(site: Site) -> None:
    """What is to go stands in the row, and not only in this process."""
    site.main.start(deleting(site.policy))
    site.main.post.hanging.add(str(path(site)))
    site.main.load(without(site.policy, "acme"))
    assert path(site).exists()
    site.main.stop()
    assert remembered(site)
    site.main.post.hanging.clear()
    site.main.start()
    assert not path(site).exists()
    assert len(deleted(site)) == 1


def test_a_workspace_that_is_dropped_by_mistake_keeps_its_file(site: Site) -> None:
    """A start with a config that drops too many of them holds them until somebody has accepted it."""
    site.main.start(deleting(site.policy))
    site.main.stop()
    names = [f"w{number}" for number in range(12)]
    site.main.start(without(site.policy, "acme", *names[:6]))
    site.advance(HOUR)
    assert path(site).exists()
    assert remembered(site)
    assert site.ask("config.accept", digest="", reason="meant").succeeded
    site.advance(MINUTE)
    assert not path(site).exists()


def test_a_workspace_that_comes_back_keeps_its_file(site: Site) -> None:
    whole = deleting(site.policy)
    site.main.start(whole)
    site.main.post.failing.add(str(path(site)))
    site.main.load(without(whole, "acme"))
    site.main.post.failing.clear()
    site.main.load(whole)
    site.advance(HOUR)
    assert path(site).exists()
    assert deleted(site) == []


def test_nobody_without_the_kek_can_have_a_file_deleted(site: Site) -> None:
    site.main.start()
    site.main.load(without(site.policy, "acme"))
    site.main.stop()
    site.meddle("UPDATE workspaces SET deletes = ? WHERE id = 'acme'", f'["file:{path(site)}"]')
    site.main.start()
    site.advance(HOUR)
    assert path(site).exists()


def test_after_its_token_ended_nobody_can_tell_whose_it_is(site: Site) -> None:
    site.main.start(deleting(site.policy))
    site.main.post.failing.add(str(path(site)))
    site.main.load(without(site.policy, "acme"))
    site.advance(5 * DAY)
    assert path(site).exists()
    assert remembered(site) == ""
    assert "no token that was written there is known any more" in str(site.log.named("file.left"))

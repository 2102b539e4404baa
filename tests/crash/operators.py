"""Stories of what people ask for: each request is stored before it is answered, and carried out once."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

from rotator.core.events import EventName
from rotator.core.model import Phase
from tests.crash.scenarios import PACE, Scenario, Story, begin, jump
from tests.crash.world import World
from tests.engine.site import HOUR, MINUTE, PROPAGATION
from tests.engine.test_import import OldIssuer, packed

CURRENT = "SELECT current FROM workspaces WHERE id = 'acme'"


def settled(world: World) -> None:
    """Let the spare be out for as long as it takes to sign."""
    begin(world)
    world.site.advance(PROPAGATION + HOUR, pace=PACE)
    (signer,), (spare, *_) = world.site.signing_keys(Phase.ACTIVE), world.site.signing_keys(Phase.PENDING)
    world.notes |= {"signer": signer.kid, "spare": spare.kid, "jti": world.site.query(CURRENT)[0][0]}


def request(world: World, kind: str, secret: bytes | None = None, /, **arguments: str) -> None:
    """Ask, unless that is stored already: then it is carried out without anybody asking again."""
    if not world.site.query("SELECT id FROM requests WHERE kind = ?", kind):
        world.site.accept(kind, None, secret, **arguments)
    world.daemon.settle()
    ((succeeded, result),) = world.site.query("SELECT succeeded, result FROM requests WHERE kind = ?", kind)
    assert succeeded, result
    world.site.advance(MINUTE, pace=MINUTE)


def after_a_stop(story: Story) -> Story:
    def resume(world: World) -> None:
        world.daemon.start()
        story(world)

    return resume


def revoke_key(world: World) -> None:
    signer = str(world.notes["signer"])
    world.site.revoked.add(signer)
    request(world, "key.revoke", kid=signer)
    world.notes["out"] = (signer,)


def key_revoked(world: World) -> None:
    signer = world.notes["signer"]
    assert [row.event.kid for row in world.site.events(EventName.KEY_REVOKED)] == [signer]
    assert signer not in world.daemon.kids()
    record = world.daemon.run.around.witness.read()
    assert record is not None
    assert signer in record.revoked_kids


def revoke_keyset(world: World) -> None:
    """As when the host was broken into: nothing signs until every verifier can know fresh keys."""
    world.site.revoked |= (
        {key.kid for key in world.site.signing_keys(Phase.ACTIVE, Phase.PENDING)}
        if (not world.site.query("SELECT id FROM requests"))
        else set()
    )
    request(world, "keyset.revoke", keyset="default", choice="wait")


def keyset_revoked(world: World) -> None:
    gone = {row.event.kid for row in world.site.events(EventName.KEY_REVOKED)}
    assert gone >= {world.notes["signer"], world.notes["spare"]}
    assert gone == world.site.revoked
    assert not gone & set(world.daemon.kids())


def kek_goes(world: World) -> None:
    settled(world)
    world.site.kek.rename(_kept(world))
    world.site.advance(MINUTE, pace=MINUTE)
    assert "kek" in world.daemon.run.faults


def _kept(world: World) -> Path:
    return world.site.kek.with_name("kek.kept")


def without_kek(kind: str, **argument: str) -> Story:
    """Have something revoked while the KEK is away, then let it come back."""

    def act(world: World) -> None:
        if "answered" not in world.notes:  # else nobody asks again
            _ask(world, kind, {name: str(world.notes.get(value, value)) for name, value in argument.items()})
        if _kept(world).exists():
            _kept(world).rename(world.site.kek)
        world.site.advance(MINUTE, pace=MINUTE)

    return act


MEANT = {"kid": "signer", "jti": "jti", "workspace": "jti"}


def _ask(world: World, kind: str, arguments: dict[str, str]) -> None:
    site, run = world.site, world.daemon.run
    names = {str(world.notes[MEANT[argument]]) for argument in arguments if argument in MEANT}
    if "keyset" in arguments:
        names = {key.kid for key in site.signing_keys(Phase.ACTIVE, Phase.PENDING)}
        world.notes["emptied"] = "nothing can be made that takes the place of what was revoked"
    site.revoked |= names
    request = site.accept(kind, None, **arguments)
    world.daemon.tick()
    answer = run.answers.wait(request.nonce, timedelta(0))
    assert answer is not None
    assert answer.succeeded, answer.text
    world.notes |= {"answered": kind, "out": tuple(names)}
    world.site.advance(HOUR, pace=HOUR)


def followed_once(world: World) -> None:
    """Hold that the database, the audit and the witness have it, once, as it was asked."""
    events = [row.event for row in world.site.events(EventName.KEY_REVOKED, EventName.TOKEN_REVOKED)]
    assert {event.jti or event.kid for event in events} == world.site.revoked
    assert {event.actor for event in events} == {"ada(1000)"}
    assert len(world.site.events(EventName.KEYSET_REVOKED)) <= 2, "asked twice at most"
    record = world.daemon.run.around.witness.read()
    assert record is not None
    assert {event.kid for event in events if event.name is EventName.KEY_REVOKED} <= record.revoked_kids


def revoke_token(world: World) -> None:
    jti = str(world.notes["jti"])
    world.site.revoked.add(jti)
    request(world, "token.revoke", jti=jti)


def token_revoked(world: World) -> None:
    jti = world.notes["jti"]
    assert [row.event.jti for row in world.site.events(EventName.TOKEN_REVOKED)] == [jti]
    assert world.site.query(CURRENT) != [(jti,)]


def revoke_workspace(world: World) -> None:
    world.site.revoked.add(str(world.notes["jti"]))
    request(world, "workspace.revoke", workspace="acme")


def workspace_revoked(world: World) -> None:
    assert len(world.site.events(EventName.WORKSPACE_REVOKED)) == 1
    token_revoked(world)


def replace_token(world: World) -> None:
    request(world, "token.replace", workspace="acme", overlap="7200")


def token_replaced(world: World) -> None:
    assert world.site.query(CURRENT) != [(world.notes["jti"],)]


def rotate(world: World) -> None:
    request(world, "keyset.rotate", keyset="default")
    jump(world, world.site.clock.wall + PROPAGATION + HOUR)


def rotate_at_once(world: World) -> None:
    request(world, "keyset.rotate_at_once", keyset="default", signing=str(world.notes["signer"]))


def settled_beside_another_system(world: World) -> None:
    settled(world)
    world.notes["old"] = json.dumps(OldIssuer().private)


def import_key(world: World) -> None:
    request(world, "key.import", packed(json.loads(str(world.notes["old"]))), keyset="default")


def imported_once(world: World) -> None:
    assert [row.event.kid for row in world.site.events(EventName.KEY_IMPORTED)] == ["old-2"]
    assert "old-2" in {key.kid for key in world.site.signing_keys()}


def rotated_once(world: World) -> None:
    told = [row.event.kid for row in world.site.events(EventName.KEY_DEMOTED)]
    assert len([kid for kid in told if kid == world.notes["signer"]]) == 1


def asking(act: Story, expect: Story, *, prepare: Story = settled, **least: int) -> Scenario:
    """Return the scenario of a request: who asked and got no answer asks again."""
    return Scenario(prepare=prepare, act=act, resume=after_a_stop(act), expect=expect, least=least)


OPERATORS: Mapping[str, Scenario] = MappingProxyType(
    {
        "revoke a key": asking(revoke_key, key_revoked, commit=8, rename=6, deliver=2),
        "revoke a keyset": asking(revoke_keyset, keyset_revoked, commit=8, rename=4),
        "revoke a key without the KEK": asking(
            without_kek("key.revoke", kid="signer"), followed_once, prepare=kek_goes, write=7, commit=8, deliver=2
        ),
        "revoke a keyset without the KEK": asking(
            without_kek("keyset.revoke", keyset="default"), followed_once, prepare=kek_goes, write=7, commit=8
        ),
        "revoke a token without the KEK": asking(
            without_kek("token.revoke", jti="jti"), followed_once, prepare=kek_goes, write=3, commit=4, deliver=1
        ),
        "revoke a workspace without the KEK": asking(
            without_kek("workspace.revoke", workspace="acme"), followed_once, prepare=kek_goes, write=3, commit=4
        ),
        "revoke a token": asking(revoke_token, token_revoked, commit=4, deliver=1, rename=2),
        "replace a token": asking(replace_token, token_replaced, commit=4, deliver=1, rename=2),
        "rotate a key": asking(rotate, rotated_once, commit=8),
        "rotate a key at once": asking(rotate_at_once, rotated_once, commit=6, rename=1),
        "revoke a workspace": asking(revoke_workspace, workspace_revoked, commit=4, deliver=1, rename=2),
        "import a key": asking(import_key, imported_once, prepare=settled_beside_another_system, commit=4, rename=4),
    }
)

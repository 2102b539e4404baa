import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given
from hypothesis import strategies as st

from rotator.config.crontab import check_cron


@pytest.mark.parametrize(
    ("text", "checked"),
    [
        ("0 3 * * sun", "0 3 * * sun"),
        ("  0   3 * * SUN ", "0 3 * * sun"),
        ("*/15 2-4 1,15 jan-mar mon-fri", "*/15 2-4 1,15 jan-mar mon-fri"),
        ("5/15 0 1-31/2 2 *", "5/15 0 1-31/2 2 *"),
    ],
)
def test_five_fields_are_taken(text: str, checked: str) -> None:
    assert checked == check_cron(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * sun", "has 6 fields"),
        ("@weekly", "nickname"),
        ("0 3 * * 0", "0 is Sunday to cron but Monday"),
        ("0 3 * * 7", "write its name"),
        ("0 3 * * 1-5", "write its name"),
        ("0 3 * * sun,1", "write its name"),
        ("0 3 * * sunday", "did you mean sun"),
        ("0 3 * * */2", "steps over weekdays"),
        ("0 3 * * fri-mon", "runs backwards"),
        ("0 3 * * -", "not a weekday"),
        ("60 3 * * sun", "60 is not a minute"),
        ("0 24 * * sun", "24 is not a hour"),
        ("0 3 0 * sun", "0 is not a day of the month"),
        ("0 3 * 13 sun", "13 is not a month"),
        ("0 3 * janu sun", "did you mean jan"),
        ("0 3 * jan/2 *", "not a month"),
        ("5-1 3 * * sun", "runs backwards"),
        ("*/0 3 * * *", "between 1 and 59"),
        ("*/60 3 * * *", "between 1 and 59"),
        ("0 3 */31 * *", "between 1 and 30"),
        ("5-10/6 3 * * *", "between 1 and 5"),
        ("a 3 * * *", "not a minute"),
        ("? 3 * * *", "not a minute"),
        ("0 3 L * *", "not a day of the month"),
        ("٣ 3 * * *", "not a minute"),
    ],
)
def test_each_mistake_has_its_own_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        check_cron(text)


FIELD = st.text("0123456789*/-, abcdefjlmnorstuvwy", max_size=8) | st.sampled_from(
    ["*", "*/5", "1-5", "1,2", "sun", "jan"]
)


@given(st.lists(FIELD, min_size=5, max_size=5).map(" ".join))
def test_what_is_taken_is_taken_by_the_scheduler_too(text: str) -> None:
    try:
        minute, hour, day, month, weekday = check_cron(text).split()
    except ValueError:
        return
    CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone="UTC")

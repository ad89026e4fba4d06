from __future__ import annotations

import pytest

from pipelines.data.personal import masked, personal_data


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mail jo.do+x@mail.example.com.", "mail <email>."),
        ("call +49 30 1234567 today", "call <phone> today"),
        ("card 4111 1111 1111 1111 or 5500-0000-0000-0004", "card <card> or <card>"),
        ("to DE89 3704 0044 0532 0130 00, please", "to <iban>, please"),
        ("a@b.de, a@b.de and 4111111111111111", "<email>, <email> and <card>"),
    ],
)
def test_personal_data_are_masked(text, found):
    assert masked(text, None)[0] == found


@pytest.mark.parametrize(
    "text",
    [
        "order 4111 1111 1111 1112 of 2024-05-17 10:30:00",  # no card by its check digit
        "DE88 3704 0044 0532 0130 00",  # no account by its check digits
        "version 1.2.3, room 12 @ 5 pm, 100 % of 1,234,567.89",
        "call 030 1234567",  # of no known country
        "x@y, @handle and me@localhost",
    ],
)
def test_what_only_looks_like_them_is_left(text):
    assert personal_data(text, None) == []


def test_a_region_knows_its_own_numbers():
    assert masked("call 030 1234567 or (415) 555-2671", "DE")[0] == "call <phone> or (415) 555-2671"
    assert masked("call 030 1234567 or (415) 555-2671", "US")[0] == "call 030 1234567 or <phone>"


def test_masks_are_counted_and_not_masked_again():
    text, counts = masked("a@b.de +49 30 1234567 c@d.fr", None)
    assert (text, dict(counts)) == ("<email> <phone> <email>", {"email": 2, "phone": 1})
    assert masked(text, "DE") == (text, {})

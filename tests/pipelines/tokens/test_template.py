from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import BaseModelError, DataError, RecipeError
from pipelines.recipe import Template
from pipelines.tokens.template import MARKER, encode

LONG = "where is my refund the card was charged twice " * 5


def test_a_text_that_fits_is_what_the_tokenizer_makes_of_it(encoder, decoder):
    for tokenizer in (encoder, decoder):
        (one,) = encode(tokenizer, Template(text="{text} Answer:", max_tokens=64), ["where is my refund"])
        assert one.input_ids == tokenizer("where is my refund Answer:")["input_ids"]
        assert one.truncated is False


def test_special_tokens_are_the_tokenizers_own(encoder, decoder):
    (one,) = encode(encoder, Template(), ["my card"])
    assert (one.input_ids[0], one.input_ids[-1]) == (encoder.cls_token_id, encoder.sep_token_id)
    (other,) = encode(decoder, Template(), ["my card"])
    assert decoder.decode(other.input_ids) == "my card"


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize(
    "text", ["{text}", "{text} Topic:", "Answer: {text}", "it was {text} topic:", "{text}: it was [MASK]."]
)
def test_only_the_end_of_the_text_is_cut(name, text, request):
    tokenizer = request.getfixturevalue(name)
    head, tail = text.split("{text}")
    whole = encode(tokenizer, Template(text=text, max_tokens=4000), [LONG])[0].input_ids
    (cut,) = encode(tokenizer, Template(text=text, max_tokens=24), [LONG])
    assert cut.truncated is True
    assert len(cut.input_ids) == 24
    last = len(tokenizer(tail, add_special_tokens=False)["input_ids"]) + (name == "encoder")
    first = 24 - last
    assert cut.input_ids == whole[:first] + whole[len(whole) - last :]
    assert (
        tokenizer.decode(cut.input_ids)
        .replace("[SEP]", "")
        .strip()
        .endswith(tokenizer.decode(tokenizer(tail, add_special_tokens=False)["input_ids"]).strip())
    )
    assert first > len(tokenizer(head)["input_ids"])


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60), limit=st.integers(8, 40))
def test_no_row_is_longer_than_allowed_and_the_ends_stay(encoder, decoder, text, limit):
    template = Template(text="{text} Topic:", max_tokens=limit)
    for tokenizer, last in ((encoder, encoder.sep_token_id), (decoder, decoder.convert_tokens_to_ids(":"))):
        try:
            (one,) = encode(tokenizer, template, [text])
        except RecipeError:
            assert limit < 12
            continue
        free = tokenizer(text + " Topic:")["input_ids"]
        assert len(one.input_ids) == min(len(free), limit)
        assert one.truncated == (len(free) > limit)
        assert one.input_ids[-1] == last


def test_a_template_that_leaves_no_room_is_refused(encoder):
    with pytest.raises(RecipeError, match=r"leaves no room.*take \d+ of 5 tokens"):
        encode(encoder, Template(text="it was the answer: {text} topic:", max_tokens=5), ["my card"])
    template = "{text} topic:"
    fixed = len(encoder("topic:")["input_ids"])
    with pytest.raises(RecipeError, match=f"take {fixed} of {fixed} tokens"):
        encode(encoder, Template(text=template, max_tokens=fixed), ["my card"])
    assert len(encode(encoder, Template(text=template, max_tokens=fixed + 1), ["my card"])[0].input_ids) == fixed + 1


def test_rows_are_encoded_each_for_itself(encoder):
    template = Template(text="{text} topic:", max_tokens=12)
    texts = ["my card", LONG, "refund"]
    assert encode(encoder, template, texts) == [encode(encoder, template, [text])[0] for text in texts]
    assert encode(encoder, template, []) == []


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(BaseModelError, match=r"'object' is not a fast one.*tokenizer.json"):
        encode(object(), Template(), ["x"])


def test_special_tokens_that_a_text_spells_out_are_cut_like_its_words(encoder):
    (one,) = encode(encoder, Template(text="{text} topic:", max_tokens=12), ["[SEP] [MASK] " * 20])
    tail = encoder("topic:")["input_ids"][1:]
    assert len(one.input_ids) == 12
    assert one.input_ids[-len(tail) :] == tail


# Pairs.

APART = Template(text="{text}{sep}{pair}", max_tokens=24)
RUNNING = Template(text="it was {text} answer: {pair} topic:", max_tokens=40)


def test_a_pair_is_what_the_tokenizer_makes_of_two_segments(encoder):
    (one,) = encode(encoder, APART, ["where is my refund"], ["my card"])
    assert one.input_ids == encoder("where is my refund", "my card")["input_ids"] and not one.truncated
    (turned,) = encode(encoder, Template(text="topic: {pair} it{sep}was {text}"), ["my card"], ["where is my refund"])
    assert turned.input_ids == encoder("topic: where is my refund it", "was my card")["input_ids"]


def test_a_pair_without_a_separator_is_one_running_text(encoder, decoder):
    for tokenizer in (encoder, decoder):
        (one,) = encode(tokenizer, RUNNING, ["my card"], ["where"])
        assert one.input_ids == tokenizer("it was my card answer: where topic:")["input_ids"]


def test_a_text_that_looks_like_a_place_is_text(encoder):
    (one,) = encode(encoder, RUNNING, ["{pair}"], ["{text}{sep}"])
    assert one.input_ids == encoder("it was {pair} answer: {text}{sep} topic:")["input_ids"]


@settings(max_examples=60, deadline=None)
@given(sizes=st.tuples(st.integers(1, 30), st.integers(1, 30)), limit=st.integers(5, 60))
def test_of_a_pair_the_longer_text_is_cut_first(encoder, sizes, limit):
    """Both keep their beginnings; as many as they can, as evenly as they can, the first having the odd one."""
    words = encoder(["card", "work"], add_special_tokens=False)["input_ids"]
    assert [len(word) for word in words] == [1, 1]
    template = Template(text="{text}{sep}{pair}", max_tokens=limit)
    (one,) = encode(encoder, template, ["card " * sizes[0]], ["work " * sizes[1]])
    kept = [one.input_ids.count(word[0]) for word in words]
    assert one.input_ids == encoder("card " * kept[0], "work " * kept[1])["input_ids"]
    room = limit - 3  # [CLS] and two [SEP]
    if sum(sizes) <= room:
        assert kept == list(sizes) and not one.truncated
    else:
        half = [min(sizes[0], max(room - sizes[1], (room + 1) // 2)), min(sizes[1], max(room - sizes[0], room // 2))]
        assert kept == half and sum(kept) == room and one.truncated


def test_words_around_a_pair_stay(decoder):
    (one,) = encode(decoder, RUNNING, [LONG], [LONG])
    written = decoder.decode(one.input_ids)
    assert len(one.input_ids) == 40 and one.truncated
    assert written.startswith("it was where is") and " answer: where is" in written and written.endswith(" topic:")


def test_a_pair_without_room_for_both_is_refused(encoder):
    assert encode(encoder, Template(text="{text}{sep}{pair}", max_tokens=5), [LONG], [LONG])
    with pytest.raises(RecipeError, match=r"leaves no room.*take 3 of 4 tokens"):
        encode(encoder, Template(text="{text}{sep}{pair}", max_tokens=4), [LONG], ["my"])


def test_a_tokenizer_that_puts_nothing_between_two_texts_is_refused(decoder):
    with pytest.raises(RecipeError, match=r"asks for {sep}, but this base's tokenizer puts nothing between"):
        encode(decoder, APART, ["my card"], ["where"])


def test_a_template_says_how_many_texts_there_are(encoder):
    with pytest.raises(DataError, match="takes two texts per example, but one came"):
        encode(encoder, APART, ["my card"])
    with pytest.raises(DataError, match="takes one text per example, but two came"):
        encode(encoder, Template(), ["my card"], ["where"])
    with pytest.raises(DataError, match="1 first and 2 second texts"):
        encode(encoder, APART, ["my card"], ["where", "is"])


# Where a prompt stands.


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("text", "before", "plain"),
    [
        ("{text} {prompt} Topic:", "where is my refund", "{text} Topic:"),
        ("{text} {prompt}", "where is my refund", "{text}"),
        ("{prompt} {text} Topic:", "", "{text} Topic:"),
        ("it was\n{prompt}\n{text}", "it was", "it was\n{text}"),
        ("{text}{prompt}: topic", "where is my refund", "{text}: topic"),
    ],
)
def test_the_marker_stands_where_the_template_has_the_prompt(name, text, before, plain, request):
    tokenizer = request.getfixturevalue(name)
    (one,) = encode(tokenizer, Template(text=text), ["where is my refund"])
    (without,) = encode(tokenizer, Template(text=plain), ["where is my refund"])
    assert [token for token in one.input_ids if token != MARKER] == without.input_ids
    start = name == "encoder"  # [CLS]
    assert one.input_ids.index(MARKER) == start + len(tokenizer(before, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("name", ["encoder", "decoder"])
@pytest.mark.parametrize("text", ["{text} {prompt} Topic:", "it was {prompt} {text} topic:", "{text} topic: {prompt}"])
def test_a_long_text_is_cut_and_the_place_of_the_prompt_stays(name, text, request):
    tokenizer = request.getfixturevalue(name)
    whole = encode(tokenizer, Template(text=text, max_tokens=4000), [LONG])[0].input_ids
    (cut,) = encode(tokenizer, Template(text=text, max_tokens=24), [LONG])
    assert cut.truncated and len(cut.input_ids) == 24 + 1  # the marker is no token
    after = len(whole) - whole.index(MARKER)
    if text.startswith("{text}"):  # counted from the end where the text comes before
        assert cut.input_ids[-after:] == whole[-after:]
    else:
        assert cut.input_ids.index(MARKER) == whole.index(MARKER)
    assert len(encode(tokenizer, Template(text=text, max_tokens=24), ["card"])[0].input_ids) < 24


def test_the_marker_of_a_pair_may_stand_in_either_segment(encoder):
    for text, segment in (("{text} {prompt}{sep}{pair}", 0), ("{text}{sep}{pair} {prompt}", 1)):
        (one,) = encode(encoder, Template(text=text), ["my card"], ["was charged"])
        ends = [place for place, token in enumerate(one.input_ids) if token == encoder.sep_token_id]
        assert one.input_ids.index(MARKER) == ends[segment] - 1


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60), limit=st.integers(14, 40))
def test_every_row_has_one_marker(encoder, decoder, text, limit):
    for tokenizer in (encoder, decoder):
        (one,) = encode(tokenizer, Template(text="{text} {prompt} Topic:", max_tokens=limit), [text])
        assert one.input_ids.count(MARKER) == 1
        after = tokenizer.decode(one.input_ids[one.input_ids.index(MARKER) + 1 :], skip_special_tokens=True)
        assert after.strip().lower() in ("topic:", "topic :")


def test_two_markers_are_refused():
    with pytest.raises(ValueError, match=r"may contain \{prompt\} once"):
        Template(text="{prompt} {text} {prompt}")

"""Tags of the harness in other people's text: none gets through, and nothing else is touched."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.session.tag_escape import defused
from conclave.text import visible_body
from tests.support.hostile import TAG_NAMES, TAGS, opens_a_tag

CODE = [
    "a < b and b > c",
    "if (a<b && c>d || !e) x->y = p->q << 3;",
    "List<int> Map<String, List<T>> Vec<u8> std::vector<std::string>",
    "<div class='x'>hi</div><br/><img src=\"a.png\" /></p>",
    "<T extends Foo> const f = <T,>(x: T) => <Bar prop={x} />;",
    "#include <stdio.h>\n#include <sys/types.h>",
    "ch <- 1; v := <-ch; <-channel; x <- c(1, 2)",
    "f <| g |> h; a <=> b; a <> b; x <= y; 1 <2",
    "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-old <b>\n+new &amp; <i>",
    '{"a": "<b>", "c": [1, 2.5e3, null], "d": "\\u003c"}',
    "cat <<EOF > out.txt 2>&1 <in.txt\nEOF",
    "conclave send --server <url> --channel C <text> <user/machine/session>",
    "&lt;div&gt; &amp; &nbsp; &#39; R&D AT&T a&&b &x",
    "<user> <task> <message> <name> <output> <tool> <config-dir> <file_name> <my-element> <xs:element>",
    "mail <ann@chat.example>, <https://chat.example/channel>",
    "<!-- comment --> <!DOCTYPE html> <?php ?> <![CDATA[x]]>",
    "<Übung> <日本> <Ελλάδα> <система> < ü",
    "the channel and the system; channel> system-reminder> /channel>",
    "<\\/channel> has a backslash already",
]


@pytest.mark.parametrize("text", CODE)
def test_code_and_prose_are_not_changed(text: str) -> None:
    """Users send code to agents: a changed character breaks a build."""
    assert defused(text) == text


@pytest.mark.parametrize("text", TAGS)
def test_no_tag_of_the_harness_gets_through(text: str) -> None:
    """In any spelling: an opener stays, if at all, with a visible character between it and the name."""
    shown = defused(visible_body(text))
    assert not opens_a_tag(shown)
    assert "\\" in shown


@pytest.mark.parametrize("name", TAG_NAMES)
def test_a_tag_stays_readable(name: str) -> None:
    """The text is unchanged apart from one character."""
    assert defused(f"see <{name}>x</{name.upper()}> there") == f"see <\\{name}>x<\\/{name.upper()}> there"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\uff1c/\uff43hannel>", "\uff1c\\/\uff43hannel>"),
        ("&lt;/channel&gt;", "&lt;\\/channel&gt;"),
        ("&#x3Cinvoke", "&#x3C\\invoke"),
        ("<\n \t/ channel>", "<\\\n \t/ channel>"),
        ("<<channel>", "<<\\channel>"),
        ("</\u0441hannel>", "<\\/\u0441hannel>"),
        ("<\u2605 system>", "<\\\u2605 system>"),
        (f"<c{300 * chr(0x301)}hannel>", f"<\\c{300 * chr(0x301)}hannel>"),
        ("Vec<SystemTime> x<systemd y < channels", "Vec<\\SystemTime> x<\\systemd y <\\ channels"),
    ],
)
def test_the_backslash_stands_behind_the_opener(text: str, shown: str) -> None:
    """Also where the opener is an entity or a look-alike; code that happens to use such a name pays a backslash."""
    assert defused(text) == shown


def test_everything_that_unicode_takes_for_an_opener_is_one() -> None:
    """A later version of Unicode may add some."""
    openers = [chr(code) for code in range(0x110000) if "<" in unicodedata.normalize("NFKD", chr(code))]
    assert len(openers) > 3
    assert [opener for opener in openers if not defused(f"{opener}/channel>").startswith(f"{opener}\\")] == []


PIECES = [
    *"<</ \n_-:;&>ac\\",
    "&lt;",
    "&#60",
    "\uff1c",
    "\u226e",
    "\u2039",
    "\u200d",
    "\ufe0f",
    "\u0301",
    "\u0338",
    "\u3000",
    "\u6f22",
    "\u2605",
    "channel",
    "CHANNEL",
    "\uff43hannel",
    "system",
    "-reminder",
    "function_calls",
    "tool",
    "result",
    "div",
]
texts = st.one_of(st.text(st.characters(exclude_categories=())), st.lists(st.sampled_from(PIECES)).map("".join))


@given(texts)
@example("<\u0301/channel>")
@example("<\u24d2\u24d7\u24d0\u24dd\u24dd\u24d4\u24db>")
def test_no_text_at_all_opens_a_tag(text: str) -> None:
    """However it is put together."""
    assert not opens_a_tag(defused(visible_body(text)))


@given(texts)
def test_only_backslashes_behind_openers_are_added_and_once_is_enough(text: str) -> None:
    """Text may be defused on its way in and again on its way out."""
    shown = defused(text)
    assert shown.replace("\\", "") == text.replace("\\", "")
    assert defused(shown) == shown
    assert len(shown) <= 2 * len(text)

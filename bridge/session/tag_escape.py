r"""Text in which no tag of the harness opens or closes. Pure, and in linear time.

Claude Code wraps what a channel brings in a tag, `<channel source="conclave" ...>` to `</channel>`, and speaks to the
model in tags of its own, such as `<system-reminder>`. Text from other people must not contain any of them. So a
backslash is put behind the `<` of each: `<\/channel>`, which is what Claude Code itself makes of the one tag that it
looks for. A tag is known by what its name begins with: in any case, behind any spaces and slashes, with any separators,
with accents or in look-alike letters, and behind everything that is read as `<`.

Nothing else is touched: `a < b`, `List<int>`, `<div>`, `x->y`, JSON and diffs come through as they are. Code that names
a type `SystemTime` gains a backslash; everybody sees it, and it is the cheaper mistake.

Why that is enough, although a list of names is never complete: the tag that ends the envelope is on it, so whatever
else passes for a tag remains inside, behind the sentence that says what it is; and the prefixes are those under which
harnesses invent new tags. Characters that are not drawn at all are not looked for here: `conclave.text` writes them out
before, and a tag with `\u200b` in its middle is none.
"""

import re
import unicodedata

_OPENERS = (
    "<\uff1c\ufe64\u226e"  # what Unicode takes for it: itself, in full width, small, and struck through
    "\u2039\u276e\u02c2\u1438\u16b2\U0001d236"  # what looks the same
    "\u3008\u2329\u27e8\u276c\u2770\u29fc"  # angle brackets
)

# What names of tags begin with; `-` stands for any separators, or none. Names that are one common word (`user`, `task`,
# `tool`) are not among them: they mean nothing to a harness, and code is full of them.
_STEMS = """
    channel | whisper | antml | system | reminder | claude | mcp
  | function | invoke | parameter | thinking | instructions | environment-context
  | (?: pre | post )-tool | tool- (?: use | result | call | response | output | error )
  | human | assistant | user- (?: prompt | memory | input | message | query | instructions )
  | local-command | command- (?: name | message | args | contents ) | bash- (?: input | output | stdout | stderr )
  | session-start | cross-session | teammate | agent- (?: message | notification )
  | task-notification | background-task | persisted-output
  | ide- (?: opened | selection | diagnostics ) | new-diagnostics
""".replace("-", "[-_:]*+")
_LONGEST_STEM = 24
"""No stem has more letters."""
_PIECE = 64
"""How much of a name is looked at in one go; mostly the first piece is enough."""

_STEM = re.compile(_STEMS, re.VERBOSE)

# Repetitions are possessive and end before the next opener, so that each character is read a few times at most.
_TAG = re.compile(
    rf"""
    (?P<opener> [{_OPENERS}] | & (?: lt | \#0*+60 | \#x0*+3c ) ;? )
    (?= [\s/_]*+
        (?: {_STEMS}
          | (?P<odd> [a-z0-9_:-]*+ [^\x00-\x7f{_OPENERS}] [^\x21-\x2c\x2e\x3b-\x40\x5b-\x5e\x60\x7b-\x7e{_OPENERS}]*+ )
        )
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What opens a tag, or may open one: `odd` begins beyond ASCII, and it remains to see what its letters say."""

# Letters that look like those of ASCII and are not made of them in Unicode's eyes.
_LOOK_ALIKE = str.maketrans(
    "асеһіјкӏмнопрԛѕтуѵԝхвԁгαβϲεηικνορτυχγωɑɡıɩʟłøđħŧᴀʙᴄᴅᴇꜰɢʜɪᴊᴋᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "acehijklmhonpqstyvwxbdrabceniknoptuxywagiillodhtabcdefghijkmnoprstuvwyz",
)


def defused(text: str) -> str:
    """Return the text with a backslash behind whatever opens or closes a tag; where there is one already, nothing."""
    return _TAG.sub(_defused_opener, text)


def _defused_opener(found: re.Match[str]) -> str:
    opener, odd = found["opener"], found["odd"]
    return f"{opener}\\" if odd is None or _reads_as_a_tag(odd) else opener


def _reads_as_a_tag(name: str) -> bool:
    """Tell whether a name begins like that of a tag, once accents, styles and foreign letters are taken for Latin."""
    letters = ""
    for start in range(0, len(name), _PIECE):
        plain = unicodedata.normalize("NFKD", name[start : start + _PIECE]).casefold().translate(_LOOK_ALIKE)
        letters += "".join(filter(str.isalnum, plain))
        if len(letters) >= _LONGEST_STEM:
            break
    return _STEM.match(letters) is not None

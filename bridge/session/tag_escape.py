r"""The escape of tags of the harness in text of other participants. Pure, and in linear time.

Claude Code wraps the events of a channel in a tag, `<channel source="conclave" ...>` to `</channel>`, and addresses the
model in tags of its own, such as `<system-reminder>`. Text of others must not contain any of them. So a backslash is
inserted after the `<` of each: `<\/channel>`, as Claude Code does itself for the one tag that it looks for. A tag is
recognised by the start of its name: in any case, after any spaces and slashes, with any separators, with accents or in
look-alike letters, and after every character that can be read as `<`.

Other text is not changed: `a < b`, `List<int>`, `<div>`, `x->y`, JSON and diffs. Code that names a type `SystemTime`
gets a backslash, which is visible, and the smaller mistake.

That is enough, although a list of names is never complete: the tag that ends the envelope is on it, so any other tag
stays inside the envelope, after the sentence that introduces the body; and the prefixes are those under which harnesses
add new tags. Characters that are not drawn are not handled here: `conclave.text` escapes them first, and a tag with
`\u200b` in its middle is not a tag.
"""

import re
import unicodedata

_OPENERS = (
    "<\uff1c\ufe64\u226e"  # its compatibility variants: itself, full width, small, struck through
    "\u2039\u276e\u02c2\u1438\u16b2\U0001d236"  # look-alikes
    "\u3008\u2329\u27e8\u276c\u2770\u29fc"  # angle brackets
)

# The starts of tag names; `-` stands for any separators, or none. Common single words (`user`, `task`, `tool`) are not
# among them: no harness uses them, and code is full of them.
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
"""An upper bound for the letters of a stem."""
_PIECE = 64
"""The number of characters that are normalised in one step; mostly the first step decides."""

_STEM = re.compile(_STEMS, re.VERBOSE)

# Repetitions are possessive and end before the next opener, so each character is read a few times at most.
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
"""The start of a tag; `odd` is a name with letters beyond ASCII, which `_reads_as_a_tag` judges."""

# Letters that look like ASCII letters and do not decompose to them in Unicode.
_LOOK_ALIKE = str.maketrans(
    "асеһіјкӏмнопрԛѕтуѵԝхвԁгαβϲεηικνορτυχγωɑɡıɩʟłøđħŧᴀʙᴄᴅᴇꜰɢʜɪᴊᴋᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "acehijklmhonpqstyvwxbdrabceniknoptuxywagiillodhtabcdefghijkmnoprstuvwyz",
)


def defused(text: str) -> str:
    """Return the text with a backslash after the start of each tag, unless there is one already."""
    return _TAG.sub(_defused_opener, text)


def _defused_opener(found: re.Match[str]) -> str:
    opener, odd = found["opener"], found["odd"]
    return f"{opener}\\" if odd is None or _reads_as_a_tag(odd) else opener


def _reads_as_a_tag(name: str) -> bool:
    """Tell if a name starts like that of a tag, after accents, styles and look-alike letters are mapped to ASCII."""
    letters = ""
    for start in range(0, len(name), _PIECE):
        plain = unicodedata.normalize("NFKD", name[start : start + _PIECE]).casefold().translate(_LOOK_ALIKE)
        letters += "".join(filter(str.isalnum, plain))
        if len(letters) >= _LONGEST_STEM:
            break
    return _STEM.match(letters) is not None

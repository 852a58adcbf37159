"""Text from outside: find a quote in it, make it safe to show, clean it for a model, see whether it gives orders.

Everything here is pure and works on text alone. What a customer wrote is stored as it came; these functions only
say what is in it. The invisible characters meant throughout are listed at `_INVISIBLE`.
"""

import base64
import re
import unicodedata
from bisect import bisect_right
from operator import itemgetter
from typing import NamedTuple

SHORTEST_QUOTE = 3  # Letters, digits and signs. Shorter words are found in nearly every text and prove nothing.


class Span(NamedTuple):
    """A place in a text: `text[start:end]`."""

    start: int
    end: int


# --- Quotes ---------------------------------------------------------------------------------------------------------

# Typographic variants that a model (or a mail program) changes without meaning to.
_VARIANTS = str.maketrans(
    dict.fromkeys("‘’‚‛ʼ`´′", "'") | dict.fromkeys("“”„‟«»″", '"') | dict.fromkeys("‐‑‒–—―−﹣－", "-")
)


def find(quote: str, text: str) -> tuple[Span, ...]:
    """Where `quote` stands in `text`, word for word; empty when it does not.

    Three differences are tolerated: the length and kind of a run of white space, the typographic variant of a quote
    mark or dash, and invisible characters (a model never saw them, see `for_model`). Everything else must agree,
    case and accents included. A quote shorter than `SHORTEST_QUOTE`, or without a letter or digit, is no evidence.
    """
    wanted = _folded(quote)[0].strip()
    if len(wanted) < SHORTEST_QUOTE or not any(character.isalnum() for character in wanted):
        return ()

    folded, kept = _folded(text)
    spans = []
    at = folded.find(wanted)
    while at >= 0:
        after = at + len(wanted)
        spans.append(Span(_place(kept, at), _place(kept, after - 1) + 1))
        at = folded.find(wanted, after)
    return tuple(spans)


def _folded(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text as quotes are compared; and where each stretch of it that was kept begins, here and in the original."""
    text = text.translate(_VARIANTS)
    parts: list[str] = []
    kept: list[tuple[int, int]] = [(0, 0)]
    length = before = 0
    for run in _BETWEEN.finditer(text):
        parts.append(text[before : run.start()])
        parts.append(" " if any(sign.isspace() and not _IS_INVISIBLE.match(sign) for sign in run.group()) else "")
        length += len(parts[-2]) + len(parts[-1])
        before = run.end()
        kept.append((length, before))
    parts.append(text[before:])
    return "".join(parts), kept


def _place(kept: list[tuple[int, int]], at: int) -> int:
    """The place in the original of the character at `at`, which is not white space."""
    here, original = kept[bisect_right(kept, at, key=itemgetter(0)) - 1]
    return original + at - here


# --- Characters that are not seen -----------------------------------------------------------------------------------

# Control (but tab and line breaks), soft hyphen, grapheme joiner, letter marks, fillers, zero width, bidirectional
# embeddings, overrides and isolates, surrogates, variation selectors, annotations, the tag block.
_INVISIBLE = (
    r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IS_INVISIBLE = re.compile(f"[{_INVISIBLE}]")
_BETWEEN = re.compile(rf"[\s{_INVISIBLE}]+")

# What some of them are needed for: a presentation selector after a sign or key, a joiner inside an emoji, a joiner
# or non-joiner in scripts that write with it (Arabic to Malayalam, Myanmar, Khmer, Mongolian).
_SIGN = r"#*0-9\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299"
_EMOJI = _SIGN + r"\U0001f000-\U0001faff"
_JOINED = r"\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17b3\u17b6-\u17ff\u1820-\u18af\ufb50-\ufdff\ufe70-\ufefc"
_COMBINING = r"\u0300-\u034e\u0350-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_NEEDED = rf"(?<=[{_EMOJI}])[\ufe0e\ufe0f]|(?<=[{_EMOJI}\ufe0f{_JOINED}])\u200d|(?<=[{_JOINED}])\u200c"
_HIDDEN = re.compile(rf"(?:(?!{_NEEDED})[{_INVISIBLE}]|(?<=[{_COMBINING}]{{4}})[{_COMBINING}])+")
_DECEPTIVE = re.compile(r"[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e0fff]|[\ufe00-\ufe0f]{3}")
_LINE_BREAK = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SHOWN_ONE_BY_ONE = 4


def visible(text: str) -> tuple[str, int]:
    """The text made safe to show, and how many characters in it would not have been seen.

    Each of those becomes a marker such as ⟨U+202E⟩; a long run becomes one marker that says how many there are. More
    than four combining marks in a row count as well. Every kind of line break becomes a plain one. The result is
    still a stranger's text: show it with widgets that take nothing but text.
    """
    count = 0

    def marker(match: re.Match[str]) -> str:
        nonlocal count
        run = match.group()
        count += len(run)
        if len(run) <= _SHOWN_ONE_BY_ONE:
            return "".join(f"⟨U+{ord(character):04X}⟩" for character in run)
        return f"⟨U+{ord(run[0]):04X} and {len(run) - 1} more⟩"

    return _LINE_BREAK.sub("\n", _HIDDEN.sub(marker, text)), count


def for_model(text: str) -> tuple[str, int]:
    """The text without what `visible` marks, and how many characters were removed."""
    removed = sum(len(run) for run in _HIDDEN.findall(text))
    return _HIDDEN.sub("", text), removed


def is_deceptive(text: str) -> bool:
    """Whether the text holds characters that make it read differently on a screen than in a machine: bidirectional
    overrides, the tag block, floods of variation selectors. Stray zero-width characters of mail programs do not."""
    return _DECEPTIVE.search(text) is not None


# --- Text that gives orders -----------------------------------------------------------------------------------------

_TURN = "imitates a turn of a conversation with a model"
_CODED = "hides text in an encoding"

# Searched for in lower case, with runs of white space folded. A list like this finds the common and misses the clever:
# it raises a flag for people and decides nothing.
_PHRASES: dict[str, tuple[str, ...]] = {
    "tells its reader to ignore instructions": (
        r"\b(ignore|disregard|forget|override|bypass)\b.{0,50}\b(instructions?|prompts?|rules|guidelines|directives)\b",
        r"\b(ignore|disregard|forget|override|bypass)\b.{0,50}\bpolic(y|ies)\b",
        r"\b(ignorier\w*|vergiss|vergessen sie)\b.{0,60}\b(anweisung\w*|vorgaben|regeln|richtlinien|instruktion\w*)",
        r"\b(ignor\w+|oubli\w+)\b.{0,60}\b(instructions?|consignes?|règles|directives)\b",
        r"\b(ignor\w+|olvid\w+|omit\w+)\b.{0,60}\b(instruccion\w*|reglas|indicaciones|directrices)\b",
        r"\b(ignor\w+|dimentic\w+)\b.{0,60}\b(istruzion\w+|regole|direttive)\b",
        r"\b(ignor\w+|esque[cç]\w+|desconsider\w+)\b.{0,60}\b(instruç\w+|regras|diretrizes)\b",
        r"\b(negeer|vergeet)\b.{0,60}\b(instructies?|regels|aanwijzingen)\b",
        r"\b(z?ignoruj\w*|pomiń\w*)\b.{0,60}\b(instrukcj\w*|polece\w*|zasad\w*)",
        r"(игнорируй|забудь).{0,60}(инструкци|указани|правил)|(ігноруй|забудь).{0,60}(інструкці|вказівк|правил)",
        r"(忽略|无视|忽視|無視).{0,20}(指令|指示|说明|說明|规则|規則|提示)",
        r"(指示|命令|ルール|プロンプト).{0,20}(無視|忘れ)|(지시|명령|규칙).{0,20}(무시|잊)",
        r"忘[记掉記][你您]的?.{0,4}(规则|規則|指令|指示)|(निर्देश|नियम).{0,30}(अनदेखा|भूल)|(دستور|قوانین).{0,40}(نادیده|فراموش)",
        r"(تجاهل|انس).{0,40}(التعليمات|الأوامر|القواعد)|(talimat|kural)\w*.{0,30}(yok say|görmezden gel|unut)",
    ),
    "speaks to a machine or of its prompt": (
        r"\b(system|developer|hidden|initial) (prompt|message|instructions?)\b|\bprompt injection\b|\bjailbreak",
        r"\bas an? (ai|assistant|language model|llm)\b|\b(large )?language model\b|\bdo anything now\b",
        r"\byou are (now )?(an?|the) (ai|assistant|llm|bot|chatbot|system|agent)\b|\bnew (instructions|task) ?:",
        r"\b(system|admin) override\b",
        r"\bals (ki|sprachmodell)\b|\ben tant qu'(ia\b|intelligence artificielle)|\bcomo (una )?ia\b|\bcome ia\b",
        r"系统提示|系統提示|作为(一个)?(ai|人工智能)|システムプロンプト|системн\w+ (промпт|подсказк)",
    ),
    _TURN: (
        r"<\|[a-z_ ]{2,30}\|>|\[/?inst\]|<</?sys>>|\[(system|assistant|developer)( override\b[^\]]{0,30})?\]",
        r"</?(system|assistant|developer|instructions?|data|untrusted\w{0,20})>",
        r"[\"']role[\"'] ?: ?[\"'](system|assistant|developer|tool)[\"']",
        r"\b(begin|end) (of )?(the )?(system|instructions|prompt|data)\b",
    ),
    "demands a decision in place of the reader": (
        r"\b(must|shall|have to|has to|required to|ordered to)\b.{0,20}\bapprove",
        r"\bapprove (this|the|my|all|it|immediately|now)\b|\bmark (this|it|the case) as (approved|valid|completed)",
        r"\brefund_in_(full|part)\b|\bamount_minor\b|\bverdict\b.{0,4}(refund|approve)",
        r"\bset (the )?(verdict|amount|destination)\b|\bskip (the )?(review|checks?)\b",
        r"\bwithout (any |a )?(human|manual )?(review|approval|checks?|checking)\b",
        r"\bgenehmigen sie\b|\bmuss genehmigt\b|\bapprouve[zr] (ce|cet|cette|le|la|mon)\b",
        r"\b(aprueb[ae]|apruebe|aprove) (este|esta|el|la|mi|o|a)\b|\bapprova (questo|questa|il|la)\b",
        r"одобри(ть|те)?\b|批准(此|这|该|本|退款)|承認して(ください|下さい)",
    ),
    "says that it is already approved": (
        r"\b(already|been|was|is|pre)[ -]?(approved|authori[sz]ed)\b",
        r"\b(manager|supervisor|director|ceo)\b.{0,40}\b(approved|authori[sz]ed)\b",
        r"\b(bereits|schon) (genehmigt|bewilligt)|\bdéjà (été )?(approuvé|validé|autorisé)",
        r"\bya (ha sido |fue |está )?aprobad|\bgià (stat[oa] )?approvat|\bjá (foi )?aprovad",
        r"\bal goedgekeurd|\bjuż zatwierdz|уже одобрен|已(经)?(被|获)?批准|承認済",
    ),
    "carries an image or a script": (
        r"!\[[^\]]{0,200}\]\(|<(img|script|iframe|svg)\b|\bjavascript:|\bdata:(text|image|application)/",
    ),
}
_ORDERS = {label: tuple(re.compile(phrase) for phrase in phrases) for label, phrases in _PHRASES.items()}
_TURN_LINE = re.compile(r"^[ \t>*#\"']{0,6}(system|assistant|developer|tool)[ \t*]{0,3}:", re.MULTILINE)
_BLOB = re.compile(r"[A-Za-z0-9+/_-]{32,}={0,2}")
_TAGS = re.compile(r"[\U000e0020-\U000e007e]+")


def find_instructions(text: str) -> list[str]:
    """What in the text looks like instructions to a model, each kind once, in words of ours and none of the text's.

    Empty means that nothing common was found, not that the text is harmless.
    """
    hidden = "".join(chr(ord(character) - 0xE0000) for run in _TAGS.findall(text) for character in run)
    plain = unicodedata.normalize("NFKC", for_model(text)[0])
    lined = f"{plain}\n{hidden}".lower()
    folded = " ".join(lined.split())

    found = [label for label, phrases in _ORDERS.items() if any(phrase.search(folded) for phrase in phrases)]
    if _TURN_LINE.search(lined):
        found.append(_TURN)
    if hidden.strip() or any(_is_coded_text(blob) for blob in _BLOB.findall(plain)):
        found.append(_CODED)
    return list(dict.fromkeys(found))


def _is_coded_text(blob: str) -> bool:
    """Whether base64 that decodes to words, not to the noise that a tracking number or an address decodes to."""
    standard = blob.replace("-", "+").replace("_", "/").rstrip("=")
    standard = standard[: len(standard) - (len(standard) % 4 == 1)]
    try:
        decoded = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode("utf-8")
    except ValueError:
        return False
    return " " in decoded.strip() and all(character.isprintable() or character in "\r\n\t" for character in decoded)

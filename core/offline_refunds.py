"""What a careful clerk with a list of words proposes for a refund request: no AI, no guess, the same every time. Pure.

It is given the data of a case as `refunds.case_data` writes it, and nothing else. An amount comes from the claim, the
orders or the customer's words; what none of them says is asked for. The words are those of the commonest complaints in
a dozen languages; a message in other words is asked for its reason.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core import amounts, money
from core.amounts import Mention
from core.workflows.refunds import STORE_CREDIT, Missing, Quote, Reason, RefundProposal

LONGEST_QUOTE = 240


def propose(data: Mapping[str, Any]) -> RefundProposal:
    """The proposal that the rules give for this case."""
    case = _read(data)
    reason = _reason(case)
    total = _total(case, reason)
    missing: list[Missing] = []
    if reason is None:
        missing.append("reason")
    if not case.orders and not _names_an_order(case):
        missing.append("order")
    if isinstance(total, _Lacking):
        missing += total.names
    if reason is not None and not missing and (ground := _ground_against(case, reason)):
        return _decline(reason, ground)
    if reason is not None and not missing:
        missing += _still_open(case, reason)
    if missing or reason is None or isinstance(total, _Lacking):
        return _ask(reason, missing)
    if total.minor == 0:
        return _decline(reason, _Ground(("R13",), "everything that was paid for it has already been refunded"))
    return _refund(case, reason, total)


# --- What the rules are given ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """The data, read: what the customer wrote, and the orders: those that they name, or all."""

    texts: tuple[str, ...]
    orders: tuple[Mapping[str, Any], ...]
    claimed: int | None
    currency: str | None


@dataclass(frozen=True)
class _Found:
    """A reason and the words that give it."""

    code: Reason
    clause: str
    quote: str


@dataclass(frozen=True)
class _Total:
    """The amount to refund, in full or in part, and the words that state it where there are any."""

    minor: int
    currency: str
    is_all: bool
    quote: str | None


@dataclass(frozen=True)
class _Lacking:
    names: tuple[Missing, ...]


@dataclass(frozen=True)
class _Ground:
    """Why the policy gives no refund: its clauses, and the words for the customer."""

    clauses: tuple[str, ...]
    words: str


def _read(data: Mapping[str, Any]) -> _Case:
    answers = [str(answer["untrusted_answer"]) for answer in data["untrusted_answers"]]
    texts = (str(data["untrusted_message"]), *answers)
    words = _all_words(texts)
    named = [order for order in data["orders"] if len(order["id"]) >= 3 and _is_named(order["id"], words)]
    return _Case(
        texts=texts,
        orders=tuple(named or data["orders"]),
        claimed=data["claimed_amount_minor"] or None,
        currency=data["claimed_currency"],
    )


# --- The reason -----------------------------------------------------------------------------------------------------

# Looked for in this order, in all texts, in lower case: the more telling complaint first. A line is about a language.
_WORDS: dict[Reason, tuple[str, ...]] = {
    "duplicate_charge": (
        r"(charged|billed|debited|paid|payed|taken)( \w+){0,4} (twice|two times|2 ?x|2 times|double)|two charges",
        r"(twice|two times) (charged|billed|debited)|double charge|duplicate (charge|payment|order)",
        r"(doppelt|zweimal|zwei mal) (ab\w+|be\w+|ein\w+)",
        r"(débité|prélevé|facturé)\w*( \w+)? (deux|2) fois",
        r"\bcobr\w+( \w+){0,3} (dos|2|duas) v\w+|doble (cargo|cobro)",
        r"\baddebit\w+( \w+){0,2} (due|2) volte",
        r"(twee|2) keer (af|in|be)\w+|dubbel (af|be)\w+",
        r"dwa razy|dwukrotnie|podwójn\w+",
        r"(списали|сняли)( \S+){0,2} (дважды|два раза)",
        r"重复(扣款|收费|付款)|扣了(两|2)次|二重(請求|に?引き落と)",
    ),
    "wrong_charge": (
        r"overcharged|charged (me )?(too much|more than|the wrong|without)|wrong (amount|price|charge)|unauthori[sz]ed",
        r"did(n't| not) authori[sz]e|never (ordered|bought|subscribed|signed up)|still (being )?charged",
        r"charged (me )?after|(took|taken) (too much|more) (money|than)",
        r"zu viel (ab\w+|be\w+)|falsche?r? (betrag|preis)|nicht autorisiert|nie bestellt",
        r"trop (débité|facturé|prélevé)|montant erroné|jamais commandé",
        r"\bcobrad\w+ de más|importe (incorrecto|equivocado)|cobran[çc]a indevida",
        r"addebito (errato|non autorizzato)|te veel (betaald|berekend|afgeschreven)",
        r"多收|乱扣",
    ),
    "not_received": (
        r"(never|not|hasn't|haven't|didn't|still no\w*)( \w+){0,3} (arrived?|received?|come|came|got|delivered)\b"
        r"(?! (my|the|a|any) (money|refund))",
        r"(never|not) (showed|turned|shown) up|non[- ]?delivery|lost in (the )?(post|mail|transit)",
        r"(parcel|package|order) (is|was|got|went) (lost|missing)|where is my (order|parcel|package)",
        r"still waiting (for|on) (my|the)",
        r"(nicht|nie|niemals)( \w+){0,2} (angekommen|erhalten|bekommen|geliefert|eingetroffen|zugestellt)",
        r"(jamais|pas|rien)( encore)?( été)? (reçu\w*|arrivé\w*|livré\w*)",
        r"\b(no|nunca|aún no|todavía no) (me )?(ha |he |han |hemos )?(lleg\w+|recib\w+|entreg\w+)",
        r"(mai|non)( \w+){0,2} (arrivat\w+|ricevut\w+|consegnat\w+)",
        r"\b(não|nunca|ainda não) (\w+ )?(chegou|recebi|recebemos|foi entregue)",
        r"(niet|nooit|nog niet)( \w+)? (aangekomen|ontvangen|geleverd|bezorgd)",
        r"\bnie (dotar\w+|otrzyma\w+|dosta\w+|przysz\w+|doręczon\w+)",
        r"не (пришл\w+|приш[её]л|получил\w*|доставил\w*|доставлен\w*)|не (отримав|отримала|прийшл\w+)",
        r"har (inte|ikke|aldrig) (fått|kommit|mottatt|fået|modtaget)|ikke (mottatt|modtaget|kommet)",
        r"teslim (edilmedi|almadım)|gelmedi",
        r"没(有)?(收到|到货)|未(收到|到货|送达)|[還沒]沒?(有)?收到|届(いて|か)(い)?な|未着",
    ),
    "wrong_item": (
        r"wrong (item|product|size|colou?r|order|one|thing|article|model|book|shoes?|shirt|parcel)",
        r"(sent|received|got|shipped|delivered)( \w+){0,3} (wrong|different|another) \w+|not what i (ordered|bought)",
        r"(sent|received|got|was) .{0,40} instead of (the|my|a)\b",
        r"falsche[rsn]? (artikel|produkt|ware|größe|farbe|teil|lieferung)|falsch geliefert",
        r"mauvaise? (article|produit|taille|couleur|modèle)|pas (le bon|la bonne)|erreur de (taille|produit)",
        r"(artículo|producto|talla|color|pedido) (equivocad|incorrect|errone)\w+",
        r"(articolo|prodotto) (sbagliat|errat)\w+|(produto|artigo|tamanho) errado",
        r"(verkeerde?|fout\w*) (artikel|product|maat|kleur|bestelling)",
        r"(zł\w+|niewłaściw\w+|pomylon\w+) (produkt|towar|rozmiar|przedmiot)|не (тот|та|то) (товар|размер|цвет)",
        r"yanlış (ürün|beden)|发错|寄错|送错|商品[がは]?(違|間違)|違う商品",
    ),
    "missing_item": (
        r"(item|part|piece|one|something|screws?|cable|accessor\w+)s? (is|are|was|were) missing|incomplete",
        r"missing (an? )?(item|part|piece|screw|cable|accessor)\w*|only (received|got)|(only|just) half",
        r"fehlt|fehlen|unvollständig|manque|incompl[eè]t|falta\b|faltan|manca\b|mancano",
        r"ontbreekt|ontbreken|onvolledig|incompleet|brakuje|niekompletn|не хватает|неполн",
        r"少了|缺[少件]|入っていな|足りな",
    ),
    "damaged": (
        r"\b(damaged?|broke\w*|crack\w*|shatter\w*|smash\w*|dent(ed|s)?|torn|ripp\w+|scratch\w*|leak\w*|crushed)\b",
        r"\b(defect\w*|faulty|in pieces|dead on arrival|spoiled|mou?ldy|rotten)\b|malfunction",
        r"(stopped|not|doesn't|won't|isn't|never) (work\w*|turn\w* on|switch\w* on|charg\w+|start\w*)\b",
        r"kaputt|beschädigt|defekt|zerbrochen|zerkratzt|funktioniert nicht|geht nicht|undicht|zerrissen",
        r"cassé|endommagé|abîmé|défectueu|brisé|ne (fonctionne|marche) (pas|plus)|en panne|déchiré",
        r"\b(rot[oa]|dañad\w+|defectuos\w+|averiad\w+|no funciona|estropead\w+)\b",
        r"\b(rott[oa]|danneggiat\w+|difettos\w+|non funziona)\b|quebrad\w+|danificad\w+|com defeito|não funciona",
        r"\b(kapot|beschadigd|stuk|werkt niet)\b|uszkodzon\w+|zepsut\w+|nie działa|pęknięt\w+",
        r"сломан\w*|разбит\w*|повреж\w+|не работает|\bбрак\b|бракованн|пошкоджен\w*|зламан\w*|не працює",
        r"trasig|sönder|skadad|ødelagt|kırık|bozuk|hasarlı|çalışmıyor",
        r"坏了|坏的|破损|损坏|碎了|壞了|破損|不能用|用不了|瑕疵|壊れ|故障|割れ|不良品|動か(ない|なかった)|고장|파손|مكسور|تالف|معيب",
    ),
    "not_as_described": (
        r"not as (described|advertised|pictured|shown|expected)|(misleading|false) (advert\w+|description|listing)",
        r"(looks?|is) nothing like|counterfeit|\bfake\b|not (genuine|authentic|original)|(poor|bad) quality",
        r"entspricht nicht|nicht wie (abgebildet|beschrieben)|fälschung|(pas|non) conforme|contrefaçon",
        r"no (es|era) como|no corresponde|falsificad\w+|diverso dalla|diferente d[ao] (descri|anún|foto)\w+",
        r"niet zoals|voldoet niet|niezgodn\w+|не соответствует|подделк",
        r"与描述不符|货不对板|假货|質量差|质量差|説明と違|偽物",
    ),
    "late_delivery": (
        r"\b(came|arrived|delivered|was|is|were|too|days|weeks|very|so) (too )?late\b|late delivery|delayed",
        r"zu spät|verspätet|verspätung|en retard|trop tard|retard de|con retraso|llegó tarde|demasiado tarde",
        r"in ritardo|troppo tardi|com atraso|atrasad\w+|te laat|spóźnion\w+|opóźnion\w+|za późno|опоздал\w*|задерж",
        r"太晚|迟到|延误|遅れ|遅延",
    ),
    "cancelled": (
        r"\bcancel\w*\b|stornier\w*|widerruf\w*|\bannul\w+|geannuleerd|anulow\w+|avbest\w+|afbest\w+|iptal",
        r"отмен(ил|ит|а|ён|ен)\w*|скасув\w+|取消|キャンセル|취소",
    ),
    "change_of_mind": (
        r"chang\w+ my mind|no longer (need|want)\w*|(don't|do not|didn't|did not) (need|want|like)\b",
        r"(doesn't|does not|didn't|did not|don't) fit|too (small|big|large|tight|loose|long|short)",
        r"(want|like|wish) to (return|send)|\breturn(ing)? (it|this|the|them|my)\b|by (mistake|accident)",
        r"(gefällt|passt) (mir )?nicht|nicht mehr (brauch|benötig|woll)\w*|zu (klein|groß|eng|weit)\b",
        r"zurück(schick|send|geb)\w+|changé d'avis|ne (me )?(plaît|convient|va) pas|trop (petit|grand)|renvoyer",
        r"cambi\w+ de (opinión|idea)|no lo (quiero|necesito)|no me (queda|gusta)|devolver|demasiado (pequeñ|grande)",
        r"cambiato idea|non mi (piace|va)|troppo (piccol|grand)|restituire|mudei de ideia|não (quero|preciso|serve)",
        r"van gedachten|past niet|terugsturen|retourneren|rozmyśli\w+|nie pasuje|za (mał|duż)\w+|zwróci\w+",
        r"передумал\w*|не подош\w+|вернуть (товар|заказ)|ångr\w+|passar inte",
        r"不想要|不喜欢|不合适|退货|太(大|小)|返品|サイズが合わ|반품",
    ),
}  # fmt: skip
_PATTERNS = {reason: re.compile("|".join(lines)) for reason, lines in _WORDS.items()}

_CLAUSES: dict[Reason, str] = {
    "duplicate_charge": "R7", "wrong_charge": "R7", "not_received": "R5", "wrong_item": "R4", "missing_item": "R4",
    "damaged": "R3", "not_as_described": "R3", "late_delivery": "R10", "cancelled": "R6", "change_of_mind": "R2",
}  # fmt: skip


def _reason(case: _Case) -> _Found | None:
    lowered = [(text, _lowered(text)) for text in case.texts]
    for code, pattern in _PATTERNS.items():
        for text, low in lowered:
            if match := pattern.search(low):
                return _Found(code, _CLAUSES[code], _sentence(text, match.start(), match.end()))
    return None


def _lowered(text: str) -> str:
    """Lower case with every character in its place, white space and apostrophes made plain."""
    lowered = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in text)
    return re.sub(r"\s", " ", lowered.replace("’", "'"))


_ENDS = re.compile(r"(?<=[.!?…])\s|[\r\n]|(?<=[。！？])")


def _sentence(text: str, start: int, end: int) -> str:
    """The sentence around `text[start:end]`, exactly as written; whole words of it where it is too long, and the
    beginning of a word that is longer still."""
    room = max(LONGEST_QUOTE - (end - start), 0) // 2
    first, last = max(start - room, 0), min(end + room, len(text))
    begins = [match.end() for match in _ENDS.finditer(text, first, start)]
    stops = _ENDS.search(text, end, last)
    begin = begins[-1] if begins else first
    stop = stops.start() if stops else last
    if not begins and first > 0:
        space = text.find(" ", first, start)
        begin = space if space >= 0 else start
    if not stops and last < len(text):
        stop = max(text.rfind(" ", end, last), end)
    return text[begin:stop].strip()[:LONGEST_QUOTE]


# --- The order ------------------------------------------------------------------------------------------------------

_ORDER = re.compile(
    r"(?:\b(?:order|bestell\w*|auftrag\w*|commande|pedido|orden|ordine|encomenda|bestelling|zamówieni\w*|objednávk\w*|"
    r"beställning\w*|ordre|sipariş|invoice|rechnung\w*|facture|factura|fattura|faktur\w*)|заказ\w*|замовленн\w*|"
    r"注文(?:番号)?|订单(?:号)?|訂單|주문)"
    r"[\s:#.,(№-]{0,4}(?:(?:number|n|no|nr|num|id|nummer|numéro|número|numero|n°|nº|is|was|ref|номер)[\s:#.,(№-]{1,4}){0,2}"
    r"[#№]?[a-z]{0,5}[-_/]?[0-9][\w/-]*[0-9](?![\w/-])(?! ?(?:day|week|month|year|tag|woche|monat|jour|semaine|mois|"
    r"día|semana|mes|giorn|settiman|dag|dni|дн|день|天))|(?<![\w&])#[0-9]{3,}",
    re.IGNORECASE,
)


def _names_an_order(case: _Case) -> bool:
    return any(_ORDER.search(text) for text in case.texts)


# --- The amount -----------------------------------------------------------------------------------------------------

_ASKS = re.compile(
    r"refund|money back|reimburs|pay me back|erstatt|geld zurück|rembours|reembols|devoluci|rimbors|terugbeta|"
    r"zwrot|возврат|вернуть|верните|повернен|återbetal|tilbagebetal|refusjon|iade|退款|退钱|返金|환불"
)

_MOST_AMOUNTS = 200  # Read in one text: who states more is not to be understood by rules.
_ALREADY = re.compile(
    r"\b(already|schon|bereits|déjà|già|już|redan|allerede)\b|\bya (me|nos|han|he)\b|\bjá (me|foi|recebi)\b|"
    r"уже|已经|すでに"
)


def _total(case: _Case, reason: _Found | None) -> _Total | _Lacking:
    """The amount: as claimed, or as the orders or the words give it; never more than is left where that is known."""
    stated = [(text, one) for text in case.texts for one in amounts.mentions(text)]
    currency = _currency(case, [one for _, one in stated])
    orders = [order for order in case.orders if order["currency"] in (None, currency)]
    left = _left(orders)
    if currency is None:
        return _Lacking(_unknown(case, stated))
    if left == 0:
        return _Total(0, currency, True, None)
    wanted = _wanted(case, reason, orders, _in_words(case, currency)) or left
    if isinstance(wanted, _Lacking):
        return wanted
    if wanted is None:
        return _Lacking(("amount",))
    minor = wanted if left is None else min(wanted, left)
    quote = next((_sentence(text, one.start, one.end) for text, one in stated if one.minor(currency) == minor), None)
    return _Total(minor, currency, left is None or minor == left, quote)


def _unknown(case: _Case, stated: Sequence[tuple[str, Mention]]) -> tuple[Missing, ...]:
    """What to ask when no one currency is known: it, if there is an amount; else the amount, which names it."""
    some = bool(stated) or case.claimed is not None or any(order["left_minor"] for order in case.orders)
    return ("currency",) if some else ("amount",)


def _currency(case: _Case, stated: Sequence[Mention]) -> str | None:
    """The one currency that claim, orders and words agree on; None when they do not, or when none says it."""
    of_orders = {order["currency"] for order in case.orders} - {None}
    given = {case.currency} - {None} or of_orders
    if len(given) > 1 or (of_orders and not given <= of_orders):
        return None
    if given:
        (currency,) = given
        contradicted = stated and not any(currency in one.currencies for one in stated)
        return None if contradicted and case.claimed is None else str(currency)
    certain = {one.currencies[0] for one in stated if len(one.currencies) == 1}
    certain = certain or {code for answer in case.texts[1:] for code in amounts.currencies(answer)}
    if len(certain) != 1 or any(not certain.intersection(one.currencies) for one in stated):
        return None
    return certain.pop()


def _left(orders: Sequence[Mapping[str, Any]]) -> int | None:
    known = [order["left_minor"] for order in orders]
    if not known or None in known or sum(known) > money.LARGEST_MINOR:
        return None
    return int(sum(known))


def _in_words(case: _Case, currency: str) -> int | None:
    """The amount that the words state: in the latest text that states any, where they ask for money back if that is
    what tells several apart; None where several remain. What somebody already paid back is not it."""
    for text in reversed(case.texts):
        sums: dict[int, bool] = {}
        for one in amounts.mentions(text)[:_MOST_AMOUNTS]:
            sentence = _lowered(_sentence(text, one.start, one.end))
            if (minor := one.minor(currency)) and not _ALREADY.search(sentence):
                sums[minor] = sums.get(minor, False) or _ASKS.search(sentence) is not None
        asked = [minor for minor, is_asked in sums.items() if is_asked]
        for candidates in (list(sums), asked):
            if len(candidates) == 1:
                return candidates[0]
        if sums:
            return None
    return None


def _wanted(
    case: _Case, reason: _Found | None, orders: Sequence[Mapping[str, Any]], in_words: int | None
) -> int | _Lacking | None:
    """What the customer is to get before the limit of what is left; None: all of that."""
    if case.claimed is not None:
        return case.claimed
    code = reason.code if reason else None
    goods = [item for order in orders for item in order["items"] if item["category"] != "shipping"]
    if code == "duplicate_charge":
        return _doubled(orders) or in_words or _Lacking(("amount",))
    if code == "wrong_charge":
        return in_words or _Lacking(("amount",))
    if code == "late_delivery":
        fees = [_price(item) for order in orders for item in order["items"] if item["category"] == "shipping"]
        return (fees[0] if len(fees) == 1 else None) or in_words or _Lacking(("amount",))
    if code in _ABOUT_ITEMS and len(goods) > 1:
        words = _all_words(case.texts)
        named = [item for item in goods if _is_named(item["untrusted_name"], words)]
        return (_price(named[0]) if len(named) == 1 else None) or in_words or _Lacking(("item",))
    return in_words


_ABOUT_ITEMS: frozenset[Reason | None] = frozenset({"damaged", "wrong_item", "missing_item", "not_as_described"})


def _doubled(orders: Sequence[Mapping[str, Any]]) -> int | None:
    """The amount that was paid twice for one order, of which nothing was paid back yet."""
    for order in orders:
        if order["left_minor"] != order["paid_minor"]:
            continue
        paid = [payment["amount_minor"] for payment in order["payments"]]
        twice = [amount for amount in paid if amount and paid.count(amount) == 2]
        if twice:
            return int(twice[0])
    return None


def _price(item: Mapping[str, Any]) -> int | None:
    total = (item["price_minor"] or 0) * item["quantity"]
    return int(total) if 0 < total <= money.LARGEST_MINOR else None


def _is_named(name: str, words: str) -> bool:
    """Whether `words` (of `_all_words`) name it, in singular or plural."""
    wanted = " ".join(name.lower().split())
    if not wanted or wanted not in words:
        return False
    return re.search(rf"(?<!\w){re.escape(wanted)}s?(?!\w)", words) is not None


def _all_words(texts: Iterable[str]) -> str:
    return " ".join(" ".join(texts).lower().split())


# --- What the policy says -------------------------------------------------------------------------------------------

_NOT_TAKEN_BACK = ("digital", "gift_card", "made_to_order", "perishable")


def _ground_against(case: _Case, reason: _Found) -> _Ground | None:
    windows = [order["windows"].get(reason.code, "none") for order in case.orders]
    if windows and all(window == "over" for window in windows):
        return _Ground((reason.clause,), "the time limit for this reason is over")
    if reason.code == "cancelled" and any(order["status"] in ("shipped", "delivered") for order in case.orders):
        return _Ground(("R6",), "it had already left when it was cancelled; once it is there, it can be returned")
    items = [item for order in case.orders for item in order["items"] if item["category"] != "shipping"]
    stays = [item["final_sale"] or item["category"] in _NOT_TAKEN_BACK for item in items]
    if reason.code == "change_of_mind" and stays and all(stays):
        return _Ground(("R2", "R8"), "these items are not taken back for a change of mind")
    return None


def _still_open(case: _Case, reason: _Found) -> list[Missing]:
    """What the reason needs and nothing says yet. It is asked once: the answer is words, for a person to read."""
    if len(case.texts) > 1:
        return []
    if reason.code == "change_of_mind" and any(order["windows"][reason.code] == "unknown" for order in case.orders):
        return ["delivery_date"]
    if reason.code == "not_received" and any(order["status"] == "delivered" for order in case.orders):
        return ["delivery_check"]
    return []


_WANTS_CREDIT = re.compile(
    r"store credit|shop credit|\b(a|as|for) voucher\b|als gutschein|gutschein statt|bon d'achat|vale de compra|"
    r"buono (acquisto|sconto)|winkeltegoed|bon podarunkowy|购物券"
)


def _destination(case: _Case, total: _Total) -> str:
    """The payment that can take it; store credit when the customer asks for that, or none can."""
    if any(_WANTS_CREDIT.search(_lowered(text)) for text in case.texts):
        return STORE_CREDIT
    able = [
        payment
        for order in case.orders
        if order["currency"] in (None, total.currency)
        for payment in order["payments"]
        if payment["amount_minor"] is None or payment["amount_minor"] >= total.minor
    ]
    if not able or (len(case.orders) > 1 and len(able) > 1):
        return STORE_CREDIT
    exact = [payment for payment in able if payment["amount_minor"] == total.minor]
    return str((exact or able)[0]["destination"])


# --- The answer -----------------------------------------------------------------------------------------------------


def _refund(case: _Case, reason: _Found, total: _Total) -> RefundProposal:
    destination = _destination(case, total)
    shown = money.show(total.minor, total.currency)
    where = "as store credit" if destination == STORE_CREDIT else "to the payment method that you used"
    part = "" if total.is_all else " This is for the part of the order that your message is about."
    evidence = [Quote(field="reason_code", quote=reason.quote)]
    if total.quote is not None:
        evidence.append(Quote(field="amount_minor", quote=total.quote))
    return RefundProposal(
        verdict="refund_in_full" if total.is_all else "refund_in_part",
        amount_minor=total.minor,
        currency=total.currency,
        destination=destination,
        reason_code=reason.code,
        clauses=[reason.clause, *([] if total.is_all else ["R9"]), "R11"],
        evidence=evidence,
        reply=f"Hello,\n\nwe are sorry for the trouble. We refund {shown} {where}.{part}\n\nKind regards",
        missing=[],
    )


def _decline(reason: _Found, ground: _Ground) -> RefundProposal:
    return RefundProposal(
        verdict="decline",
        amount_minor=0,
        currency=None,
        destination=None,
        reason_code=reason.code,
        clauses=list(ground.clauses),
        evidence=[Quote(field="reason_code", quote=reason.quote)],
        reply=f"Hello,\n\nthank you for writing. We cannot refund this order, because {ground.words}.\n\nKind regards",
        missing=[],
    )


def _ask(reason: _Found | None, missing: Sequence[Missing]) -> RefundProposal:
    return RefundProposal(
        verdict="needs_information",
        amount_minor=0,
        currency=None,
        destination=None,
        reason_code=reason.code if reason else "other",
        clauses=["R1"],
        evidence=[Quote(field="reason_code", quote=reason.quote)] if reason else [],
        reply="Hello,\n\nthank you for writing. To decide on a refund we need a little more from you.\n\nKind regards",
        missing=list(dict.fromkeys(missing)),
    )

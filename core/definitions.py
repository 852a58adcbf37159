"""What each figure of the metrics asks and means, exactly: words for the page, the command line and JSON. Pure."""

from core.figures import Said

SAID: dict[str, Said] = {
    "flow": Said(
        "flow",
        "How many cases come in, and how many leave?",
        "Cases submitted in the bucket, and moves by which a case completed, was withdrawn or failed, each at its own "
        "time.",
        "count of submissions; count of moves to completed, cancelled and failed, those of a rollback left out",
        "event time",
        "cases",
        "lines",
    ),
    "waiting_now": Said(
        "flow",
        "What waits right now, and for how long?",
        "Age of the cases that wait at this moment: for machine work since it was due, for people since the case came "
        "to them.",
        "now - due at, for cases that are due; now - entered, for cases with a person; median and oldest",
        "now",
        "seconds",
        "ages",
    ),
    "lead_time": Said(
        "flow",
        "How long does a case take, from submission to its end?",
        "Time from the submission to the move by which a case completed or was withdrawn, for cases closed in the "
        "bucket. A reopened case closes at its last ending; a rollback does not change when the work was done.",
        "closed at - submitted at; percentiles by nearest rank",
        "completion time",
        "seconds",
        "lines",
    ),
    "time_in_state": Said(
        "flow",
        "Where does that time go?",
        "Average time that the cases closed in the bucket had spent in each state and step until then. The parts add "
        "up to the average lead time.",
        "sum over the cases of (left - entered) / cases closed; pending/apply until its due time is the hold",
        "completion time",
        "seconds",
        "bars",
    ),
    "queue_time": Said(
        "flow",
        "How long does machine work wait for a worker?",
        "Time from when an attempt could have started to when it did, for attempts started in the bucket. Planned "
        "waits between tries and the hold after an approval do not count; waiting for a person never does.",
        "started at - eligible at, of each attempt; percentiles by nearest rank",
        "event time",
        "seconds",
        "lines",
    ),
    "review_wait": Said(
        "flow",
        "How long do people take to decide?",
        "Time from when a case came before a person to the verdict, for verdicts given in the bucket. A case that a "
        "person passes up begins to wait anew; one that its deadline passes up does not.",
        "verdict at - came before a person at; percentiles by nearest rank",
        "event time",
        "seconds",
        "lines",
    ),
    "completion": Said(
        "quality",
        "Do cases complete in time?",
        "Of the cases submitted in the bucket, the share that reached completed within {hours}. Cases withdrawn within "
        "{hours} are left out. A declined case is completed; one that was rolled back later stays so.",
        "cases completed within {hours} of their submission / (cases submitted - cases withdrawn within {hours})",
        "arrival cohort",
        "share",
        "rate",
    ),
    "flow_rate": Said(
        "quality",
        "Of what ends, how much completes?",
        "Of the endings in the bucket, the share that are completions, whenever the case was submitted. It shows the "
        "load, not the quality: while a backlog grows, the easy cases end first.",
        "moves to completed / moves to completed, failed or cancelled",
        "event time",
        "share",
        "rate",
    ),
    "straight_through": Said(
        "quality",
        "How many cases complete without a person?",
        "Of the cases submitted in the bucket, the share that completed within {hours} with no act of any person after "
        "the submission, answers of the submitter included. Cases withdrawn within {hours} are left out.",
        "cases completed within {hours} with no event of a person but the submission / (cases submitted - withdrawn)",
        "arrival cohort",
        "share",
        "rate",
    ),
    "reversal": Said(
        "quality",
        "How much had to be rolled back?",
        "Of the cases whose effects were applied in the bucket, the share that was rolled back since, up to now.",
        "cases rolled back / cases whose effects were applied",
        "completion time",
        "share",
        "rate",
    ),
    "review_rate": Said(
        "quality",
        "How often does a proposal go to a person, and why?",
        "Of the cases that got their first usable proposal in the bucket, the share that came before a person then or "
        "later, by the cause of the first time. Cases are counted, not rounds.",
        "cases that entered review / cases with a usable proposal, by the time of the first proposal",
        "event time",
        "share",
        "shares",
    ),
    "review_causes": Said(
        "quality",
        "What brings cases before a person?",
        "Different cases that came to waiting for review or escalated in the bucket, by cause; model failures, "
        "reopened and taken back cases included.",
        "different cases with a move into review, by the cause of the move",
        "event time",
        "cases",
        "bars",
    ),
    "reviewed_share": Said(
        "quality",
        "How many completed cases did a person decide?",
        "Of the cases completed in the bucket, the share with at least one verdict of a person. It is not the review "
        "rate: that counts proposals, this counts endings.",
        "completed cases with a verdict of a person / completed cases",
        "completion time",
        "share",
        "rate",
    ),
    "override_rate": Said(
        "quality",
        "How often do people change what the model proposed?",
        "Of the cases with a usable proposal whose final decision a person made in the bucket, the share where a "
        "material field was changed or the decision turned into its opposite.",
        "cases decided with a material change, a flip, or every material field replaced / cases decided by a person on "
        "a usable proposal",
        "event time",
        "share",
        "rate",
    ),
    "decision_classes": Said(
        "quality",
        "What do people do with proposals?",
        "Verdicts of people in the bucket, each in one class: unchanged, cosmetic or material edit, flipped, every "
        "material field replaced, sent back, asked, passed up, by hand, or decided where there was no proposal.",
        "count of verdicts; rejecting a proposal that would have done something is a flip",
        "event time",
        "verdicts",
        "bars",
    ),
    "model_calls": Said(
        "model",
        "How often is the model called?",
        "Requests that left for the provider: retries, time-outs, unusable answers and re-runs included.",
        "sum of the requests of each attempt, by the attempt's start; the built-in rules are no model",
        "event time",
        "requests",
        "bars",
    ),
    "tokens": Said(
        "model",
        "How many tokens does it use?",
        "Tokens that the provider reported, in five buckets that do not overlap: the three of input add up to its "
        "total of input, the two of output to its total of output.",
        "sum over the attempts with a reported usage, by their start",
        "event time",
        "tokens",
        "bars",
    ),
    "cost": Said(
        "model",
        "What does the model cost?",
        "Cost of the calls begun in the bucket at the prices in force then, stored with each call, never repriced.",
        "sum over the attempts of tokens x unit price; estimated: tokens counted here, not by the provider",
        "event time",
        "nano-dollars",
        "bars",
    ),
    "cost_status": Said(
        "model",
        "How sure is that cost?",
        "Attempts begun in the bucket by what is known of their cost: priced, estimated, no price known, no usage "
        "known, or answered by the built-in rules, where no model is called.",
        "count of attempts by cost status",
        "event time",
        "attempts",
        "bars",
    ),
    "cost_by_model": Said(
        "model",
        "Which model costs what?",
        "The known cost of the calls begun in the bucket, by the model that answered.",
        "sum of the priced and estimated cost by model",
        "event time",
        "nano-dollars",
        "bars",
    ),
    "latency": Said(
        "model",
        "How long does a call take?",
        "Time from the first byte sent to the last received, of calls begun in the bucket; calls with a valid answer "
        "and others apart, because quick refusals would flatter the figure.",
        "response end - request start, by the monotonic clock; percentiles by nearest rank",
        "event time",
        "seconds",
        "lines",
    ),
    "model_failures": Said(
        "failures",
        "Why do attempts to get a proposal fail?",
        "Of the attempts to get a proposal started in the bucket, the share that failed, by category; every failed "
        "attempt has exactly one.",
        "failed attempts of the category / all attempts started",
        "event time",
        "share",
        "shares",
    ),
    "effect_failures": Said(
        "failures",
        "Why do effects fail to be applied?",
        "Of the attempts to apply an effect started in the bucket, the share that failed, by category.",
        "failed attempts of the category / all attempts started",
        "event time",
        "share",
        "shares",
    ),
    "undo_failures": Said(
        "failures",
        "Why do rollbacks fail?",
        "Of the attempts to undo an effect started in the bucket, the share that failed, by category.",
        "failed attempts of the category / all attempts started",
        "event time",
        "share",
        "shares",
    ),
    "case_failures": Said(
        "failures",
        "Which failures end the machine's work on a case?",
        "Different cases that the machine gave up in the bucket, at the model or at an effect, by the category of the "
        "last straw.",
        "different cases with a move to failed, to a person without a usable proposal, or with an effect in doubt",
        "event time",
        "cases",
        "bars",
    ),
    "manual_fallback": Said(
        "failures",
        "How many cases did people decide without the model?",
        "Cases whose final decision, made in the bucket, used no proposal of the model, by cause: it failed or was "
        "late, every material field was replaced, or the case was taken by hand.",
        "count of final decisions without a proposal, with every material field replaced, or by hand",
        "event time",
        "cases",
        "bars",
    ),
    "manual_share": Said(
        "failures",
        "Which share of all decisions is that?",
        "Of the cases whose final decision was made in the bucket, by a person or a policy, the share decided without "
        "a usable proposal.",
        "manual fallback / cases decided",
        "event time",
        "share",
        "rate",
    ),
}

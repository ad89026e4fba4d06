"""What customers of a shop for home devices and subscriptions say, queue by queue.

Every queue has three banks, all in the customer's words:

- `requests` complete "could you ..."; they are what a ticket asks for, or what it says it does not ask for;
- `problems` are whole clauses; they are the reason for a ticket, or a story told on the way;
- `topics` are noun phrases, for a mention in passing.

The queues overlap on purpose (a payment is a matter for billing, refunds, security or cancellation). The routing rule
is the one a support desk uses: *what the customer wants done now decides*, not what else the ticket mentions.
`{slots}` are filled by `frames.SLOTS`.
"""

from __future__ import annotations

from typing import NamedTuple

Bank = tuple[str, ...]


class Queue(NamedTuple):
    """One queue: its share of all tickets in percent, its nearest neighbours, its words."""

    share: int
    neighbours: Bank
    requests: Bank
    problems: Bank
    topics: Bank


BILLING = Queue(
    share=18,
    neighbours=("refunds", "security", "cancellation", "sales", "account"),
    requests=(
        "explain the {amount} line on my {month} invoice",
        "send me a proper invoice with our company name on it",
        "move my payments from the old card to the new one",
        "correct the tax on the invoice for the {product}",
        "tell me why {plan} suddenly costs {amount}",
        "shift the payment date to the start of the month",
        "add our purchase order number to the {month} statement",
        "check why my card was declined for {plan}",
        "put both subscriptions on a single statement",
        "resend the receipt for order {order}",
        "take the discount code into account on the next invoice",
        "let me pay by bank transfer instead of by card",
        "work out why two lines for {plan} show up on one bill",
        "switch me from monthly to yearly payments",
        "change the billing address that is printed on the receipts",
        "have someone go through the numbers of the {month} statement with me",
    ),
    problems=(
        "the total on my {month} statement does not match the price on your site",
        "the receipt for order {order} never turned up in my inbox",
        "{plan} was {amount} last {month} and now it is more",
        "my card expired and the payment page will not take the new one",
        "our bookkeeper cannot file the {month} invoice without a tax number",
        "the promised discount is missing from what I was charged",
        "I pay for {plan} but the statement lists another tier",
        "the bill counts {count} devices and I own one",
        "the payment for {plan} bounced although there is money on the card",
        "the invoice is still made out to my former employer",
        "I was charged twice in {month} and would like to see how that adds up",
        "the {amount} on my bank statement carries a name I cannot match to any invoice",
    ),
    topics=(
        "the {amount} charge",
        "the {month} invoice",
        "the new card",
        "the tax on the last bill",
        "the odd total on my statement",
        "the double line on the bill",
    ),
)

REFUNDS = Queue(
    share=10,
    neighbours=("billing", "shipping", "cancellation", "technical", "security"),
    requests=(
        "give me my money back for the {product}",
        "tell me when the {amount} will be back on my card",
        "take the {product} back, it is still sealed",
        "return the {amount} I paid for {plan}",
        "send a return label for the {product}",
        "pay back the difference, I was promised {amount} less",
        "credit me for the {days} days I could not use {plan}",
        "check where my reimbursement for order {order} got stuck",
        "reverse the second payment of {amount}",
        "reopen the return that was rejected in {month}",
        "let me send the {product} back after the {days} day window",
        "reimburse me to another card, the old one is closed",
        "give me the {amount} back rather than a voucher",
        "make good on the money back promise for the {product}",
        "undo the sale of the {product} and return what I paid",
        "confirm that the {product} reached your returns desk",
    ),
    problems=(
        "I sent the {product} back {days} days ago and have not seen a cent",
        "the {product} is not what was described and I no longer want to keep it",
        "I was told {amount} would come back to me by {month} and it has not",
        "the returns page says order {order} is not eligible",
        "you took {amount} after I left and I expect to see it again",
        "only half of the {amount} came back to my card",
        "the return was accepted but all I got is store credit",
        "I bought the same {product} twice by mistake and one can go back",
        "the {product} broke within {days} days and I want to be paid back, not another one",
        "the money for order {order} went to a card that is closed",
        "the label for sending back the {product} has expired",
        "the {product} is boxed up and ready to go back to you",
    ),
    topics=(
        "my refund",
        "the {product} I sent back",
        "the return of order {order}",
        "the {amount} you owe me",
        "getting my money back",
        "the return label",
    ),
)

ACCOUNT = Queue(
    share=12,
    neighbours=("security", "technical", "cancellation", "billing", "shipping"),
    requests=(
        "send me a new link to reset my password",
        "change the email on my profile to my new address",
        "let me back in, I am locked out after {count} attempts",
        "merge my two profiles into one",
        "move the {product} from my ex partner's profile to mine",
        "add my {relative} as a second user",
        "turn off the login codes that go to my old phone",
        "correct the spelling of my name",
        "unlock my profile",
        "make my {relative} the owner of our home",
        "take the former tenant off our home",
        "tell me which address I signed up with",
        "link the {product} to my profile, the code on the box says it is taken",
        "restore the profile I closed in {month}",
        "set the language of my profile back to English",
        "resend the message that confirms my email",
    ),
    problems=(
        "the reset link never arrives",
        "the site does not know my email although I signed up in {month}",
        "I got a new phone and the login code still goes to the old one",
        "my {relative} cannot see our home although I sent an invitation",
        "I am asked for a code from an app that I no longer have",
        "my password works on the site but not for the shop",
        "I have two logins and the {product} sits in the wrong one",
        "the previous owner is still listed as the owner of the {product}",
        "I mistyped my own email when I registered",
        "after {count} wrong tries I am shut out of everything",
        "I no longer have the mailbox that I registered with",
        "my profile shows somebody else's first name",
    ),
    topics=(
        "my password",
        "the login code",
        "my {relative}'s access",
        "the email on my profile",
        "being locked out",
        "the sign-in trouble",
    ),
)

SECURITY = Queue(
    share=6,
    neighbours=("account", "billing", "technical", "refunds", "shipping"),
    requests=(
        "find out who signed in from {place}",
        "block whoever ordered a {product} in my name",
        "tell me if the message about {plan} really came from you",
        "throw out every device that is signed in except mine",
        "look into a payment of {amount} that nobody here made",
        "freeze my profile until we know who got in",
        "check whether strangers could watch my {product}",
        "delete all recordings and data that you hold about me",
        "tell me what was leaked in {month}",
        "investigate who changed my email without me",
        "stop the person who is using my card in your shop",
        "report the fake shop that sells your {product}",
        "send me a copy of all the personal data you keep",
        "trace the order {order} that I never placed",
        "say whether that caller from your company was genuine",
        "review who had access to my {product} last {month}",
    ),
    problems=(
        "there was a sign-in from {place} and I have never been there",
        "someone placed order {order} with my card",
        "I got a text with your logo asking for my card number",
        "my password was changed at night and it was not me",
        "the {product} turned its head and a voice spoke to us",
        "a caller who said he was from you wanted the code on my phone",
        "my card shows {amount} for a {product} that I never bought",
        "I clicked on a link in a mail about {plan} and now I worry",
        "an unknown phone appears in the list of devices",
        "I found my address on a page that claims to come from your database",
        "a stranger knew which {product} I own",
        "goods in my name go to an address in {place} that is not mine",
    ),
    topics=(
        "a strange sign-in",
        "the fake message",
        "the stolen card",
        "my personal data",
        "a payment I did not make",
        "the unknown device on my list",
    ),
)

SHIPPING = Queue(
    share=15,
    neighbours=("refunds", "sales", "cancellation", "billing", "technical"),
    requests=(
        "tell me where order {order} is",
        "send the {product} to my office instead",
        "find out why the tracking has not moved for {days} days",
        "get the driver to leave the {product} with a neighbour",
        "send the missing half of order {order}",
        "change the flat number on order {order}",
        "hold the parcel until I am back from {place}",
        "ship a new {product}, this one was crushed on the way",
        "hand the parcel to another carrier",
        "give me a date on which the {product} will be here",
        "release the {product} from customs",
        "swap the wrong {product} that was in the box for the right one",
        "deliver on a Saturday, nobody is home in the week",
        "tell the depot to try again with order {order}",
        "combine orders so that all comes in one box",
        "look for the parcel that was signed for by someone else",
    ),
    problems=(
        "order {order} was due {days} days ago",
        "tracking says delivered but there is nothing at the door",
        "the box came without the {product} in it",
        "the driver left a card although we were home all day",
        "the {product} has been sitting in {place} since {month}",
        "I typed the wrong street for order {order}",
        "only {count} of the boxes in my order arrived",
        "you sent a {product} in the wrong colour",
        "we moved and the {product} is on its way to the old house",
        "the parcel was soaked and the {product} rattles",
        "the carrier says that it never got order {order} from you",
        "the {product} went back to the depot for the third time",
    ),
    topics=(
        "the late parcel",
        "order {order}",
        "the tracking",
        "the wrong street on the label",
        "the box that came half empty",
        "the carrier",
    ),
)

TECHNICAL = Queue(
    share=24,
    neighbours=("account", "refunds", "security", "cancellation", "sales"),
    requests=(
        "help me get the {product} online again",
        "tell me how to reset the {product}",
        "find out why the app closes when I open the {product}",
        "fix the update that broke my {product}",
        "make the {product} work with my new router",
        "tell me what the red light on the {product} means",
        "get the recordings to play again",
        "help me pair the {product} with the hub",
        "look at the log I sent, error {code} comes up every time",
        "stop the {product} from sending alerts all night",
        "walk me through the setup of the {product}",
        "tell me why the battery of the {product} lasts {days} days",
        "bring the sound of the {product} back",
        "say when the bug in the schedule will be fixed",
        "get the {product} out of its restart loop",
        "get the picture of the {product} sharp again",
    ),
    problems=(
        "the {product} drops off the wifi every night",
        "the app shows error {code} and closes",
        "since the update in {month} the {product} does nothing",
        "the {product} keeps restarting",
        "the picture freezes after {count} minutes",
        "the {product} hums and gets hot",
        "the schedule runs an hour late",
        "the hub does not find the {product} any more",
        "the {product} has an empty battery after {days} days",
        "alerts reach my phone long after the event",
        "the {product} blinks red and ignores the button",
        "everything in the app is grey and nothing reacts",
    ),
    topics=(
        "the {product} that keeps dropping out",
        "error {code}",
        "the last update",
        "the app that closes",
        "the red light",
        "the pairing",
    ),
)

CANCELLATION = Queue(
    share=7,
    neighbours=("billing", "refunds", "account", "sales", "shipping"),
    requests=(
        "end {plan} before the next payment",
        "stop the renewal in {month}",
        "call off order {order}, it has not left yet",
        "close my profile for good at the end of {month}",
        "make sure that {plan} does not go on after the trial",
        "confirm that {plan} is over",
        "drop {plan}, I do not use it any more",
        "let me out of the yearly contract early",
        "put an end to the subscription of my late {relative}",
        "pause {plan} until {month}",
        "strike the {product} from my order before it ships",
        "take me off automatic renewal",
        "tell me how much notice I must give for {plan}",
        "let {plan} run out without a new term",
        "accept this as my notice",
        "withdraw the order for the {product}",
    ),
    problems=(
        "I no longer have a use for {plan}",
        "the button that ends {plan} leads to an empty page",
        "I gave notice in {month} and {plan} still runs",
        "we sell the house and will not need {plan} from {month} on",
        "the trial of {plan} is about to turn into a paid year",
        "I changed my mind about order {order} an hour after placing it",
        "I am leaving for another provider at the end of {month}",
        "you renewed {plan} for a year and I wanted it to stop",
        "the chat would not let me go and kept offering {plan} for less",
        "my {relative} passed away and nobody needs {plan} now",
        "I did not know that {plan} goes on by itself",
        "at {amount} a month {plan} is no longer worth it to me",
    ),
    topics=(
        "ending {plan}",
        "the renewal",
        "my notice from {month}",
        "the end of the trial",
        "leaving {plan}",
        "pausing {plan}",
    ),
)

SALES = Queue(
    share=8,
    neighbours=("billing", "cancellation", "shipping", "technical", "account"),
    requests=(
        "tell me which plan covers {count} cameras",
        "make us an offer for {count} pieces of the {product}",
        "say if the {product} is back in stock before {month}",
        "move me up from {plan} to something bigger",
        "tell me if there is a student price for {plan}",
        "compare {plan} with the one above it",
        "let me try {plan} for {days} days before I decide",
        "tell me if you deliver the {product} to {place} before I order",
        "say if the {product} works without a subscription",
        "put me in touch with someone who handles resellers",
        "tell me what {plan} would cost for a small hotel",
        "let me know if an older {product} can be traded in",
        "offer a bundle of the {product} and {plan}",
        "tell me whether the {month} sale will include the {product}",
        "recommend a {product} for a house with thick walls",
        "extend the quote we got in {month}",
    ),
    problems=(
        "I cannot decide between {plan} and the next one up",
        "we want to equip {count} rental flats",
        "the {product} has been sold out since {month}",
        "your page does not say if the {product} needs {plan}",
        "a competitor in {place} wants {amount} for about the same",
        "our school would take {count} of the {product} at the right price",
        "I am on {plan} and have outgrown it",
        "the quote from {month} has run out and we are ready now",
        "I wonder if the {product} would suit my {relative}",
        "I saw {plan} for {amount} and ask myself what is in it",
        "we are opening a shop in {place} and would like to stock the {product}",
        "I hear that a new {product} comes out in {month}",
    ),
    topics=(
        "the offer for {count} devices",
        "the bigger plan",
        "your quote from {month}",
        "a trade-in",
        "the price of {plan}",
        "an upgrade",
    ),
)

QUEUES: dict[str, Queue] = {
    "billing": BILLING,
    "refunds": REFUNDS,
    "account": ACCOUNT,
    "security": SECURITY,
    "shipping": SHIPPING,
    "technical": TECHNICAL,
    "cancellation": CANCELLATION,
    "sales": SALES,
}

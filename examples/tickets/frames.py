"""The sentences that hold phrases together: who greets, what is asked, what is only mentioned, and the slots' values.

A frame never belongs to one queue, so it says nothing about the topic; it says which of two topics counts.
"""

from __future__ import annotations

from phrases import Bank

# What the ticket is for. {request} is a phrase of the right queue, {problem} a clause of it.
ASKS: Bank = (
    "Could you {request}?",
    "Please {request}.",
    "I would like you to {request}.",
    "All I want is for you to {request}.",
    "Can someone {request}?",
    "What I need is simple: {request}.",
    "My question is whether you can {request}.",
    "I would be glad if you could {request}.",
    "So kindly {request}.",
    "It would help a lot if you would {request}.",
    "I am writing to have you {request}.",
    "Is there any way to have your team {request}?",
)
REASONS: Bank = (
    "{problem}.",
    "I am writing because {problem}.",
    "My problem is that {problem}.",
    "Here is the thing: {problem}.",
    "{problem} and I need help with that.",
    "What bothers me is that {problem}.",
    "As of today {problem}.",
    "{problem}, what now?",
)

# What the ticket is not for. {topic}, {problem} and {request} are phrases of another queue.
ASIDES: Bank = (
    "{topic} has been sorted out, thanks.",
    "Leave {topic} aside, a colleague of yours has that.",
    "This is not about {topic}.",
    "I wrote about {topic} before and that is settled.",
    "{topic} can wait.",
    "It all began with {topic}, but never mind that now.",
    "I know about {topic} already.",
    "{topic} is another story and has its own ticket.",
    "Last {month} {problem}, which you fixed.",
    "True, {problem}, but I can live with that.",
    "{problem}, though I have taken care of that myself.",
    "My {relative} wrote to you because {problem}, I come with something else.",
    "Nothing new on {topic} from my side.",
    "While I dealt with {topic} I noticed something else.",
    "I used to complain that {problem}, that is over.",
    "In the same week {problem}, and your chat handled it.",
)
REFUSALS: Bank = (
    "I am not asking you to {request}.",
    "No need to {request}.",
    "Please do not {request}.",
    "The bot offered to {request}, which misses the point.",
    "I do not expect you to {request}.",
    "You have already been so kind as to {request}.",
    "Your colleague wanted to {request} and I said no.",
    "It is not that you should {request}.",
    "Others may want you to {request}, I do not.",
    "There is no point any more in having you {request}.",
    "Last time I asked you to {request} and it worked.",
    "I decided against having you {request}.",
)
# One sentence for both: the first phrase is refused and the second asked for, or the other way round.
CONTRASTS: Bank = (
    "Rather than {other}, please {request}.",
    "Please {request} instead of offering to {other}.",
    "I do not want you to {other} but to {request}.",
    "You were going to {other}, but I would rather have you {request}.",
    "Do {request}, do not {other}.",
    "Before I ask you to {other} one day, just {request} now.",
    "Now that you managed to {other}, could you also {request}?",
    "Could you {request}, now that someone was able to {other}?",
)

# Stories that fit several queues: by themselves they do not say where a ticket goes.
STORIES: tuple[tuple[str, Bank], ...] = (
    ("I bought a {product} from you in {month} for {amount}", ("refunds", "technical", "shipping", "billing")),
    ("I ordered a {product} last week", ("shipping", "cancellation", "refunds", "sales", "security")),
    ("you took {amount} from my card on Monday", ("billing", "refunds", "security", "cancellation")),
    ("my trial of {plan} has come to an end", ("cancellation", "billing", "sales", "technical")),
    ("I have been on {plan} since {month}", ("billing", "sales", "cancellation", "technical", "account")),
    ("we moved to {place} in {month}", ("shipping", "account", "cancellation", "billing", "sales")),
    ("I got a mail about {plan} this morning", ("security", "sales", "billing", "cancellation")),
    ("I have a new phone since {month}", ("account", "technical", "security")),
    ("my {relative} set up the {product} for me", ("account", "technical", "security", "sales")),
    ("the {product} came in the mail today", ("technical", "refunds", "shipping", "account")),
    ("there is a payment of {amount} for {plan}", ("billing", "refunds", "security", "cancellation")),
    ("I cannot get into my orders on your site", ("account", "security", "shipping", "technical")),
    ("I own {count} of your devices", ("technical", "sales", "billing", "account", "security")),
    ("order {order} is on my list", ("shipping", "refunds", "cancellation", "billing", "security")),
    ("somebody at your shop told me to write here", ("refunds", "sales", "technical", "shipping", "account")),
    ("my {product} was replaced in {month}", ("technical", "refunds", "shipping", "account", "billing")),
)

GREETINGS: Bank = (
    "Hi",
    "Hello",
    "Hi there",
    "Dear team",
    "Good morning",
    "Hey",
    "Hello support",
    "To whom it may concern",
)
CLOSINGS: Bank = ("Thanks", "Thank you", "Best", "Cheers", "Regards", "Many thanks", "Yours", "Kind regards")
CHATTER: Bank = (
    "I tried the help pages first.",
    "Sorry for the long message.",
    "I waited {days} minutes on the phone.",
    "This is my second message.",
    "I am a customer since {month}.",
    "Your chat sent me here.",
    "Nice products by the way.",
    "I am not very good with computers.",
    "You can reach me after six.",
    "It is rather urgent.",
    "I write from my phone, excuse typos.",
    "My {relative} says I should be patient.",
)

SLOTS: dict[str, Bank] = {
    "product": (
        "doorbell",
        "camera",
        "thermostat",
        "smart lock",
        "speaker",
        "motion sensor",
        "hub",
        "garden light",
        "smoke alarm",
        "robot vacuum",
        "baby monitor",
        "video intercom",
        "tablet stand",
        "leak sensor",
        "air purifier",
        "curtain motor",
    ),
    "plan": (
        "Home Basic",
        "Home Plus",
        "the family plan",
        "the video archive",
        "Premium",
        "the care plan",
        "Guard Pro",
        "the cloud storage",
        "the yearly plan",
        "Studio",
        "Night Watch",
        "the starter plan",
    ),
    "month": (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
    "place": (
        "Leeds",
        "Porto",
        "Oslo",
        "Málaga",
        "Austin",
        "Zürich",
        "Lagos",
        "Perth",
        "Riga",
        "Quebec",
        "Naples",
        "Kobe",
    ),
    "relative": ("wife", "husband", "son", "daughter", "mother", "father", "flatmate", "sister", "uncle", "neighbour"),
    "amount": ("$9.99", "$12", "$19.90", "$35", "€49", "$59.99", "$74", "$80", "£99", "$120", "$149", "$230"),
    "days": ("3", "4", "five", "6", "ten", "12", "14", "15", "20", "25", "30", "45"),
    "count": ("two", "3", "four", "5", "six", "8", "ten", "12"),
    "code": ("E17", "102", "403", "0x5", "E2", "err-88", "500", "T9"),
    "order": ("41920", "#7731", "88-204", "A5510", "#60218", "93377", "B-1184", "20755"),
}
NAMES: Bank = (
    "Anna",
    "Tom",
    "Ms Okafor",
    "J. Lind",
    "Priya",
    "Marek",
    "Sofía",
    "D. Brandt",
    "Yuki",
    "Paul",
    "Ines",
    "R. Costa",
)

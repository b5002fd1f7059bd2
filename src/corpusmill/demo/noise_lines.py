"""Lines of site furniture that stand inside and around the text of the demo pages: what a refiner should remove."""

from corpusmill.demo.dice import Dice
from corpusmill.demo.written_texts import PEOPLE

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")

BEFORE = (
    "By {person}, {date}",
    "Written by {person} on {date}",
    "Posted by {person} | {date} | {n} comments",
    "{person} - Published {date} - Updated {time}",
    "Estimated reading time: {few} minutes",
    "Share this article with your friends",
    "Listen to this article ({few} min)",
    "Share on social media | Print this page",
    "Photo: {person} / {site}",
    "Filed under: {topic}, {topic2}, Archive",
    "Save this story for later",
    "You are reading a free article. {few} free articles left this month",
)
BETWEEN = (
    "Read more: {other}",
    "Also interesting: {other}",
    "Related story: {other}",
    "Advertisement - article continues below",
    "ADVERTISEMENT - SCROLL TO CONTINUE READING",
    "Story continues after the picture gallery ({few} photos)",
    "Sign up for our weekly newsletter and never miss a story",
    "Get the best of {site} in your inbox every Friday. Subscribe now!",
    "Click here to follow {site} on social media",
    "Download our free app for iOS and Android",
    "Picture {few} of {n}: click to enlarge",
    "[View gallery: {n} photos]",
    "Like this page? Give us a star!",
    "Sponsored: save up to {n} % on your next order with the code SPRING",
    "Recommended for you: {other}",
    "Support independent journalism: become a member today",
)
AFTER = (
    "Tags: {topic}, {topic2}, {site}",
    "{n} comments | Log in to post a comment",
    "Leave a reply. Your email address will not be published",
    "Share this: Email Print More",
    "Previous post: {other}",
    "Next article: {other2}",
    "You may also like: {other2}",
    "Report an error on this page",
    "Copyright {year} {site}. All rights reserved.",
    "Show all articles by {person}",
    "Was this page helpful? Yes / No",
    "Back to top | Contact | Imprint",
    "{n} people found this helpful",
    "Most read this week in {topic}",
)
RECIPE = (
    "Jump to recipe | Print recipe | Rate this recipe",
    "Rating: 4.{few} out of 5 ({n} votes)",
    "Did you make this recipe? Tag us in your photos!",
    "Pin this recipe for later",
    "As an affiliate we earn from qualifying purchases",
    "Nutrition facts are estimates only",
)
SHOP = (
    "Add to basket | Add to wish list",
    "In stock, ready for delivery in {few} days",
    "Free shipping on orders over {n}",
    "Customers also bought: {other}",
    "Average rating 4.{few} of 5 from {n} reviews",
    "Item number: {n}-{few}{n}",
    "Pay by card, invoice or bank transfer",
    "Compare with similar products",
)
FORUM = (
    "Joined: {date} | Posts: {n} | Location: {site}",
    "Reply with quote | Report this post to a moderator",
    "Last edited by {person} on {date}",
    "{n} users browsing this forum, {few} guests",
    "Post reply | Subscribe to this topic | Mark as read",
    "You cannot post attachments in this forum",
    "Page 1 of {few} - jump to page",
    "Quick links: unanswered topics, active topics, search",
)
FOREIGN = {
    "de": (
        "Von {person}, {date}",
        "Diesen Artikel teilen oder drucken",
        "Lesen Sie auch: {other}",
        "Anzeige - weiter nach der Werbung",
        "{n} Kommentare | Zum Kommentieren bitte anmelden",
    ),
    "fr": (
        "Par {person}, le {date}",
        "Partager cet article sur les réseaux",
        "À lire aussi : {other}",
        "Publicité - la suite après l'annonce",
        "{n} commentaires | Connectez-vous pour réagir",
    ),
    "es": (
        "Por {person}, {date}",
        "Comparte esta noticia con tus amigos",
        "Lea también: {other}",
        "Publicidad - siga leyendo abajo",
        "{n} comentarios | Inicie sesión para comentar",
    ),
}
TOPICS = ("Garden", "Kitchen", "Town life", "Science", "Repair", "Outdoors", "Culture", "Transport", "Opinion", "Books")


def fill(line: str, dice: Dice, site: str, others: list[str]) -> str:
    """Returns a line with its blanks filled: names, dates, numbers, other titles of the site."""
    topics = dice.sample(TOPICS, 2)
    return line.format(
        person=dice.choice(PEOPLE),
        date=f"{1 + dice.below(28)} {dice.choice(MONTHS)} {2019 + dice.below(5)}",
        time=f"{dice.below(24):02}:{dice.below(60):02}",
        n=3 + dice.below(90),
        few=2 + dice.below(7),
        year=2021 + dice.below(4),
        site=site,
        topic=topics[0],
        topic2=topics[1],
        other=others[0],
        other2=others[1],
    )
